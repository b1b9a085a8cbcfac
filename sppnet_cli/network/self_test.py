"""A device's pooling against exact values: releases of torch are known where adaptive max pooling on MPS is silently wrong."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pooling import pool_windows
from sppnet_cli.kernels.pyramid import bin_edges

_CASES = ((10, 6), (13, 6), (5, 3), (2, 3))  # cells, bins


@functools.cache
def require_exact_pooling(device: str) -> None:
    """Pool 10 cells to 6, 13 to 6, 5 to 3 and 2 to 3 on `device`, whole maps and a window, once a process.

    Raises `DataError` where a number is not exact or an operator is missing.  On MPS torch up to 2.13 pools with one kernel
    and stride for all bins (pytorch/pytorch issue 190064): 5 cells to 3 give other numbers, and no error.  Torch 2.14 has
    kernels that know bins of different sizes.
    """
    for cells, bins in _CASES:
        numbers = torch.randperm(2 * cells * cells, generator=torch.Generator().manual_seed(cells)) - cells
        maps = numbers.float().view(1, 2, cells, cells)
        edges = bin_edges(cells, bins)
        expected = torch.stack(
            [maps[0, :, a:b, c:d].amax(dim=(1, 2)) for a, b in edges for c, d in edges], dim=1
        ).view(1, 2, bins, bins)
        what = f"of {cells} to {bins} cells gives wrong numbers"
        adaptive = functools.partial(F.adaptive_max_pool2d, maps.to(device), bins)
        _require(device, adaptive, expected, f"adaptive max pooling {what}")
        channels_last = maps[0].permute(1, 2, 0).contiguous().to(device)
        whole = np.array([[0, 0, cells - 1, cells - 1]], np.int32)
        windows = functools.partial(pool_windows, channels_last, whole, (bins,))
        _require(device, windows, expected.flatten(1), f"window pooling {what}")


def _require(device: str, pool: Callable[[], Tensor], expected: Tensor, reason: str) -> None:
    try:
        exact = torch.equal(pool().cpu(), expected)
    except (NotImplementedError, RuntimeError) as error:
        exact, reason = False, str(error).splitlines()[0]
    if not exact:
        raise DataError(
            f"--device {device}: torch {torch.__version__} fails its self-test ({reason}); use --device cpu, or torch 2.14 "
            "or later"
        )
