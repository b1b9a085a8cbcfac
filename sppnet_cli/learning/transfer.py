"""One-vs-rest linear SVMs on l2-normalised features of whole images (paper sections 3.2 and 3.3).

They are liblinear's default, `LinearSVC(C=1)`: squared hinge loss, the bias a constant feature 1.  The paper cites
LIBSVM, whose hinge loss is about a point lower on Caltech101, where a class has 30 positives, and much the same on
VOC 2007.  They are trained on the features' inner products, so that a class costs the same whatever the length
of the features, and several splits share them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sppnet_cli.errors import DataError

_BLOCK = 64 * 2**20  # float32 numbers of a block of features


class Gram(NamedTuple):
    """Inner products `(N, N)` float32 of l2-normalised features, and the norms `(N,)` that they were divided by."""

    products: NDArray[np.float32]
    norms: NDArray[np.float32]


class Duals(NamedTuple):
    """SVMs as sums over the training features: `scores = products @ coefficients.T + bias`."""

    coefficients: NDArray[
        np.float32
    ]  # (K, N); label times multiplier, 0 but for support vectors; bias: their sum
    bias: NDArray[np.float32]  # (K,)


def gram(features: NDArray[np.float32]) -> Gram:
    """Inner products of features `(N, D)`, memory-mapped or not; a row of zeros stays one.

    Raises `DataError` for features that are not finite.
    """
    n = len(features)
    products = np.zeros((n, n), dtype=np.float32)
    for columns in _blocks(features.shape[1], n):
        block = np.ascontiguousarray(features[:, columns])
        products += block @ block.T
    squares = products.diagonal().copy()
    if not np.isfinite(squares).all():
        raise DataError("the features hold NaN or infinity: the network that made them has diverged")
    norms = np.where(squares > 0, np.sqrt(squares), 1)
    products /= norms
    products /= norms[:, None]
    return Gram(products, norms)


def train_svms(
    products: NDArray[np.float32], labels: NDArray[np.int8], class_names: Sequence[str], c: float
) -> Duals:
    """Train an SVM per class on inner products `(N, N)`.

    labels: (N, K), 1 for a class's positives, -1 for its negatives, 0 for images that are neither.  Raises
    `DataError` naming a class without positives or without negatives.
    """
    for label, name in ((1, "positive"), (-1, "negative")):
        missing = np.flatnonzero(~(labels == label).any(axis=0))
        if len(missing):
            raise DataError(
                f"no {name} training image of {class_names[missing[0]]}; take more images (--limit)"
            )
    kernel = products + np.float64(1)  # with the constant feature
    kernel[np.diag_indices_from(kernel)] += 1 / (2 * c)
    # All classes start from ridge regression, which takes one factorisation.
    starts = scipy.linalg.cho_solve(scipy.linalg.cho_factor(kernel), labels.astype(np.float64))
    coefficients = np.stack(
        [_train_one(kernel, c, labels[:, k], starts[:, k]) for k in range(len(class_names))]
    )
    return Duals(coefficients.astype(np.float32), coefficients.sum(axis=1).astype(np.float32))


def _train_one(
    kernel: NDArray[np.float64], c: float, sign: NDArray[np.int8], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Newton's method on the squared hinge loss (Chapelle, "Training a Support Vector Machine in the Primal", 2007).

    The solution is that of ridge regression on the support vectors, the examples inside the margin: the two are
    found in turns, exactly.  `kernel` (N, N) has 1 / (2c) on top of its diagonal.  Returns coefficients (N,).
    """
    examples = np.flatnonzero(sign)
    support = np.flatnonzero(start * sign > 0)
    coefficients, scores, loss = np.zeros(len(sign)), np.zeros(len(sign)), np.inf
    while True:
        rows = kernel[support]
        target = np.zeros(len(sign))
        factor = scipy.linalg.cho_factor(rows[:, support].T, overwrite_a=True, check_finite=False)
        target[support] = scipy.linalg.cho_solve(factor, sign[support].astype(np.float64))
        target_scores = target[support] @ rows - target / (2 * c)
        for step in 0.5 ** np.arange(20):  # nearly always the first
            moved = coefficients + step * (target - coefficients)
            moved_scores = scores + step * (target_scores - scores)
            hinge = np.maximum(1 - sign * moved_scores, 0)[examples]
            moved_loss = moved @ moved_scores / 2 + c * hinge @ hinge
            if moved_loss < loss * (1 - 1e-12):
                break
        else:
            return coefficients
        coefficients, scores, loss = moved, moved_scores, moved_loss
        inside = examples[hinge > 0]
        if step == 1 and np.array_equal(inside, support):
            return coefficients
        support = inside


def linear_weights(
    coefficients: NDArray[np.float32], features: NDArray[np.float32], norms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weights `(K, D)` on l2-normalised features, from coefficients `(K, N)` of the features `(N, D)`."""
    scaled = coefficients / norms
    weights = np.empty((len(coefficients), features.shape[1]), dtype=np.float32)
    for columns in _blocks(features.shape[1], len(features)):
        weights[:, columns] = scaled @ features[:, columns]
    return weights


def scores(
    features: NDArray[np.float32], weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores `(N, K)` of features `(N, D)`, which are l2-normalised first; weights (K, D), bias (K,)."""
    result = np.empty((len(features), len(weights)), dtype=np.float32)
    for rows in _blocks(len(features), features.shape[1]):
        block = np.asarray(features[rows])
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        result[rows] = block @ weights.T / np.where(norms > 0, norms, 1) + bias
    return result


def _blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of `length` so short that a block of that `width` keeps within `_BLOCK` numbers."""
    step = max(1, _BLOCK // width)
    return (slice(start, start + step) for start in range(0, length, step))
