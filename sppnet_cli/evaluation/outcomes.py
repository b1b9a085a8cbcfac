"""What each test image contributed to a measured number, kept so that intervals can be drawn later."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.voc import Annotation
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.voc_ap import match_class, resampled_average_precision, resampled_image_ap
from sppnet_cli.records import read_arrays

_AGAIN = "measure its table again"


class Outcome(ABC):
    """The outcome of a test, image by image.  Its arrays are the fields of a dataclass, which `save_outcome` writes."""

    @property
    @abstractmethod
    def images(self) -> int:
        """How many images were tested."""

    @property
    def strata(self) -> NDArray[np.integer]:
        """(n,) images of the same number are resampled among each other."""
        return np.zeros(self.images, np.int64)

    @abstractmethod
    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The measured number, with image i in the test set `weights[b, i]` times: weights (B, n), result (B,)."""

    def value(self) -> float:
        """The measured number: a fraction, or seconds an image."""
        return float(self.resampled(np.ones((1, self.images), np.int64))[0])


@dataclass(frozen=True)
class ErrorOutcome(Outcome):
    """Images classified right or wrong; the number is the fraction that is wrong."""

    wrong: NDArray[np.bool_]  # (n,)

    def __post_init__(self) -> None:
        _require("wrong", self.wrong, ndim=1, values=(False, True))

    @property
    def images(self) -> int:
        return len(self.wrong)

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        return (weights @ self.wrong) / weights.sum(axis=1)


@dataclass(frozen=True)
class MapOutcome(Outcome):
    """Images scored for K classes, of which an image may hold several.

    The number is VOC's 11-point AP of ranking the images, its mean over the classes that have a positive.
    """

    scores: NDArray[np.float32]  # (n, K), higher for images that more likely hold the class
    labels: NDArray[np.int8]  # (n, K): 1 in the image, -1 not in it, 0 ignored

    def __post_init__(self) -> None:
        _require("labels", self.labels, ndim=2, values=(-1, 0, 1))
        if self.scores.shape != self.labels.shape:
            raise ValueError(f"scores of shape {self.scores.shape}, but labels of shape {self.labels.shape}")
        if not np.isfinite(self.scores).all():
            raise ValueError("scores must be finite")

    @property
    def images(self) -> int:
        return len(self.labels)

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        classes = zip(self.scores.T, self.labels.T, strict=True)
        return _mean_known(np.array([resampled_image_ap(*of_class, weights) for of_class in classes]))


@dataclass(frozen=True)
class AccuracyOutcome(Outcome):
    """Images classified into one class each, in several splits into training and test.

    The number is the fraction of a class's images that is right, its mean over the classes that a split tests,
    and the mean of that over the splits.
    """

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

    @property
    def strata(self) -> NDArray[np.integer]:
        """The classes: each keeps its number of images, so that none is empty."""
        return self.labels

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        order = np.argsort(self.labels, kind="stable")
        starts = np.unique(self.labels[order], return_index=True)[1]
        by_class = weights[:, order]
        splits = []
        for right in self.right[:, order]:
            n_right = np.add.reduceat(by_class * (right == 1), starts, axis=1)  # (B, classes)
            n_tested = np.add.reduceat(by_class * (right >= 0), starts, axis=1)
            with np.errstate(invalid="ignore"):  # 0 / 0 for a class that is not tested
                splits.append(_mean_known((n_right / n_tested).T))
        return _mean_known(np.array(splits))


@dataclass(frozen=True)
class DetectionOutcome(Outcome):
    """D detections of K classes, by descending score within their class; the number is VOC's 11-point mAP."""

    image: NDArray[np.int32]  # (D,)
    label: NDArray[np.int16]  # (D,) class
    right: NDArray[np.int8]  # (D,) 1 right, 0 wrong, -1 ignored: matched to a difficult object
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
        return len(self.positives)

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        return _mean_known(self.resampled_aps(weights))

    def resampled_aps(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """The AP of each class, NaN without positives: weights (B, n), result (K, B)."""
        return np.array(
            [
                resampled_average_precision(
                    self.right[self.label == k], self.image[self.label == k], positives, weights
                )
                for k, positives in enumerate(self.positives.T)
            ]
        )


@dataclass(frozen=True)
class SecondsOutcome(Outcome):
    """Time taken for each of several images; the number is their mean."""

    seconds: NDArray[np.float64]  # (n,)

    def __post_init__(self) -> None:
        if self.seconds.ndim != 1 or self.seconds.size == 0 or not (self.seconds >= 0).all():
            raise ValueError("seconds must be times of images")

    @property
    def images(self) -> int:
        return len(self.seconds)

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        return (weights @ self.seconds) / weights.sum(axis=1)


def detection_outcome(
    detections: Sequence[Sequence[NDArray[np.floating]]], annotations: Sequence[Annotation]
) -> DetectionOutcome:
    """The outcome of detections `[class][image]` `(N, 5)`, as `average_precisions` takes them, on those images."""
    matches = [match_class(of_class, annotations, label) for label, of_class in enumerate(detections)]
    label = np.repeat(np.arange(len(matches)), [len(found.image) for found in matches])
    positives = np.array(
        [np.bincount(item.labels[~item.difficult], minlength=len(matches)) for item in annotations]
    )
    return DetectionOutcome(
        np.concatenate([found.image for found in matches]).astype(np.int32),
        label.astype(np.int16),
        np.concatenate([found.marks for found in matches]),
        positives.astype(np.int32),
    )


_KINDS: dict[frozenset[str], type[Outcome]] = {
    frozenset(field.name for field in fields(kind)): kind
    for kind in (ErrorOutcome, MapOutcome, AccuracyOutcome, DetectionOutcome, SecondsOutcome)
}


def save_outcome(outcome: Outcome, path: Path) -> None:
    """Write an outcome as a compressed `.npz` of its arrays, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **vars(outcome))


def load_outcome(path: Path) -> Outcome:
    """What `save_outcome` wrote.  Raises `DataError` naming the file where it is missing or holds something else."""
    arrays = read_arrays(path, _AGAIN)
    try:
        if any(array.dtype.kind not in "biuf" for array in arrays.values()):
            raise ValueError
        return _KINDS[frozenset(arrays)](**arrays)
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path}: not the outcome of a test; {_AGAIN}") from None


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


def _require(name: str, array: NDArray[np.generic], ndim: int, values: tuple[int, ...]) -> None:
    if array.ndim != ndim or array.size == 0 or not np.isin(array, values).all():
        raise ValueError(f"{name} must be a filled array of {ndim} dimensions that holds only {values}")
