"""Window pooling in torch's operators alone, for devices without a kernel of ours."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.kernels.pyramid import bin_edges


def pool_anywhere(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...]) -> Tensor:
    """Pyramid vectors `(N, C * bins)` of windows `(N, 4)` of `maps` `(H, W, C)`, as `pooling.pool_windows` gives them.

    Maxima over 1, 2, 4, 8 ... rows and columns are computed once, of the whole map.  A bin is the union of four such
    rectangles in its corners, which may overlap.  Where they lie is counted in whole numbers, on the CPU.
    """
    tall = [maps]
    while 2 << (len(tall) - 1) <= maps.shape[0]:
        half = 1 << (len(tall) - 1)
        tall.append(torch.maximum(tall[-1][:-half], tall[-1][half:]))
    tables = {}
    for row_step, table in enumerate(tall):
        tables[row_step, 0] = table
        column_step = 0
        while 2 << column_step <= maps.shape[1]:
            half = 1 << column_step
            table = torch.maximum(table[:, :-half], table[:, half:])
            column_step += 1
            tables[row_step, column_step] = table
    parts = []
    for n in levels:
        top, bottom = _ranges(cells[:, 1], cells[:, 3], n)
        left, right = _ranges(cells[:, 0], cells[:, 2], n)
        top, bottom, left, right = np.broadcast_arrays(
            top[:, :, None], bottom[:, :, None], left[:, None], right[:, None]
        )
        kinds = np.stack([_log2(bottom - top), _log2(right - left)])
        bins = maps.new_empty(len(cells), n, n, maps.shape[2])
        for row_step, column_step in np.unique(kinds.reshape(2, -1), axis=1).T.tolist():
            chosen = np.nonzero((kinds[0] == row_step) & (kinds[1] == column_step))
            table = tables[row_step, column_step]
            rows = (top[chosen], bottom[chosen] - (1 << row_step))
            columns = (left[chosen], right[chosen] - (1 << column_step))
            corners = [table[_there(y, maps), _there(x, maps)] for y in rows for x in columns]
            bins[tuple(_there(axis, maps) for axis in chosen)] = torch.stack(corners).amax(dim=0)
        parts.append(bins.permute(0, 3, 1, 2).flatten(1))
    return torch.cat(parts, dim=1)


def _ranges(first: NDArray[np.int32], last: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], ...]:
    """First rows (or columns) `(N, n)` of the bins, and the ones after their last."""
    extents = last - first + 1
    edges = np.array([bin_edges(extent, n) for extent in range(extents.max(initial=0) + 1)])
    of_windows = edges[extents] + first[:, None, None]
    return of_windows[..., 0], of_windows[..., 1]


def _log2(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the largest power of two that is no longer."""
    return np.frexp(lengths)[1].astype(np.int64) - 1


def _there(numbers: NDArray[np.int64], maps: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(maps.device)
