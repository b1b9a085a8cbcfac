"""Max-pooling of many windows of one map to spatial pyramid vectors: the heart of SPP-net's detection."""

import functools
import math
import weakref
from collections import deque
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.kernels.jit import kernel
from sppnet_cli.kernels.pyramid import SPP6, SpatialPyramidPooling, bin_count, bin_edges
from sppnet_cli.kernels.vectors import LANES, LINE, SIDE, stream, transpose, union
from sppnet_cli.threads import share_out

_SMALLEST, _LARGEST = 1 << 20, 1 << 28  # bytes of results whose memory is used again
_spare: deque[NDArray[np.uint8]] = deque(maxlen=1)  # of the last result that nobody holds any more


def pool_windows(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...] = SPP6) -> Tensor:
    """Pyramid vectors `(N, C * bins)` of windows of one map, in its dtype and the layout of `SpatialPyramidPooling`.

    Args:
        maps: `(H, W, C)` float32 or bfloat16, contiguous, without NaN.
        cells: `(N, 4)` int32, x1, y1, x2, y2 inclusive, inside the map.
        levels: Bins per side of each level.

    The bins of an extent of a cells are `[floor(i*a/n), ceil((i+1)*a/n))` (journal edition, appendix).  Only the finest
    level is pooled from the map; a coarser level that divides it is the union of its bins, which gives the same numbers.
    """
    vectors = empty_vectors(len(cells), maps.shape[2] * bin_count(levels), maps)
    pool_into(vectors, np.arange(len(cells)), maps, cells, levels)
    return vectors


def pooled_by_definition(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...] = SPP6) -> Tensor:
    """The definition of `pool_windows`: the pyramid of every window's part of the map."""
    pyramid, batch = SpatialPyramidPooling(levels), maps.permute(2, 0, 1)[None]
    windows = [pyramid(batch[:, :, y1 : y2 + 1, x1 : x2 + 1]) for x1, y1, x2, y2 in cells.tolist()]
    return torch.cat(windows) if windows else maps.new_empty(0, maps.shape[2] * bin_count(levels))


def pool_into(
    vectors: Tensor,
    rows: NDArray[np.int64],
    maps: Tensor,
    cells: NDArray[np.int32],
    levels: tuple[int, ...] = SPP6,
) -> None:
    """`pool_windows` into the `rows` `(N,)` of `vectors` `(M, C * bins)`, contiguous, of the maps' dtype and device."""
    levels = tuple(sorted(levels))
    if not len(cells):
        return
    if maps.device.type == "cuda" and find_spec("triton"):
        from sppnet_cli.kernels.triton_pooling import pool_on_gpu

        pool_on_gpu(vectors, rows, maps, cells, plan_of(levels))
    elif maps.device.type != "cpu":
        vectors[torch.from_numpy(rows).to(maps.device)] = _roi_pool(maps, cells, levels)
    elif maps.dtype == torch.bfloat16 and maps.view(torch.int16).amin() < 0:
        # The kernel compares bit patterns, whose order is another for negative numbers.
        vectors[torch.from_numpy(rows)] = pool_windows(maps.float(), cells, levels).to(maps.dtype)
    else:
        _pool_on_cpu(_numbers(vectors), rows, _numbers(maps), cells, levels)


def empty_vectors(count: int, length: int, like: Tensor) -> Tensor:
    """Uninitialised `(count, length)` in the dtype and on the device of `like`.

    On the CPU it may reuse the memory of an earlier result that nobody holds any more: new memory takes the system nearly
    as much time to provide as pooling takes to fill it.
    """
    size = count * length * like.element_size()
    if like.device.type != "cpu" or size < _SMALLEST:
        return like.new_empty(count, length)
    try:
        memory = _spare.pop()
    except IndexError:
        memory = np.empty(0, np.uint8)
    if not size + LINE <= len(memory) <= 2 * size + LINE:
        _spare.append(memory)
        # NumPy asks for huge pages and torch does not, so that torch's memory would fault once every 4 KB.
        memory = np.empty(size + LINE, np.uint8)
    array = _line_aligned(memory, size)
    if size <= _LARGEST:
        weakref.finalize(array, _spare.append, memory).atexit = False
    return torch.from_numpy(array).view(like.dtype).view(count, length)


