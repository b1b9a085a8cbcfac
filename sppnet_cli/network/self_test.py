"""A device's adaptive max pooling against exact values: releases of torch are known where MPS's is silently wrong."""

import functools

import torch
from torch.nn import functional as F

from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pyramid import bin_edges

_CASES = ((10, 6), (13, 6), (5, 3))  # cells, bins


@functools.cache
def require_exact_pooling(device: str) -> None:
    """Pool 10 cells to 6, 13 to 6 and 5 to 3 on `device`, once a process.

    Raises `DataError` where a number is not exact or the operator is missing.  On MPS torch 2.13 pools with one kernel and
    stride for all bins (pytorch/pytorch issue 190064): 5 cells to 3 give other numbers, and no error.
    """
    for cells, bins in _CASES:
        numbers = torch.randperm(2 * cells * cells, generator=torch.Generator().manual_seed(cells)) - cells
        maps = numbers.float().view(1, 2, cells, cells)
        edges = bin_edges(cells, bins)
        expected = torch.stack(
            [maps[0, :, a:b, c:d].amax(dim=(1, 2)) for a, b in edges for c, d in edges], dim=1
        ).view(1, 2, bins, bins)
        try:
            found = F.adaptive_max_pool2d(maps.to(device), bins).cpu()
        except (NotImplementedError, RuntimeError) as error:
            found, reason = None, str(error).splitlines()[0]
        else:
            reason = f"adaptive max pooling of {cells} to {bins} cells gives wrong numbers"
        if found is None or not torch.equal(found, expected):
            raise DataError(
                f"--device {device}: torch {torch.__version__} fails its self-test ({reason}); use --device cpu, or "
                "a later release of torch"
            )
