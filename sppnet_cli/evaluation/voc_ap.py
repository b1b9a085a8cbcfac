"""Average precision as the VOC 2007 devkit computes it, with 11 recall levels: `VOCevaldet` and `VOCevalcls`.

Every AP of the package comes from here: those on the screen and in the tables, those above the drawn curves, and
those of resampled test images behind an interval.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.data.boxes import iou as box_iou
from sppnet_cli.data.voc import Annotation

RECALL_LEVELS = np.array([0, 0.1, 0.2, 3 * 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
"""MATLAB's `0:0.1:1`, bit for bit.  The fourth level is .30000000000000004, so a recall of exactly 3/10 does not reach
it.  The others are the doubles nearest to k/10: MATLAB builds the second half of a range from its end."""

_CHUNK = 4_000_000  # copies of ranked entries in memory at once


@dataclass(frozen=True)
class Matches:
    """The detections of one class over all images, by descending score, each matched to the ground truth."""

    scores: NDArray[np.float64]  # (K,)
    image: NDArray[np.int64]  # (K,) index of the image
    row: NDArray[np.int64]  # (K,) index among the detections of its image
    marks: NDArray[np.int8]  # (K,) 1 right, 0 wrong, -1 matched to a difficult box, which counts for nothing
    n_positive: int  # ground-truth boxes that are not difficult


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve of one class: entry k counts the detections 0..k by descending score.

    A detection matched to a difficult box keeps its place and counts for nothing.
    """

    precision: NDArray[np.float64]  # (K,) NaN until a detection has counted
    recall: NDArray[np.float64]  # (K,) NaN without positives
    scores: NDArray[np.float64]  # (K,) descending
    n_positive: int  # ground-truth boxes that are not difficult


def match_detections(
    detections: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    difficult: Sequence[np.ndarray],
    iou: float = 0.5,
) -> Matches:
    """Match the detections of one class to its ground truth, as VOC 2007's `VOCevaldet`.

    A detection belongs to the box of its image that it overlaps most (the first of equals).  It is right where
    that overlap is at least `iou` and no detection of higher score belongs to the same box.  Equal scores keep
    the order of the images, then of the rows.  A detection whose box has no area matches nothing.

    Args:
        detections: per image (N_i, 5) x1, y1, x2, y2, score; 0-based inclusive pixels.
        boxes: per image (M_i, 4), ground truth of the class.
        difficult: per image (M_i,) bool.
        iou: least intersection over union of a match, a fraction.

    Raises:
        ValueError: the sequences, or the boxes and flags of an image, differ in length.
    """
    box_parts = [np.empty(0, np.int64)]  # index of the matched box among those of all images, -1 for none
    score_parts = [np.empty(0)]
    n_boxes = 0
    for detected, truth, flags in zip(detections, boxes, difficult, strict=True):
        if len(truth) != len(flags):
            raise ValueError(f"{len(truth)} boxes, but {len(flags)} flags of difficulty")
        box = np.full(len(detected), -1, np.int64)
        if len(detected) and len(truth):
            with np.errstate(invalid="ignore"):  # 0 / 0 for a box without area: no match
                overlap = box_iou(detected[:, :4], truth)  # (N_i, M_i)
            box = np.where(overlap.max(axis=1) >= iou, overlap.argmax(axis=1) + n_boxes, -1)
        box_parts.append(box)
        score_parts.append(np.asarray(detected, np.float64).reshape(-1, 5)[:, 4])
        n_boxes += len(truth)
    scores = np.concatenate(score_parts)
    order = np.argsort(-scores, kind="stable")
    box = np.concatenate(box_parts)[order]
    is_difficult = np.concatenate([np.empty(0, bool), *(np.asarray(flags, bool) for flags in difficult)])

    marks = np.zeros(len(box), np.int8)
    matched_boxes, first = np.unique(box, return_index=True)
    marks[first[matched_boxes >= 0]] = 1  # the detection of highest score of each box
    matched = np.flatnonzero(box >= 0)
    marks[matched[is_difficult[box[matched]]]] = -1
    counts = [len(detected) for detected in detections]
    image = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    return Matches(scores[order], image[order], row[order], marks, int((~is_difficult).sum()))


def match_class(detections: Sequence[np.ndarray], annotations: Sequence[Annotation], label: int) -> Matches:
    """`match_detections` for class `label`: detections per image, against the objects of each image."""
    of_class = [item.labels == label for item in annotations]
    return match_detections(
        detections,
        [item.boxes[keep] for item, keep in zip(annotations, of_class, strict=True)],
        [item.difficult[keep] for item, keep in zip(annotations, of_class, strict=True)],
    )


def precision_recall(matches: Matches) -> PrecisionRecall:
    """Precision and recall of one class's detections."""
    precision, recall = _count(matches.marks > 0, (matches.marks >= 0).astype(np.int64), matches.n_positive)
    return PrecisionRecall(precision, recall, matches.scores, matches.n_positive)