def _line_aligned(memory: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`size` bytes of `memory` from the first that starts a cache line."""
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """Its memory; bfloat16 as int16, whose order is the same where no number is negative."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def plan_of(levels: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows (n, parent, first bin, first bin of the parent), finest first; parent 0: pooled from the cells."""
    first = {n: sum(m * m for m in levels if m < n) for n in levels}
    rows = []
    for n in reversed(levels):
        parents = [m for m in levels if m > n and m % n == 0]
        parent = min(parents, default=0)
        rows.append((n, parent, first[n], first.get(parent, 0)))
    return np.array(rows, dtype=np.int64)


def _pool_on_cpu(
    vectors: NDArray[Any],
    rows: NDArray[np.int64],
    maps: NDArray[Any],
    cells: NDArray[np.int32],
    levels: tuple[int, ...],
) -> None:
    height, width, channels = maps.shape
    blocks = -(-channels // LANES)
    if channels % LANES:
        maps = np.pad(maps, ((0, 0), (0, 0), (0, -channels % LANES)))
    # A run of lanes that started elsewhere than a cache line would be read from one line more.
    by_block = _line_aligned(np.empty(maps.nbytes + LINE, np.uint8), maps.nbytes).view(maps.dtype)
    by_block = by_block.reshape(blocks, height, width, LANES)
    np.copyto(by_block, maps.reshape(height, width, blocks, LANES).transpose(2, 0, 1, 3))
    plan, edges = plan_of(levels), _edges_of(levels, max(height, width))
    longest = (edges[..., 1] - edges[..., 0]).max(axis=2)  # cells of a bin, by level and extent
    whole_lines = channels % LANES == 0 and vectors.ctypes.data % LINE == 0

    def pool(part: slice) -> None:
        _pool(by_block, cells[part], plan, edges, longest, channels, whole_lines, rows[part], vectors)

    step = math.ceil(len(cells) / torch.get_num_threads())
    share_out(pool, [slice(i, i + step) for i in range(0, len(cells), step)])


@functools.cache
def _edges_of(levels: tuple[int, ...], longest: int) -> NDArray[np.int64]:
    """First cell and the one after the last, by level as in the plan, extent up to `longest`, and bin."""
    edges = np.zeros((len(levels), longest + 1, levels[-1], 2), np.int64)
    for of_level, n in zip(edges, reversed(levels), strict=True):
        of_level[:, :n] = [bin_edges(extent, n) for extent in range(longest + 1)]
    return edges


@kernel
def _pool(maps, cells, plan, edges, longest, channels, whole_lines, rows, vectors):  # type: ignore[no-untyped-def]
    """A bin is a union of cells, or of a finer level's bins.

    `maps` `(blocks, H, W, LANES)` is worked through block by block, each of which stays in the cache for all windows.
    """
    map_width = maps.shape[2]
    target = vectors.reshape(-1)
    bins = vectors.shape[1] // channels
    scratch = np.zeros((bins + SIDE) * LANES, maps.dtype)  # (bin, channel)
    tile = np.zeros(plan[:, 0].max() ** 2 * LANES + SIDE, maps.dtype)  # (channel, bin) of one level
    for block in range(maps.shape[0]):
        source = maps[block].reshape(-1)
        first_channel = block * LANES
        for window in range(cells.shape[0]):
            x1, y1 = cells[window, 0], cells[window, 1]
            width, height = cells[window, 2] - x1 + 1, cells[window, 3] - y1 + 1
            for level in range(plan.shape[0]):
                n, parent, base, parent_base = plan[level]
                side = parent // n
                tall, wide = longest[level, height], longest[level, width]
                for row in range(n):
                    top, bottom = edges[level, height, row, 0], edges[level, height, row, 1]
                    for column in range(n):
                        at = (base + row * n + column) * LANES
                        if parent == 0:
                            left, right = edges[level, width, column, 0], edges[level, width, column, 1]
                            start = ((y1 + top) * map_width + x1 + left) * LANES
                            union(
                                source,
                                start,
                                bottom - top,
                                map_width * LANES,
                                right - left,
                                tall,
                                wide,
                                scratch,
                                at,
                            )
                        else:
                            start = (parent_base + row * side * parent + column * side) * LANES
                            union(scratch, start, side, parent * LANES, side, side, side, scratch, at)
            vector = rows[window] * vectors.shape[1]
            for level in range(plan.shape[0]):
                n, _, base, _ = plan[level]
                count = n * n
                for c in range(0, LANES, SIDE):
                    for b in range(0, count, SIDE):
                        b = max(min(b, count - SIDE), 0)
                        transpose(scratch, (base + b) * LANES + c, tile, c * count + b, count)
                start = vector + base * channels + first_channel * count
                if whole_lines:
                    stream(tile, target, start, count)
                else:
                    for i in range(min(LANES, channels - first_channel) * count):
                        target[start + i] = tile[i]


def _roi_pool(maps: Tensor, cells: NDArray[np.int32], levels: tuple[int, ...]) -> Tensor:
    from torchvision.ops import roi_pool  # not on the way of those whom our own kernels serve

    batch = maps.float().permute(2, 0, 1)[None].contiguous()
    boxes = torch.from_numpy(cells).to(batch)
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    return torch.cat([roi_pool(batch, rois, n).flatten(1) for n in levels], dim=1).to(maps.dtype)
