"""ReLU, within-channel LRN and 3x3 max pooling of stride 2 in one pass over channels-last maps on the CPU."""

from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from numba.core import types
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.nn import functional as F

from sppnet_cli.kernels.jit import kernel
from sppnet_cli.kernels.lrn import in_bands, narrow, widen, within_channel_lrn

SIDE, STRIDE = 3, 2  # of the pool
_TILE = 6144  # numbers of a row that are computed at a time, so that their nine rows stay in the caches
_BITS = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16}

# s^-0.75 from the bits of s, which are nearly its logarithm: times -0.75 they give a result that is 4.5% off; the
# polynomial corrects it to 1.3e-4.
_START = np.uint32(0x6F0D8000)
_FIRST, _SECOND = np.float32(-0.24499718), np.float32(0.21253154)
_ZERO, _ONE, _QUARTER = np.float32(0), np.float32(1), np.float32(0.25)


def relu_lrn_pool(maps: Tensor, alpha: float, pad: int, ceil: bool) -> Tensor:
    """The definition, in torch's operators, of maps `(B, C, h, w)`."""
    normalised = within_channel_lrn(maps.relu(), alpha)
    return F.max_pool2d(normalised, SIDE, STRIDE, pad, ceil_mode=ceil)


def pool_rows(maps: Tensor, out: Tensor, start: int, rows: tuple[int, int], pad: int, alpha: float) -> None:
    """ReLU, LRN and pooling of a band of convolved maps, into a band of the result.

    Args:
        maps: `(B, h, W, C)` float32 or bfloat16, contiguous: some rows of the maps.
        out: `(B, oh, ow, C)` of the same dtype, contiguous: some rows of the result of `relu_lrn_pool`.
        start: row of the band at which the first of these rows' pooling windows begins; negative above the band.
        rows: of the whole maps, the first and the one after the last, counted from the band's first row.  The band must
            hold all rows of the maps that the windows touch, and one more above and below.
        pad: of the pool, columns to the left of the maps.
        alpha: of the LRN.
    """
    channels = maps.shape[3]
    pool = partial(_pool, start, *rows, pad)
    numbers = maps if maps.dtype == torch.float32 else maps.view(torch.uint16)
    bits = out.view(_BITS[out.dtype])
    in_bands(pool, (bits.flatten(2).numpy(), numbers.flatten(2).numpy()), channels, alpha)


# No fastmath, as in `lrn.py`; `fma` leaves a product unrounded however the loop is compiled.
@kernel
def _pool(start, top, bottom, pad, out, maps, channels, alpha, image, first, last):  # type: ignore[no-untyped-def]
    x, pooled = maps[image], out[image]
    width, cells = x.shape[1] // channels, pooled.shape[1] // channels
    step = max(1, (_TILE // channels - 1) // STRIDE)  # cells to a tile
    span = (STRIDE * step + 1) * channels
    squares = np.empty(span + 2 * channels, np.float32)
    sums = np.empty((3, span), np.float32)  # of three squares side by side, by row modulo 3
    lines = np.empty((3, span), np.uint32)  # normalised, by row modulo 3: bits of float32
    tallest = np.empty(span, np.uint32)
    factor = np.float32(alpha / 9)
    for cell in range(0, cells, step):
        end = min(cell + step, cells)
        left, right = max(STRIDE * cell - pad, 0), min(STRIDE * (end - 1) - pad + SIDE, width)
        length = (right - left) * channels
        before, after = max(left - 1, 0), min(right + 1, width)
        squares[:] = 0
        inside = squares[(before - left + 1) * channels : (after - left + 1) * channels]
        one, two, three = squares[:length], squares[channels:], squares[2 * channels :]
        normalised = max(STRIDE * first + start, top)
        summed = normalised - 1
        for row in range(first, last):
            begin, stop = max(STRIDE * row + start, top), min(STRIDE * row + start + SIDE, bottom)
            for y in range(normalised, stop):
                for around in range(summed, y + 2):
                    total = sums[around % 3]
                    if top <= around < bottom:
                        source = x[around, before * channels : after * channels]
                        for i in range(len(inside)):
                            number = _relu(_number(source[i]))
                            inside[i] = number * number
                        for i in range(length):
                            total[i] = one[i] + two[i] + three[i]
                    else:
                        total[:] = 0
                summed = y + 2
                above, middle, below = sums[(y - 1) % 3], sums[y % 3], sums[(y + 1) % 3]
                source, line = x[y, left * channels : right * channels], lines[y % 3]
                for i in range(length):
                    power = _power(fma(factor, middle[i] + (above[i] + below[i]), _ONE))
                    number = fma(_relu(_number(source[i])), power, _ZERO)  # never -0, by the sum
                    line[i] = np.float32(number).view(np.uint32)
            normalised = stop
            # The bits of numbers from +0 on are in the numbers' order, with NaN above them all.  Where the map's edge cuts a
            # window, one of its rows or columns is taken twice.
            high, low = lines[begin % 3], lines[(stop - 1) % 3]
            centre = lines[min(begin + 1, stop - 1) % 3]
            for i in range(length):
                tallest[i] = max(max(high[i], low[i]), centre[i])
            for x0 in range(cell, end):
                near, far = max(STRIDE * x0 - pad, left), min(STRIDE * x0 - pad + SIDE, right) - 1
                a = tallest[(near - left) * channels :]
                b = tallest[(min(near + 1, far) - left) * channels :]
                c = tallest[(far - left) * channels :]
                target = pooled[row, x0 * channels : (x0 + 1) * channels]
                for i in range(channels):
                    target[i] = _rounded(max(max(a[i], b[i]), c[i]), target[i])


@numba.njit(inline="always")
def _relu(number):  # type: ignore[no-untyped-def]
    return _ZERO if number < _ZERO else number  # noqa: FURB136 - one instruction, and NaN stays


@numba.njit(inline="always")
def _power(s):  # type: ignore[no-untyped-def]
    """`s^-0.75` for `s` >= 1, to a relative error of 2e-7, by two Newton-like steps without a root or a quotient."""
    bits = np.float32(s).view(np.uint32)
    y = np.uint32(_START - (bits - (bits >> np.uint32(2)))).view(np.float32)
    error = _error(s, y)
    y = fma(y * error, fma(error, _SECOND, _FIRST), y)
    return fma(y * _error(s, y), -_QUARTER, y)


@numba.njit(inline="always")
def _error(s, y):  # type: ignore[no-untyped-def]
    root = s * y  # nearly s^0.25
    return fma(root * root, root * y, -_ONE)


@intrinsic
def fma(_typing, a, b, c):  # type: ignore[no-untyped-def]
    """`a * b + c` in float32, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(*(types.float32,) * 3), generate


def _number(stored: Any) -> Any:
    """The float32 number from what is stored: a float32, or the bits of a bfloat16."""
    raise NotImplementedError("for Numba")


def _rounded(bits: Any, like: Any) -> Any:
    """The bits of a float32, or of the bfloat16 nearest to it where `like` has 16 bits."""
    raise NotImplementedError("for Numba")


@overload(_number, inline="always")
def _number_of_kind(stored):  # type: ignore[no-untyped-def]
    return (lambda stored: stored) if isinstance(stored, types.Float) else (lambda stored: widen(stored))


@overload(_rounded, inline="always")
def _rounded_to_kind(bits, like):  # type: ignore[no-untyped-def]
    if like == types.uint32:
        return lambda bits, like: bits
    return lambda bits, like: narrow(np.uint32(bits).view(np.float32))
