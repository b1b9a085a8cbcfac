"""What lets a fast detector skip part of its fc layers: a linear guess at a window's class, and fc weights of low rank."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from sppnet_cli.console import track
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import Axes, principal_axes
from sppnet_cli.protocols import SvmRules

_SAMPLES = 6000
_IMAGES = 200
_OBJECT, _PART = 0.5, 0.1  # lowest IoU of windows that show an object, and a part of one
_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)  # times the mean squared norm of a sample
_HELD_OUT = 5  # one of this many images is held out to choose the penalty


class Shortcuts(NamedTuple):
    """What a detector needs to skip part of its fc layers."""

    cascade: (
        Svms | None
    )  # guesses from a pooled vector which classes a window shows; None if the method has no use for it
    axes: dict[str, Axes]  # principal axes of fc6's outputs, and of fc7's for a detector on fc7


def train_shortcuts(source: WindowSource, layer: Layer, rules: SvmRules, *, seed: int) -> Shortcuts:
    """Shortcuts for a detector on `layer`, fc6 or fc7.

    They are learnt from at most 6,000 windows of at most 200 random images.  A third of an image's windows overlap an
    object by IoU .5 or more, a third by .1 to .5, and the rest are drawn from all its windows.
    """
    rng = np.random.default_rng(seed)
    images = np.sort(rng.permutation(len(source))[:_IMAGES])
    count = _SAMPLES // len(images)
    samples = [
        _samples(source, index, count, rng) for index in track(images.tolist(), "features for the cascade")
    ]
    vectors = np.concatenate([each.vectors for each in samples])
    axes = _axes(layer, torch.from_numpy(vectors).to(source.extractor.device))
    if not source.extractor.cascade:
        return Shortcuts(None, axes)
    shown = np.concatenate([each.shown for each in samples])
    image = np.repeat(np.arange(len(samples)), [len(each.shown) for each in samples])
    return Shortcuts(train_cascade(vectors, shown, image, rules), axes)


def train_cascade(
    vectors: NDArray[np.float32], shown: NDArray[np.bool_], image: NDArray[np.intp], rules: SvmRules
) -> Svms:
    """Ridge regression from pooled vectors `(N, D)` to the classes `(N, K)` that their windows show.

    `vectors` is overwritten.  `image` `(N,)` is the number of each vector's image; the penalty is the one with the
    least error on images held out.
    """
    norm = float(np.linalg.norm(vectors, axis=1).mean())
    scale = rules.feature_norm / norm if norm > 0 else 1.0
    vectors *= np.float32(scale)
    targets = shown.astype(np.float64)
    centre, mean = vectors.mean(axis=0), targets.mean(axis=0)
    vectors -= centre
    weights = np.ascontiguousarray(_ridge(vectors, targets - mean, image % _HELD_OUT == _HELD_OUT - 1).T)
    return Svms(weights, (mean - weights @ centre).astype(np.float32), scale)


@torch.inference_mode()
def _axes(layer: Layer, vectors: Tensor) -> dict[str, Axes]:
    head = layer.head
    assert head is not None
    outputs = head.fc6(vectors * head.input_scale)
    axes = {"fc6": principal_axes(outputs.cpu())}
    if layer.name == "fc7":
        axes["fc7"] = principal_axes(head.fc7(outputs.relu()).cpu())
    return axes


class _Samples(NamedTuple):
    """Windows of an image to learn from."""

    vectors: NDArray[np.float32]  # (n, D)
    shown: NDArray[np.bool_]  # (n, K): whether a window overlaps an object of a class by half


def _samples(source: WindowSource, index: int, count: int, rng: np.random.Generator) -> _Samples:
    windows = source.windows(index)
    best = windows.iou.max(axis=1, initial=0)
    drawn = rng.permutation(len(best))
    objects = drawn[best[drawn] >= _OBJECT][: count // 3]
    parts = drawn[(best[drawn] >= _PART) & (best[drawn] < _OBJECT)][: count // 3]
    rows = np.concatenate([objects, parts, drawn])
    rows = rows[np.sort(np.unique(rows, return_index=True)[1])][:count]  # each once
    shown = np.zeros((len(rows), len(source.dataset.class_names)), bool)
    window, box = np.nonzero(windows.iou[rows] >= _OBJECT)
    shown[window, windows.truth.labels[box]] = True
    return _Samples(source.pooled(index, rows).float().cpu().numpy(), shown)


def _ridge(
    vectors: NDArray[np.float32], targets: NDArray[np.float64], held_out: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Weights `(D, K)` learnt with the penalty that has the least error on the samples held out."""
    unit = float(np.square(np.linalg.norm(vectors))) / max(len(vectors), 1) or 1.0
    penalties = unit * np.array(_PENALTIES)
    errors = [
        float(np.square(vectors[held_out] @ weights - targets[held_out]).sum())
        for weights in _solutions(vectors[~held_out], targets[~held_out], penalties)
    ]
    return next(_solutions(vectors, targets, penalties[[np.argmin(errors)]]))


def _solutions(
    vectors: NDArray[np.float32], targets: NDArray[np.float64], penalties: NDArray[np.float64]
) -> Iterator[NDArray[np.float32]]:
    """Weights for each penalty, by the smaller of the two systems: of the features or of the samples."""
    samples, features = vectors.shape
    rows = vectors.T if features < samples else vectors
    gram = (rows @ rows.T).astype(np.float64)
    right = rows @ targets.astype(np.float32) if features < samples else targets
    for penalty in penalties:
        system = gram.copy()
        system[np.diag_indices(len(system))] += penalty
        found = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), right).astype(np.float32)
        yield found if features < samples else vectors.T @ found
