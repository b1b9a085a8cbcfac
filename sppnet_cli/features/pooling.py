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
    source = maps.numpy()
    # NumPy asks for huge pages, torch does not: what is written once should not fault once every 4 KB.
    target = np.empty((len(cells), maps.shape[2] * bin_count(levels)), np.float32)
    plan = _plan(levels)
    threads = min(torch.get_num_threads(), len(cells)) or 1
    step = math.ceil(len(cells) / threads) or 1
    parts = [slice(i, i + step) for i in range(0, len(cells), step)]
    if len(parts) <= 1:
        _pool(source, cells, plan, target)
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(lambda part: _pool(source, cells[part], plan, target[part]), parts))
    return torch.from_numpy(target)


def _plan(levels: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows (n, parent, first bin, first bin of the parent), finest first; parent 0: pooled from the cells."""
    first = {n: sum(m * m for m in levels if m < n) for n in levels}
    rows = []
    for n in reversed(levels):
        parents = [m for m in levels if m > n and m % n == 0]
        parent = min(parents, default=0)
        rows.append((n, parent, first[n], first.get(parent, 0)))
    return np.array(rows, dtype=np.int64)


# No NaN and no negative zero comes out of a ReLU; with them `max` could not be one instruction.
_jit = numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"}, error_model="numpy")


@_jit
def _union(source, start, step, count, out):  # type: ignore[no-untyped-def]
    """Maximum, number by number, of `count` runs as long as `out`, `step` numbers apart, into `out`."""
    length = out.shape[0]
    a = source[start : start + length]
    b = source[start + step : start + step + length] if count > 1 else a
    if count < 3:
        for k in range(length):
            out[k] = max(a[k], b[k])
        return
    c = source[start + 2 * step : start + 2 * step + length]
    for k in range(length):
        out[k] = max(max(a[k], b[k]), c[k])
    for i in range(3, count):
        a = source[start + i * step : start + i * step + length]
        for k in range(length):
            out[k] = max(out[k], a[k])


@_jit
def _pool(maps, cells, plan, out):  # type: ignore[no-untyped-def]
    """A bin is a union of runs: of rows of the map, which are contiguous, then of columns; or of a finer level's bins."""
    map_width, channels = maps.shape[1], maps.shape[2]
    flat = maps.reshape(-1)
    band = np.empty(map_width * channels, np.float32)  # union of the rows of a bin
    pitch = channels + 16  # of bins in scratch: not a power of two, whose lines would evict each other
    scratch = np.empty(out.shape[1] // channels * pitch, np.float32)
    part = np.empty(channels, np.float32)
    for window in range(cells.shape[0]):
        x1, y1 = cells[window, 0], cells[window, 1]
        width, height = cells[window, 2] - x1 + 1, cells[window, 3] - y1 + 1
        for level in range(plan.shape[0]):
            n, parent, base, parent_base = plan[level]
            for row in range(n):
                if parent == 0:
                    top, bottom = y1 + row * height // n, y1 + ((row + 1) * height + n - 1) // n
                    start = (top * map_width + x1) * channels
                    _union(flat, start, map_width * channels, bottom - top, band[: width * channels])
                for column in range(n):
                    at = (base + row * n + column) * pitch
                    best = scratch[at : at + channels]
                    if parent == 0:
                        left, right = column * width // n, ((column + 1) * width + n - 1) // n
                        _union(band, left * channels, channels, right - left, best)
                    else:
                        side = parent // n
                        corner = (parent_base + row * side * parent + column * side) * pitch
                        _union(scratch, corner, pitch, side, best)
                        for y in range(1, side):
                            _union(scratch, corner + y * parent * pitch, pitch, side, part)
                            for c in range(channels):
                                best[c] = max(best[c], part[c])
            count = n * n
            target = out[window, base * channels : (base + count) * channels]
            for c in range(channels):
                for b in range(count):
                    target[c * count + b] = scratch[(base + b) * pitch + c]


def _roi_pool(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...]) -> Tensor:
    batch = maps.permute(2, 0, 1)[None].contiguous()
    boxes = torch.from_numpy(cells).to(maps)
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    return torch.cat([roi_pool(batch, rois, n).flatten(1) for n in levels], dim=1)
