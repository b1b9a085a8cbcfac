"""liblinear's dual coordinate descent for the L1-loss linear SVM, on rows kept in 16 bits.

Algorithm 3 of Hsieh et al., "A Dual Coordinate Descent Method for Large-scale Linear SVM" (ICML 2008), with its
shrinking: the solver behind R-CNN's and SPP-net's detectors (`-s 3`) and `LinearSVC(loss="hinge")`.  Beyond those,
it starts from the multipliers of an earlier solution and reads a store of rows that several classes share.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from sppnet_cli.console import warn

_NOTEWORTHY_GAP = 0.1  # liblinear's own default tolerance for this loss


@intrinsic
def _half(typingctx: Any, bits: Any) -> Any:
    """float32 from the uint16 bits of an IEEE half; numba has no float16 on the CPU."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _dot(row, w):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(row.shape[0]):
        total += _half(row[d]) * w[d]
    return total


@numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _add(row, step, w):  # type: ignore[no-untyped-def]
    for d in range(row.shape[0]):
        w[d] += step * _half(row[d])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _descend(bits, slots, norms, sign, upper, bias, alpha, w, tolerance, passes, seed):  # type: ignore[no-untyped-def]
    """Descend in place on `alpha` (n,) and `w` (D + 1,), whose last entry multiplies the constant `bias`."""
    n, dimension = slots.shape[0], bits.shape[1]
    weights = w[:dimension]
    weights[:] = 0
    offset = 0.0
    for i in range(n):
        if alpha[i] != 0:
            _add(bits[slots[i]], np.float32(sign[i] * alpha[i]), weights)
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
            gradient = sign[i] * (_dot(bits[slots[i]], weights) + offset * bias) - 1
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
                _add(bits[slots[i]], np.float32(step), weights)
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
    rows: NDArray[np.float16],
    slots: NDArray[np.int64],
    norms: NDArray[np.float32],
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
    """Train one class on rows of a shared store; returns weights `(D,)` and the offset to add to scores.

    Args:
        rows: `(R, D)` float16, the store.
        slots: `(n,)` rows of this class's examples.
        norms: `(n,)` squared L2 norms of those rows.
        positive: `(n,)` labels.
        alpha: `(n,)` multipliers to start from, in `[0, c * weight]`; updated in place.
        c, positive_weight, bias: liblinear's `-c`, `-w1` and `-B` (the constant feature, regularised).
        tolerance: Stop when the projected gradients span less, as liblinear's `-e`; a span left above 0.1 after
            all passes is warned of.
        seed: Of the order of the coordinates.
        passes: At most so many sweeps.
    """
    sign = np.where(positive, 1.0, -1.0)
    upper = np.where(positive, c * positive_weight, c)
    w = np.zeros(rows.shape[1] + 1, dtype=np.float32)
    bits = rows.view(np.uint16)
    gap = _descend(bits, slots, norms, sign, upper, bias, alpha, w, tolerance, passes, seed)
    if gap > _NOTEWORTHY_GAP:
        warn(f"an SVM of {len(slots)} examples was solved to {gap:.2g} only, in {passes} passes")
    return w[:-1], float(w[-1]) * bias


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _scores(bits, slots, w, out):  # type: ignore[no-untyped-def]
    for i in range(slots.shape[0]):
        out[i] = _dot(bits[slots[i]], w)


def score_rows(
    rows: NDArray[np.float16], slots: NDArray[np.int64], weights: NDArray[np.float32], offset: float
) -> NDArray[np.float32]:
    """Scores `(n,)` of some rows of the store."""
    out = np.empty(len(slots), dtype=np.float32)
    _scores(rows.view(np.uint16), slots, weights, out)
    return out + np.float32(offset)
