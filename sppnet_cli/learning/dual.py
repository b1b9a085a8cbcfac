"""liblinear's dual coordinate descent for the L1-loss linear SVM, on packed rows.

Algorithm 3 of Hsieh et al., "A Dual Coordinate Descent Method for Large-scale Linear SVM" (ICML 2008), with its
shrinking: the solver behind R-CNN's and SPP-net's detectors (`-s 3`) and `LinearSVC(loss="hinge")`.  Beyond those,
it starts from the multipliers of an earlier solution and reads a store of rows that several classes share.
Equal rows give equal bytes, wherever in memory they lie.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from sppnet_cli.console import warn
from sppnet_cli.learning.packed import add, dot, positions
from sppnet_cli.learning.rows import RowStore

_NOTEWORTHY_GAP = 0.1  # liblinear's own default tolerance for this loss


@numba.njit(nogil=True, cache=True, error_model="numpy")
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
    """Train one class on rows of a shared store; returns weights `(D,)` and the offset to add to scores.

    Args:
        store: Where the rows are.
        slots: `(n,)` rows of this class's examples.
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
    w = np.zeros(store.dimension + 1, dtype=np.float32)
    rows = (store.words, store.start[slots], store.stop[slots], store.mask)
    gap = _descend(*rows, store.norms[slots], sign, upper, bias, alpha, w, tolerance, passes, seed)
    if gap > _NOTEWORTHY_GAP:
        warn(f"an SVM of {len(slots)} examples was solved to {gap:.2g} only, in {passes} passes")
    return w[:-1], float(w[-1]) * bias


@numba.njit(nogil=True, cache=True, error_model="numpy")
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
