"""What each test image contributed to a measured number, and how sure the difference of two numbers is."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.voc import Annotation
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.voc_ap import best_precision_11, image_average_precision, match_class, mean_ap

_CHUNK = 4_000_000  # weights in memory at once


@dataclass(frozen=True)
class ErrorOutcome:
    """Classification of images into one class each."""

    wrong: NDArray[np.bool_]  # (n,)

    def __post_init__(self) -> None:
        _require("wrong", self.wrong, ndim=1, values=(False, True))

    @property
    def images(self) -> int:
        """How many images were tested."""
        return len(self.wrong)

    def value(self) -> float:
        """The fraction of images that are wrong."""
        return float(self.wrong.mean())

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The value of the images with image i there `weights[b, i]` times; weights (B, n), result (B,)."""
        return (weights @ self.wrong) / weights.sum(axis=1)


@dataclass(frozen=True)
class MapOutcome:
    """Classification of images into K classes, of which an image may hold several."""

    scores: NDArray[np.float32]  # (n, K), the higher the surer
    labels: NDArray[np.int8]  # (n, K): 1 there, -1 not there, 0 ignored

    def __post_init__(self) -> None:
        _require("labels", self.labels, ndim=2, values=(-1, 0, 1))
        if self.scores.shape != self.labels.shape:
            raise ValueError(f"scores of shape {self.scores.shape}, but labels of shape {self.labels.shape}")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores must be finite")

    @property
    def images(self) -> int:
        """How many images were tested."""
        return len(self.labels)

    def value(self) -> float:
        """Mean over the classes that have a positive of VOC's 11-point AP of ranking the images."""
        classes = zip(self.scores.T, self.labels.T, strict=True)
        return mean_ap(image_average_precision(scores, labels) for scores, labels in classes)

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The value of the images with image i there `weights[b, i]` times; weights (B, n), result (B,)."""
        classes = zip(self.scores.T, self.labels.T, strict=True)
        return _mean_known(np.array([_resampled_ap(weights, *of_class) for of_class in classes]))


@dataclass(frozen=True)
class AccuracyOutcome:
    """Classification of images into one class each, in several splits into training and test."""

    right: NDArray[np.int8]  # (S, n): 1 right, 0 wrong, -1 not tested in that split
    labels: NDArray[np.integer]  # (n,) the images' classes

    def __post_init__(self) -> None:
        _require("right", self.right, ndim=2, values=(-1, 0, 1))
        if self.labels.shape != self.right.shape[1:] or not np.issubdtype(self.labels.dtype, np.integer):
            raise ValueError(f"labels must be {self.right.shape[1]} whole numbers, one of each image")

    @property
    def images(self) -> int:
        """How many images there are, tested in every split or not."""
        return len(self.labels)

    def value(self) -> float:
        """Mean over splits of the mean over classes of the fraction of the class's images that are right.

        A class counts in the splits that test it.
        """
        return float(self.resampled(np.ones((1, self.images), np.int64))[0])

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The value of the images with image i there `weights[b, i]` times; weights (B, n), result (B,)."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.unique(self.labels[order], return_index=True)[1]
        by_class = weights[:, order]
        splits = []
        for right in self.right[:, order]:
            n_right = np.add.reduceat(by_class * (right == 1), starts, axis=1)  # (B, classes)
            n_tested = np.add.reduceat(by_class * (right >= 0), starts, axis=1)
            splits.append(_mean_known(_ratio(n_right, n_tested).T))
        return _mean_known(np.array(splits))


@dataclass(frozen=True)
class DetectionOutcome:
    """Detection of K classes: what each of the D detections is, by descending score within its class."""

    image: NDArray[np.int32]  # (D,)
    label: NDArray[np.int16]  # (D,) class
    right: NDArray[np.int8]  # (D,) 1 right, 0 wrong, -1 ignored (a difficult object)
    positives: NDArray[np.int32]  # (n, K) objects of each image that are not difficult

    def __post_init__(self) -> None:
        if self.positives.ndim != 2 or self.positives.size == 0 or (self.positives < 0).any():
            raise ValueError("positives must be counts by image and class")
        if not (self.image.shape == self.label.shape == self.right.shape == (len(self.image),)):
            raise ValueError("image, label and right must be of one length")
        limits = ((self.image, self.images), (self.label, self.positives.shape[1]))
        if any(len(of) and (of.min() < 0 or of.max() >= end) for of, end in limits):
            raise ValueError("a detection of an unknown image or class")
        if not np.isin(self.right, (-1, 0, 1)).all():
            raise ValueError("right must hold -1, 0 and 1 only")

    @property
    def images(self) -> int:
        """How many images were tested."""
        return len(self.positives)

    def value(self) -> float:
        """Mean over the classes that have a positive of VOC's 11-point AP."""
        return float(self.resampled(np.ones((1, self.images), np.int64))[0])

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The value of the images with image i there `weights[b, i]` times; weights (B, n), result (B,)."""
        return _mean_known(self.resampled_aps(weights))

    def resampled_aps(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The AP of each class, NaN without positives: (K, B)."""
        aps = np.empty((self.positives.shape[1], len(weights)))
        for label in range(len(aps)):
            own = (self.label == label) & (self.right >= 0)
            image, right = self.image[own], self.right[own] > 0
            n_positive = weights @ self.positives[:, label]
            rows = max(1, _CHUNK // max(1, len(image)))
            for start in range(0, len(weights), rows):
                part = slice(start, start + rows)
                aps[label, part] = _curve_ap(weights[part][:, image], right, n_positive[part])
        return aps


def detection_outcome(
    detections: Sequence[Sequence[NDArray[np.floating]]], annotations: Sequence[Annotation]
) -> DetectionOutcome:
    """The outcome of detections `[class][image]` `(N, 5)`, as `average_precisions` takes them, on those images."""
    matches = [match_class(of_class, annotations, label) for label, of_class in enumerate(detections)]
    label = np.repeat(np.arange(len(matches)), [len(found.image) for found in matches])
    right = np.concatenate([np.where(found.ignored, -1, found.right) for found in matches])
    positives = np.array(
        [np.bincount(item.labels[~item.difficult], minlength=len(matches)) for item in annotations]
    )
    return DetectionOutcome(
        np.concatenate([found.image for found in matches]).astype(np.int32),
        label.astype(np.int16),
        right.astype(np.int8),
        positives.astype(np.int32),
    )


@dataclass(frozen=True)
class SecondsOutcome:
    """Time taken for each of several images."""

    seconds: NDArray[np.float64]  # (n,)

    def __post_init__(self) -> None:
        if self.seconds.ndim != 1 or self.seconds.size == 0 or not (self.seconds >= 0).all():
            raise ValueError("seconds must be times of images")

    @property
    def images(self) -> int:
        """How many images were timed."""
        return len(self.seconds)

    def value(self) -> float:
        """Mean seconds an image."""
        return float(self.seconds.mean())

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The value of the images with image i there `weights[b, i]` times; weights (B, n), result (B,)."""
        return (weights @ self.seconds) / weights.sum(axis=1)


Outcome = ErrorOutcome | MapOutcome | AccuracyOutcome | DetectionOutcome | SecondsOutcome

_KINDS: dict[frozenset[str], type[Outcome]] = {
    frozenset(field.name for field in fields(kind)): kind
    for kind in (ErrorOutcome, MapOutcome, AccuracyOutcome, DetectionOutcome, SecondsOutcome)
}


class Resampled(Protocol):
    """A number that depends on the test images: an outcome, or one made of several."""

    @property
    def images(self) -> int:
        """How many images were tested."""

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The number with image i there `weights[b, i]` times; weights (B, n), result (B,)."""


@dataclass(frozen=True)
class Best:
    """The highest value of several outcomes of one test set."""

    outcomes: tuple[Outcome, ...]

    @property
    def images(self) -> int:
        """How many images were tested."""
        return self.outcomes[0].images

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Outcome.resampled`."""
        return np.max([outcome.resampled(weights) for outcome in self.outcomes], axis=0)


@dataclass(frozen=True)
class Wins:
    """The number of classes in which one detector's AP is above those of all others."""

    winner: tuple[DetectionOutcome, ...]  # the best of these in each class
    others: tuple[DetectionOutcome, ...]

    @property
    def images(self) -> int:
        """How many images were tested."""
        return self.winner[0].images

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Outcome.resampled`."""
        sides = (self.winner, self.others)
        first, second = (np.max([o.resampled_aps(weights) for o in side], axis=0) for side in sides)
        return np.asarray((first > second).sum(axis=0), np.float64)


@dataclass(frozen=True)
class Times:
    """An outcome, so many times."""

    factor: float
    outcome: "Outcome | Best"

    @property
    def images(self) -> int:
        """How many images were tested."""
        return self.outcome.images

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Outcome.resampled`."""
        return self.factor * self.outcome.resampled(weights)


def save_outcome(outcome: Outcome, path: Path) -> None:
    """Write an outcome as a compressed `.npz` of its arrays, atomically."""
    arrays = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_outcome(path: Path) -> Outcome:
    """What `save_outcome` wrote; `DataError` naming the file where it is missing or holds something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        return _KINDS[frozenset(arrays)](**arrays)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; measure its table again") from None
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{path}: not the outcome of a test; measure its table again") from None


def paired_interval(
    better: Sequence[Resampled],
    worse: Sequence[Resampled],
    *,
    higher_is_better: bool,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of how much better `better` is than `worse`, by a paired bootstrap.

    The difference is mean over seeds of `better` - mean over seeds of `worse`, or the reverse where lower is
    better.  Every sample draws test images with replacement, the same for both sides and all seeds, as the test
    set is one; of an `AccuracyOutcome` within each class, so that no class is empty.  Where there are several
    seeds it draws seeds with replacement too.

    Args:
        better: one outcome per seed; all of one test set, images in the same order.
        worse: likewise, entry k of the same seed as entry k of `better`.
        higher_is_better: False for errors.
        samples: how often to draw.
        seed: of the drawing.

    Returns:
        The lower and the upper end, fractions; NaN where a sample has no value (an mAP without positives).

    Raises:
        ValueError: no outcome, or outcomes that differ in number, kind, images or the images' classes.
    """
    outcomes = [*better, *worse]
    if not better or len(better) != len(worse):
        raise ValueError(f"{len(better)} and {len(worse)} outcomes: one of each seed is needed on both sides")
    kinds = {type(outcome) for outcome in outcomes} - {Best, Wins, Times}
    if len(kinds) > 1:
        raise ValueError("outcomes of different kinds cannot be compared")
    if len({outcome.images for outcome in outcomes}) > 1:
        raise ValueError(f"outcomes of {sorted({outcome.images for outcome in outcomes})} images")
    strata = _strata(outcomes[0])
    if not all(np.array_equal(_strata(outcome), strata) for outcome in outcomes):
        raise ValueError("outcomes of images of different classes")

    rng = np.random.default_rng(seed)
    sign = 1 if higher_is_better else -1
    n_seeds, rows = len(better), max(1, _CHUNK // len(strata))
    differences = []
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        weights = _draw(rng, strata, count)
        values = np.array([outcome.resampled(weights) for outcome in outcomes])  # (2 * seeds, count)
        difference = sign * (values[:n_seeds] - values[n_seeds:])
        drawn = rng.integers(n_seeds, size=(n_seeds, count))
        differences.append(np.take_along_axis(difference, drawn, axis=0).mean(axis=0))
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5])
    return float(low), float(high)


