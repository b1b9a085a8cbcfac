"""Benchmark of the linear SVMs of detectors and of image classifiers, against scikit-learn's liblinear."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.evaluation.limits import machine
from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.learning.image_svm import gram, linear_weights, train_image_svms
from sppnet_cli.learning.rows import RowStore
from sppnet_cli.learning.solver import solve
from sppnet_cli.protocols import PAPER

_DENSITY = 0.2  # share of the features that is not zero after ReLU
_SPREAD = 0.08  # deviation of the kinds' centres, over that of the features around a centre
_CLASSES = 20


@dataclass(frozen=True)
class SvmSpeed:
    """Settings."""

    windows: int = 4000  # examples of a detector's class, a twentieth of them positive
    images: int = 1000  # of the image classifier
    dimension: int = 4096  # of the features: fc7's
    repeats: int = 3
    seed: int = 0


def benchmark_svm(config: SvmSpeed) -> Benchmark:
    """Time the training of one class of a detector and of all classes of an image classifier, on made-up features.

    Both sides solve the same problem on the same numbers; scikit-learn gets them in float64, which it needs.  The largest
    difference of their scores of the training examples is reported.  On the CPU.
    """
    rng = np.random.default_rng(config.seed)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        columns = {"detector": _detector(config, rng), "transfer": _transfer(config, rng)}
    record = columns | {
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "dimension": config.dimension,
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": machine(),
    }
    table = pd.DataFrame([{"svm": name, **column} for name, column in columns.items()])
    note = (
        f"detector: a class, hinge loss, {config.windows} windows, a twentieth of them positive; transfer: "
        f"{_CLASSES} classes, squared hinge loss, {config.images} images; {config.dimension} numbers a feature.  "
        "sklearn_seconds is the quicker of LinearSVC on a dense and on a sparse matrix; it runs in one thread, as we do "
        "on a detector's class.  score_difference: the largest between the two sides' scores."
    )
    return Benchmark("svm", record, table, note)


def _detector(config: SvmSpeed, rng: np.random.Generator) -> dict[str, float]:
    positive = np.arange(config.windows) < config.windows // 20
    features = _features(rng, positive.astype(np.int64), config.dimension)
    features *= PAPER.feature_norm / np.linalg.norm(features, axis=1).mean()
    features = features.astype(np.float16).astype(np.float32)  # what the store keeps
    store = RowStore(config.dimension, max_gib=features.nbytes / 2**30)
    slots = store.add(features)

    def ours() -> tuple[NDArray[np.float32], float]:
        return solve(
            store,
            slots,
            positive,
            np.zeros(len(slots)),
            c=PAPER.svm_c,
            positive_weight=PAPER.svm_positive_weight,
            bias=PAPER.svm_bias,
            tolerance=PAPER.svm_tolerance,
            seed=config.seed,
        )

    model = LinearSVC(
        C=PAPER.svm_c,
        loss="hinge",
        dual=True,
        intercept_scaling=PAPER.svm_bias,
        class_weight={True: PAPER.svm_positive_weight, False: 1},
        tol=PAPER.svm_tolerance,
        random_state=config.seed,
    )
    seconds = _against(model, features, positive, ours, config)
    weights, offset = ours()
    theirs = clone(model).fit(features, positive).decision_function(features)
    return seconds | {"score_difference": float(np.abs(features @ weights + offset - theirs).max())}


def _transfer(config: SvmSpeed, rng: np.random.Generator) -> dict[str, float]:
    kinds = np.arange(config.images) % _CLASSES
    features = _features(rng, kinds, config.dimension)
    labels = np.where(kinds[:, None] == np.arange(_CLASSES), 1, -1).astype(np.int8)
    names = [str(k) for k in range(_CLASSES)]

    def ours() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        products, norms = gram(features)
        duals = train_image_svms(products, labels, names, c=1.0, loss="squared-hinge")
        return linear_weights(duals.coefficients, features, norms), duals.bias

    normalised = features / np.linalg.norm(features, axis=1, keepdims=True)
    model = LinearSVC(C=1.0, dual=True, random_state=config.seed)
    seconds = _against(model, normalised, kinds, ours, config)
    weights, bias = ours()
    theirs = clone(model).fit(normalised, kinds).decision_function(normalised)
    return seconds | {"score_difference": float(np.abs(normalised @ weights.T + bias - theirs).max())}


def _features(rng: np.random.Generator, kinds: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """Features `(N, dimension)` as after a ReLU, around a centre for each kind; a fifth of them is not zero."""
    centres = rng.normal(0, _SPREAD, (kinds.max() + 1, dimension))
    features = rng.normal(size=(len(kinds), dimension)) + centres[kinds]
    return np.maximum(features - np.quantile(features, 1 - _DENSITY), 0).astype(np.float32)


def _against(
    model: LinearSVC,
    features: NDArray[np.float32],
    labels: NDArray[Any],
    ours: Callable[[], object],
    config: SvmSpeed,
) -> dict[str, float]:
    """Seconds of both sides; scikit-learn's on dense or sparse features, whichever is quicker."""
    dense = features.astype(np.float64)
    sparse = csr_matrix(dense)
    sides = {
        "ours": ours,
        "dense": lambda: clone(model).fit(dense, labels),
        "sparse": lambda: clone(model).fit(sparse, labels),
    }
    seconds = take_turns(sides, config.repeats)
    theirs = min(seconds["dense"], seconds["sparse"])
    return {
        "seconds": seconds["ours"],
        "sklearn_seconds": theirs,
        "sklearn_dense_seconds": seconds["dense"],
        "sklearn_sparse_seconds": seconds["sparse"],
        "speedup_vs_sklearn": theirs / seconds["ours"],
    }