def interpolated_precision(
    precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The best precision at each of `RECALL_LEVELS` or beyond, 0 where the recall is not reached.

    precision and recall: (..., K), curves along the last axis; NaN reaches no level.  Returns (..., 11).
    """
    precision = np.nan_to_num(precision)
    levels = [np.where(recall >= level, precision, 0.0).max(axis=-1, initial=0.0) for level in RECALL_LEVELS]
    return np.stack(levels, axis=-1)


def average_precision_11(curve: PrecisionRecall) -> float:
    """Mean of the best precisions at `RECALL_LEVELS` or beyond: the AP of `VOCevaldet`, a fraction.

    NaN without positives; 0 for positives of which none was detected.
    """
    return float(_mean_of_levels(curve.precision, curve.recall, np.asarray(curve.n_positive)))


def resampled_average_precision(
    marks: NDArray[np.integer],
    image: NDArray[np.integer],
    positives: NDArray[np.integer],
    weights: NDArray[np.integer],
) -> NDArray[np.float64]:
    """The AP of one class on B resampled test sets: `average_precision_11` with each image repeated.

    Args:
        marks: (K,) as of `Matches`, by descending score.
        image: (K,) the image of each entry.
        positives: (n,) objects of each image that are not difficult.
        weights: (B, n) how often each image is in each test set; all ones for the test set itself.

    Returns:
        (B,), NaN without positives.
    """
    image, right = image[marks >= 0], marks[marks >= 0] > 0
    rows = max(1, _CHUNK // max(1, len(image)))
    aps = [np.empty(0)]
    for start in range(0, len(weights), rows):
        part = weights[start : start + rows]
        n_positive = part @ positives
        # The best precisions lie behind a right entry and all its copies: the curve is needed there alone.
        precision, recall = _count(right, part.take(image, axis=1), n_positive, right)
        aps.append(_mean_of_levels(precision, recall, n_positive))
    return np.concatenate(aps)


def image_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The 11-point AP of ranking images for one class, as VOC 2007's `VOCevalcls`; NaN without positives.

    Equal scores keep the order of the images.

    Args:
        scores: (n,), higher for images that more likely hold the class.
        labels: (n,), 1 where the class is in the image, -1 where it is not, 0 where only difficult objects are:
            such an image is left out.

    Raises:
        ValueError: scores and labels differ in length.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores, but {len(labels)} labels")
    return float(resampled_image_ap(scores, labels, np.ones((1, len(labels)), np.int64))[0])


def resampled_image_ap(
    scores: np.ndarray, labels: np.ndarray, weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(B,) `image_average_precision` with each image repeated `weights` (B, n) times."""
    order = np.argsort(-scores, kind="stable")
    marks = np.where(labels == 0, -1, labels > 0)[order]
    return resampled_average_precision(marks, order, (labels > 0).astype(np.int64), weights)


def average_precisions(
    detections: Mapping[str, Sequence[np.ndarray]],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
) -> dict[str, float]:
    """The 11-point AP of every class, a fraction, NaN for a class without positives.

    Args:
        detections: for every class, per image (N_i, 5) x1, y1, x2, y2, score; images as in `annotations`.
        annotations: the objects of each image.
        class_names: label k of an annotation is class `class_names[k]`.

    Raises:
        KeyError: a class has no entry in `detections`.
        ValueError: a class has another number of images than `annotations`.
    """
    return {
        name: average_precision_11(precision_recall(match_class(detections[name], annotations, label)))
        for label, name in enumerate(class_names)
    }


def mean_ap(aps: Iterable[float]) -> float:
    """Mean of the APs over the classes that have positives (are not NaN); NaN where none has."""
    known = [ap for ap in aps if not np.isnan(ap)]
    return float(np.mean(known)) if known else float("nan")


def _count(
    right: NDArray[np.bool_],
    copies: NDArray[np.integer],
    n_positive: NDArray[np.integer] | int,
    at: NDArray[np.bool_] | slice = slice(None),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall `(..., K')` after the entries `at` of a ranking `right` `(K,)`.

    copies: (..., K) how often each entry is there, 0 for one that counts for nothing.
    """
    before = np.zeros((*copies.shape[:-1], 1), np.int64)
    n_right = np.concatenate([before, copies[..., right]], axis=-1).cumsum(axis=-1)[..., np.cumsum(right)[at]]
    n_counted = np.cumsum(copies, axis=-1)[..., at]
    with np.errstate(divide="ignore", invalid="ignore"):
        return n_right / n_counted, n_right / np.asarray(n_positive)[..., None]


def _mean_of_levels(
    precision: NDArray[np.float64], recall: NDArray[np.float64], n_positive: NDArray[np.integer]
) -> NDArray[np.float64]:
    """`(...)` AP of curves `(..., K)`, NaN without positives."""
    ap = np.zeros(n_positive.shape)
    for level in np.moveaxis(interpolated_precision(precision, recall), -1, 0):
        ap += level / 11  # summed as `VOCevaldet` does, which decides the last bit
    return np.where(n_positive > 0, np.minimum(ap, 1.0), np.nan)  # eleven times 1/11 is 1.0000000000000002
