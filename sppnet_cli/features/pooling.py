"""Max-pooling of many windows of one map to spatial pyramid vectors: the heart of SPP-net's detection."""

import math
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_pool

from sppnet_cli.network.pyramid import SPP6, bin_count


def pool_windows(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...] = SPP6) -> Tensor:
    """Pyramid vectors `(N, C * bins)` float32 of windows of one map, in the layout of `SpatialPyramidPooling`.

    Args:
        maps: `(H, W, C)` float32, contiguous.
        cells: `(N, 4)` int32, x1, y1, x2, y2 inclusive, inside the map.
        levels: Bins per side of each level.

    The bins of an extent of a cells are `[floor(i*a/n), ceil((i+1)*a/n))` (journal edition, appendix).  On the CPU the
    finest level is pooled once and coarser ones that divide it are unions of its bins, which is exact.
    """
    levels = tuple(sorted(levels))
    if maps.device.type != "cpu":
        return _roi_pool(maps, cells, levels)
    out = torch.empty(len(cells), maps.shape[2] * bin_count(levels))
    source, target = maps.numpy(), out.numpy()
    plan = _plan(levels)
    threads = min(torch.get_num_threads(), len(cells)) or 1
    step = math.ceil(len(cells) / threads) or 1
    parts = [slice(i, i + step) for i in range(0, len(cells), step)]
    if len(parts) <= 1:
        _pool(source, cells, plan, target)
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(lambda part: _pool(source, cells[part], plan, target[part]), parts))
    return out


def _plan(levels: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows (n, parent, first bin, first bin of the parent), finest first; parent 0: pooled from the cells."""
    first = {n: sum(m * m for m in levels if m < n) for n in levels}
    rows = []
    for n in reversed(levels):
        parents = [m for m in levels if m > n and m % n == 0]
        parent = min(parents, default=0)
        rows.append((n, parent, first[n], first.get(parent, 0)))
    return np.array(rows, dtype=np.int64)


@numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _pool(maps, cells, plan, out):  # type: ignore[no-untyped-def]
    channels = maps.shape[2]
    bins = out.shape[1] // channels
    scratch = np.empty((bins, channels), np.float32)
    for window in range(cells.shape[0]):
        x1, y1 = cells[window, 0], cells[window, 1]
        width, height = cells[window, 2] - x1 + 1, cells[window, 3] - y1 + 1
        for level in range(plan.shape[0]):
            n, parent, base, parent_base = plan[level]
            for row in range(n):
                for column in range(n):
                    best = scratch[base + row * n + column]
                    if parent == 0:
                        top, bottom = y1 + row * height // n, y1 + ((row + 1) * height + n - 1) // n
                        left, right = x1 + column * width // n, x1 + ((column + 1) * width + n - 1) // n
                        best[:] = maps[top, left]
                        for y in range(top, bottom):
                            for x in range(left, right):
                                cell = maps[y, x]
                                for c in range(channels):
                                    best[c] = max(best[c], cell[c])
                    else:
                        side = parent // n
                        corner = parent_base + row * side * parent + column * side
                        best[:] = scratch[corner]
                        for y in range(side):
                            for x in range(side):
                                part = scratch[corner + y * parent + x]
                                for c in range(channels):
                                    best[c] = max(best[c], part[c])
            count = n * n
            for c in range(channels):
                start = base * channels + c * count
                for b in range(count):
                    out[window, start + b] = scratch[base + b, c]


def _roi_pool(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...]) -> Tensor:
    batch = maps.permute(2, 0, 1)[None].contiguous()
    boxes = torch.from_numpy(cells).to(maps)
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    return torch.cat([roi_pool(batch, rois, n).flatten(1) for n in levels], dim=1)
