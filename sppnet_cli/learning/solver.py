"""liblinear's dual coordinate descent for the hinge loss, on the packed rows of a shared store.

Algorithm 3 of Hsieh et al., "A Dual Coordinate Descent Method for Large-scale Linear SVM" (ICML 2008), with its
shrinking: the solver behind R-CNN's and SPP-net's detectors (`-s 3`) and `LinearSVC(loss="hinge")`.  Two things are
added: it can start from the multipliers of an earlier solution, and it reads packed rows (see `rows.py`).  Inner
products are summed in sixteen fixed lanes without `fastmath`, so the result does not depend on where a row lies in
memory.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from sppnet_cli.console import warn
from sppnet_cli.kernels.jit import kernel
from sppnet_cli.learning.rows import RowStore

_NOTEWORTHY_GAP = 0.1  # liblinear's own default tolerance for this loss
_LANES = 16

# For every byte of a mask: the places of its set bits, lowest first, and their number.
_BITS = np.zeros((256, 8), dtype=np.uint32)
_COUNT = np.zeros(256, dtype=np.int64)
for _byte in range(256):
    _set = [bit for bit in range(8) if _byte >> bit & 1]
    _BITS[_byte, : len(_set)], _COUNT[_byte] = _set, len(_set)


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


@kernel
def positions(mask, out):  # type: ignore[no-untyped-def]
    """Write the places of a row's non-zeros, given by its mask (words,), to the front of `out` (D + 8,) uint32."""
    n = 0
    octets = mask.view(np.uint8)
    for k in range(octets.shape[0]):
        _eight_positions(_BITS, octets[k], 8 * k, out, n)
        n += _COUNT[octets[k]]


@kernel
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


@kernel
def add(halves, places, step, w):  # type: ignore[no-untyped-def]
    """Add `step` (float32) times that row to `w` in place."""
    for i in range(halves.shape[0]):
        w[places[i]] += step * _half(halves[i])


@kernel
def _descend(words, start, stop, mask, norms, sign, upper, bias, alpha, w, tolerance, passes, seed):  # type: ignore[no-untyped-def]
    """Descend in place on `alpha` (n,) and `w` (D + 1,), whose last entry multiplies the constant `bias`."""
    n, dimension = start.shape[0], w.shape[0] - 1
    weights = w[:dimension]
    weights[:] = 0
    offset = 0.0
    places = np.empty(dimension + 8, np.uint32)
    for i in range(n):
        if alpha[i] != 0:
            first = start[i] + mask
            positions(words[start[i] : first], places)
            add(words[first : stop[i]], places, np.float32(sign[i] * alpha[i]), weights)
            offset += sign[i] * alpha[i] * bias
    order = np.arange(n)
    active = n
    old_high, old_low = np.inf, -np.inf
    state = np.uint64(seed * 2 + 1)
    gap = np.inf
    for _ in range(passes):
        high, low = -np.inf, np.inf
        for k in range(active):
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            other = k + np.int64((state >> np.uint64(33)) % np.uint64(active - k))
            order[k], order[other] = order[other], order[k]
        k = 0
        while k < active:
            i = order[k]
            first = start[i] + mask
            halves = words[first : stop[i]]
            positions(words[start[i] : first], places)
            gradient = sign[i] * (dot(halves, places, weights) + offset * bias) - 1
            projected = 0.0
            shrink = False
            if alpha[i] == 0:
                shrink = gradient > old_high
                projected = min(gradient, 0.0)
            elif alpha[i] == upper[i]:
                shrink = gradient < old_low
                projected = max(gradient, 0.0)
            else:
                projected = gradient
            if shrink:
                active -= 1
                order[k], order[active] = order[active], order[k]
                continue
            high, low = max(high, projected), min(low, projected)
            if abs(projected) > 1e-12:
                before = alpha[i]
                alpha[i] = min(max(before - gradient / (norms[i] + bias * bias), 0.0), upper[i])
                step = sign[i] * (alpha[i] - before)
                add(halves, places, np.float32(step), weights)
                offset += step * bias
            k += 1
        gap = high - low
        if gap <= tolerance:
            if active == n:
                break
            active = n
            old_high, old_low = np.inf, -np.inf
            continue
        old_high = high if high > 0 else np.inf
        old_low = low if low < 0 else -np.inf
    w[dimension] = offset
    return gap


def solve(
    store: RowStore,
    slots: NDArray[np.int64],
    positive: NDArray[np.bool_],
    alpha: NDArray[np.float64],
    *,
    c: float,
    positive_weight: float,
    bias: float,
    tolerance: float,
    seed: int,
    passes: int = 1000,
) -> tuple[NDArray[np.float32], float]:
    """Train one class; returns the weights `(D,)` and the offset that is added to scores.

    Args:
        store: The store that holds the rows.
        slots: `(n,)` slots of the class's examples.
        positive: `(n,)` labels.
        alpha: `(n,)` multipliers to start from, in `[0, c * weight]`; updated in place.
        c, positive_weight, bias: liblinear's `-c`, `-w1` and `-B` (a constant feature, whose weight is regularised).
        tolerance: Stop when the span of the projected gradients is smaller (liblinear's `-e`).  A warning is printed
            if it is still above 0.1 after all passes.
        seed: Seed of the order of the coordinates.
        passes: The largest number of sweeps.
    """
    sign = np.where(positive, 1.0, -1.0)
    upper = np.where(positive, c * positive_weight, c)
    w = np.zeros(store.dimension + 1, dtype=np.float32)
    rows = (store.words, store.start[slots], store.stop[slots], store.mask)
    gap = _descend(*rows, store.norms[slots], sign, upper, bias, alpha, w, tolerance, passes, seed)
    if gap > _NOTEWORTHY_GAP:
        warn(f"an SVM of {len(slots)} examples was solved only to {gap:.2g} in {passes} passes")
    return w[:-1], float(w[-1]) * bias


@kernel
def _scores(words, start, stop, mask, w, out):  # type: ignore[no-untyped-def]
    places = np.empty(w.shape[0] + 8, np.uint32)
    for i in range(start.shape[0]):
        first = start[i] + mask
        positions(words[start[i] : first], places)
        out[i] = dot(words[first : stop[i]], places, w)


def score_rows(
    store: RowStore, slots: NDArray[np.int64], weights: NDArray[np.float32], offset: float
) -> NDArray[np.float32]:
    """Scores `(n,)` of some rows of the store."""
    out = np.empty(len(slots), dtype=np.float32)
    _scores(store.words, store.start[slots], store.stop[slots], store.mask, weights, out)
    return out + np.float32(offset)
