"""A row of numbers in 16 bits without its zeros, and what a linear SVM does with it.

A packed row is a mask, a bit per number that tells whether it is other than zero, and then the halves of those that
are: D / 8 bytes and 2 a non-zero, which is less than 2 a number up to 93% of them.  Sums are taken in sixteen fixed
lanes and without `fastmath`, so that they depend on the numbers alone and not on where those lie in memory.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

# numba's cache of the kernels in dual.py does not notice a change in this file: touch that one too.
_LANES = 16
_WORD = 16  # bits of the mask per uint16

# Of every byte of a mask: where its bits are set, lowest first, and how many are.
_BITS = np.zeros((256, 8), dtype=np.uint32)
_COUNT = np.zeros(256, dtype=np.int64)
for _byte in range(256):
    _set = [bit for bit in range(8) if _byte >> bit & 1]
    _BITS[_byte, : len(_set)], _COUNT[_byte] = _set, len(_set)


def mask_words(dimension: int) -> int:
    """How many uint16 the mask of a row `(D,)` takes."""
    return -(-dimension // _WORD)


def pack(row: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The packed form of a row `(D,)`: `mask_words(D)` words of mask, then the bits of its non-zero halves."""
    halves = row.astype(np.float16).view(np.uint16)
    present = (halves & 0x7FFF) != 0  # minus zero is zero
    mask = np.zeros(2 * mask_words(len(row)), dtype=np.uint8)
    bits = np.packbits(present, bitorder="little")
    mask[: len(bits)] = bits
    return np.concatenate([mask.view(np.uint16), halves[present]])


@intrinsic
def _half(typingctx: Any, bits: Any) -> Any:
    """float32 from the uint16 bits of an IEEE half; numba has no float16 on the CPU."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def _eight_positions(typingctx: Any, table: Any, byte: Any, offset: Any, out: Any, start: Any) -> Any:
    """`out[start : start + 8] = table[byte] + offset` as one vector, which LLVM does not find by itself."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        table, byte, offset, out, start = args
        lane, wide = ir.IntType(32), ir.IntType(64)
        vector = ir.VectorType(lane, 8)
        source = context.make_array(signature.args[0])(context, builder, table).data
        target = context.make_array(signature.args[3])(context, builder, out).data
        row = builder.gep(source, [builder.mul(builder.zext(byte, wide), ir.Constant(wide, 8))])
        bits = builder.load(builder.bitcast(row, vector.as_pointer()), align=4)
        first = builder.insert_element(
            ir.Constant(vector, ir.Undefined), builder.trunc(offset, lane), ir.Constant(lane, 0)
        )
        offsets = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(lane, 8), [0] * 8))
        place = builder.bitcast(builder.gep(target, [start]), vector.as_pointer())
        builder.store(builder.add(bits, offsets), place, align=4)
        return context.get_dummy_value()

    return types.void(table, types.uint8, types.int64, out, types.int64), codegen


@numba.njit(nogil=True, cache=True, error_model="numpy")
def positions(mask, out):  # type: ignore[no-untyped-def]
    """Put the places of a row's non-zeros, by its mask (words,), first in `out` (D + 8,) uint32."""
    n = 0
    octets = mask.view(np.uint8)
    for k in range(octets.shape[0]):
        _eight_positions(_BITS, octets[k], 8 * k, out, n)
        n += _COUNT[octets[k]]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def dot(halves, places, w):  # type: ignore[no-untyped-def]
    """Inner product of a row, its non-zero `halves` (n,) at `places` (n or more,), with `w` (D,) float32."""
    n = halves.shape[0]
    whole = n - n % _LANES
    lanes = np.zeros(_LANES, np.float32)
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += _half(halves[i + lane]) * w[places[i + lane]]
    for lane in range(n - whole):
        lanes[lane] += _half(halves[whole + lane]) * w[places[whole + lane]]
    total = np.float32(0)
    for lane in range(_LANES):
        total += lanes[lane]
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add(halves, places, step, w):  # type: ignore[no-untyped-def]
    """Add `step` (float32) times that row to `w` in place."""
    for i in range(halves.shape[0]):
        w[places[i]] += step * _half(halves[i])
