"""Window pooling on a GPU, in Triton.  Importing this needs Triton, which torch brings along where it knows CUDA."""

from contextlib import nullcontext

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

_TILE = 4096  # maxima that a program works on at once, channels x bins


def pool_on_gpu(
    vectors: Tensor,
    rows: NDArray[np.int64],
    maps: Tensor,
    cells: NDArray[np.int32],
    plan: NDArray[np.int64],
) -> None:
    """Pool windows `cells` `(N, 4)` of `maps` `(H, W, C)` into the `rows` of `vectors`, as `pooling.pool_into` does.

    `plan` is that of `pooling.plan_of`.
    """
    channels = maps.shape[2]
    tile = _TILE // triton.next_power_of_2(int(plan[:, 0].max()) ** 2)
    block = min(max(tile, 16), triton.next_power_of_2(channels))
    device = maps.device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        _pool[(len(cells), triton.cdiv(channels, block))](
            maps,
            torch.from_numpy(cells).to(device),
            torch.from_numpy(rows).to(device),
            vectors,
            maps.shape[1],
            channels,
            vectors.shape[1],
            tuple(plan.ravel().tolist()),
            block,
        )


@triton.jit
def _pool(  # type: ignore[no-untyped-def]
    maps,
    cells,
    rows,
    vectors,
    map_width,
    channels,
    length,
    PLAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program per window and block of channels."""
    window = tl.program_id(0)
    vector = vectors + tl.load(rows + window) * length
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[:, None]
    for level in tl.static_range(len(PLAN) // 4):
        _pool_level(
            maps,
            cells + 4 * window,
            vector,
            map_width,
            channels,
            channel,
            PLAN[4 * level],
            PLAN[4 * level + 1],
            PLAN[4 * level + 2],
            PLAN[4 * level + 3],
        )


@triton.jit
def _pool_level(  # type: ignore[no-untyped-def]
    maps,
    cells,
    vector,
    map_width,
    channels,
    channel,
    N: tl.constexpr,
    PARENT: tl.constexpr,
    BASE: tl.constexpr,
    PARENT_BASE: tl.constexpr,
):
    """N x N bins of one window, from the cells or from the bins of a finer level that are written already."""
    SIZE: tl.constexpr = triton.next_power_of_2(N * N)
    real = channel < channels
    bins = tl.arange(0, SIZE)[None, :]
    row, column = tl.minimum(bins // N, N - 1), bins % N
    if PARENT == 0:
        x1, y1 = tl.load(cells), tl.load(cells + 1)
        width, height = tl.load(cells + 2) - x1 + 1, tl.load(cells + 3) - y1 + 1
        top, bottom = y1 + row * height // N, y1 + ((row + 1) * height + N - 1) // N
        left, right = x1 + column * width // N, x1 + ((column + 1) * width + N - 1) // N
        source = maps + channel
        row_step, column_step = map_width * channels, channels
    else:
        tl.debug_barrier()
        top, bottom = row * (PARENT // N), (row + 1) * (PARENT // N)
        left, right = column * (PARENT // N), (column + 1) * (PARENT // N)
        source = vector + PARENT_BASE * channels + channel * (PARENT * PARENT)
        row_step, column_step = PARENT, 1
    best = tl.full((channel.shape[0], SIZE), float("-inf"), tl.float32)
    # A bin that reaches less far than others has its last row and column read again.
    for down in range(tl.max(bottom - top)):
        y = tl.minimum(top + down, bottom - 1)
        for across in range(tl.max(right - left)):
            x = tl.minimum(left + across, right - 1)
            values = tl.load(source + y * row_step + x * column_step, mask=real, other=float("-inf"))
            best = tl.maximum(best, values.to(tl.float32))
    place = BASE * channels + channel * (N * N) + bins
    tl.store(vector + place, best, mask=real & (bins < N * N))
