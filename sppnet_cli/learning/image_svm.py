"""One-vs-rest linear SVMs on l2-normalised features of whole images (paper sections 3.2 and 3.3).

The SVMs are trained on inner products of the features.  A class then costs the same whatever the length of the
features, and all splits of a data set share one matrix of products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from sppnet_cli.atomic import write_json
from sppnet_cli.data.layouts import Dataset
from sppnet_cli.data.splits import Split
from sppnet_cli.errors import DataError
from sppnet_cli.network.weights import read_state_dict, save_tensors
from sppnet_cli.protocols import ImageLoss
from sppnet_cli.records import read_json_as

ABOUT_FILE = "classifier.json"
IMAGE_SVM_FILE = "classifier.safetensors"
_BLOCK = 64 * 2**20  # float32 numbers in a block of features
_LIBSVM_CACHE = 1000  # megabytes, at most, for the kernel's rows
_TOLERANCE = 1e-5  # of libsvm; its default, 1e-3, is hardly quicker


@dataclass(frozen=True)
class FeatureKind:
    """The features that an SVM was trained on; it takes no others."""

    layer: str
    view: str
    size: int  # pixels
    network: str  # fingerprint


@dataclass(frozen=True)
class _Rows:
    """A split in `classifier.json`."""

    train: tuple[int, ...]
    test: tuple[int, ...]

    def __post_init__(self) -> None:
        if min((*self.train, *self.test), default=0) < 0 or not self.train or not self.test:
            raise ValueError("a split has no rows, or negative ones")


@dataclass(frozen=True)
class _About:
    """`classifier.json`: all of `ImageSvms` but the numbers."""

    dataset: Dataset
    features: FeatureKind
    network: str
    images: str
    class_names: tuple[str, ...]
    c: float
    loss: ImageLoss
    splits: tuple[_Rows, ...]


@dataclass(frozen=True, eq=False)
class ImageSvms:
    """The SVMs of S splits: `scores = x @ weights[s].T + bias[s]` for l2-normalised features x.

    S is 1 for VOC, which has its own lists, and the number of random splits for Caltech101.
    """

    dataset: Dataset
    features: FeatureKind
    network: Path  # run directory of the network that made the features
    images: str  # fingerprint of the training images
    class_names: tuple[str, ...]
    c: float
    loss: ImageLoss
    splits: tuple[Split, ...]  # of Caltech101's images; none for VOC
    weights: NDArray[np.float32]  # (S, K, D)
    bias: NDArray[np.float32]  # (S, K)

    def save(self, folder: Path) -> None:
        """Write `classifier.json` and `classifier.safetensors` into an existing folder."""
        about = _About(
            self.dataset,
            self.features,
            str(self.network.absolute()),
            self.images,
            self.class_names,
            self.c,
            self.loss,
            tuple(_Rows(tuple(s.train.tolist()), tuple(s.test.tolist())) for s in self.splits),
        )
        tensors = {"weights": torch.from_numpy(self.weights), "bias": torch.from_numpy(self.bias)}
        save_tensors(tensors, folder / IMAGE_SVM_FILE)
        write_json(folder / ABOUT_FILE, asdict(about))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.  Raises `DataError` if a file is missing or broken."""
        remedy = "this is not a classifier: make one with `sppnet train-svm --task classification`"
        about = read_json_as(_About, folder / ABOUT_FILE, remedy=remedy)
        state = read_state_dict(folder / IMAGE_SVM_FILE)
        weights, bias = (state.get(name, torch.empty(0)).float().numpy() for name in ("weights", "bias"))
        shape = (len(about.splits) or 1, len(about.class_names))
        if weights.ndim != 3 or weights.shape[:2] != shape or bias.shape != shape:
            raise DataError(
                f"{folder / IMAGE_SVM_FILE}: weights of shape {weights.shape}, but {ABOUT_FILE} says "
                f"{shape[0]} splits and {shape[1]} classes; train it again"
            )
        return cls(
            dataset=about.dataset,
            features=about.features,
            network=Path(about.network),
            images=about.images,
            class_names=about.class_names,
            c=about.c,
            loss=about.loss,
            splits=tuple(
                Split(np.array(s.train, np.int64), np.array(s.test, np.int64)) for s in about.splits
            ),
            weights=weights,
            bias=bias,
        )