def _strata(outcome: Resampled) -> NDArray[np.integer]:
    """(n,) which images are drawn among each other."""
    return outcome.labels if isinstance(outcome, AccuracyOutcome) else np.zeros(outcome.images, np.int64)


def _draw(rng: np.random.Generator, strata: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count, n): how often each image is drawn when each stratum is drawn as often as it has images."""
    n = len(strata)
    drawn = []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn.append(members[rng.integers(len(members), size=(count, len(members)))])
    cells = np.hstack(drawn) + n * np.arange(count)[:, None]
    return np.bincount(cells.ravel(), minlength=count * n).reshape(count, n)


def _resampled_ap(
    weights: NDArray[np.integer], scores: NDArray[np.float32], labels: NDArray[np.int8]
) -> NDArray[np.float64]:
    """(B,) `image_average_precision` of one class, with image i there `weights[b, i]` times."""
    order = np.argsort(-scores, kind="stable")
    order = order[labels[order] != 0]
    positive = labels[order] > 0
    return _curve_ap(weights[:, order], positive, weights[:, order[positive]].sum(axis=1))


def _curve_ap(
    weights: NDArray[np.integer], right: NDArray[np.bool_], n_positive: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(B,) AP of a ranking whose entries are there `weights[b, k]` times; NaN without positives."""
    # The best precisions lie behind a right entry and all its copies: only there is the curve needed.
    n_right = np.cumsum(weights[:, right], axis=1)  # (B, right)
    n_counted = np.cumsum(weights, axis=1)[:, right]
    recall = np.nan_to_num(_ratio(n_right, n_positive[:, None]))
    ap = best_precision_11(np.nan_to_num(_ratio(n_right, n_counted)), recall)
    return np.where(n_positive > 0, ap, np.nan)


def _ratio(part: NDArray[np.integer], whole: NDArray[np.integer]) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0 (and so is part)."""
    with np.errstate(invalid="ignore"):
        return part / whole


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _require(name: str, array: NDArray[np.generic], ndim: int, values: tuple[int, ...]) -> None:
    if array.ndim != ndim or array.size == 0 or not np.isin(array, values).all():
        raise ValueError(f"{name} must be a filled array of {ndim} dimensions that holds only {values}")