class Gram(NamedTuple):
    """Inner products `(N, N)` float32 of l2-normalised features, and the norms `(N,)` that divided the features."""

    products: NDArray[np.float32]
    norms: NDArray[np.float32]


class Duals(NamedTuple):
    """SVMs as sums over the training features: `scores = products @ coefficients.T + bias`."""

    coefficients: NDArray[
        np.float32
    ]  # (K, N), label times multiplier: 0 unless the image is a support vector
    bias: NDArray[np.float32]  # (K,)


def gram(features: NDArray[np.float32]) -> Gram:
    """Inner products of features `(N, D)`, which may be memory-mapped; a row of zeros is left as it is.

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


def train_image_svms(
    products: NDArray[np.float32],
    labels: NDArray[np.int8],
    class_names: Sequence[str],
    *,
    c: float,
    loss: ImageLoss,
) -> Duals:
    """Train one SVM per class on inner products `(N, N)`.

    Args:
        products: Of the l2-normalised training features.
        labels: `(N, K)`, 1 for a class's positives, -1 for its negatives, 0 for images that are neither.
        class_names: For the error message.
        c: Weight of the loss beside half the squared norm of the weights.
        loss: `hinge` is LIBSVM's, with a bias that is not regularised.  `squared-hinge` is liblinear's default,
            with the bias as the weight of a constant feature 1.

    Raises `DataError` naming a class without positives or without negatives.
    """
    for label, name in ((1, "positive"), (-1, "negative")):
        missing = np.flatnonzero(~(labels == label).any(axis=0))
        if len(missing):
            raise DataError(
                f"no {name} training image of {class_names[missing[0]]}; take more images (--limit)"
            )
    return (_train_hinge if loss == "hinge" else _train_squared_hinge)(products, labels, c)


def _train_hinge(products: NDArray[np.float32], labels: NDArray[np.int8], c: float) -> Duals:
    from sklearn.svm import SVC  # takes a second

    kernel = products.astype(np.float64)
    coefficients = np.zeros(labels.shape[::-1], np.float32)
    bias = np.zeros(labels.shape[1], np.float32)
    for k, sign in enumerate(labels.T):
        rows = np.flatnonzero(sign)
        of_class = kernel if len(rows) == len(kernel) else kernel[np.ix_(rows, rows)]
        svm = SVC(C=c, kernel="precomputed", tol=_TOLERANCE, cache_size=_LIBSVM_CACHE)
        svm.fit(of_class, sign[rows])
        coefficients[k, rows[svm.support_]] = svm.dual_coef_[0]
        bias[k] = svm.intercept_[0]
    return Duals(coefficients, bias)


def _train_squared_hinge(products: NDArray[np.float32], labels: NDArray[np.int8], c: float) -> Duals:
    kernel = products + np.float64(1)  # with the constant feature
    kernel[np.diag_indices_from(kernel)] += 1 / (2 * c)
    # All classes start from ridge regression, which takes one factorisation.
    starts = scipy.linalg.cho_solve(scipy.linalg.cho_factor(kernel), labels.astype(np.float64))
    coefficients = np.stack(
        [_newton(kernel, c, sign, start) for sign, start in zip(labels.T, starts.T, strict=True)]
    )
    return Duals(coefficients.astype(np.float32), coefficients.sum(axis=1).astype(np.float32))


def _newton(
    kernel: NDArray[np.float64], c: float, sign: NDArray[np.int8], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Newton's method on the squared hinge loss (Chapelle, "Training a Support Vector Machine in the Primal", 2007).

    The solution is ridge regression on the support vectors, which are the examples inside its margin; each step solves
    for the one and then updates the other, until the support vectors no longer change.  `kernel` (N, N) has 1 / (2c)
    added to its diagonal.  Returns coefficients (N,).
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
    """Slices of `length`, each so short that a block of that `width` holds at most `_BLOCK` numbers."""
    step = max(1, _BLOCK // width)
    return (slice(start, start + step) for start in range(0, length, step))
