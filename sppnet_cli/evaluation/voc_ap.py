"""Average precision as the VOC 2007 devkit computes it, with 11 recall levels: `VOCevaldet` and `VOCevalcls`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sppnet_cli.data.boxes import iou as box_iou
from sppnet_cli.data.voc import Annotation


@dataclass(frozen=True)
class Matches:
    """The detections of one class over all images in descending order of score, and what each of them is.

    right and ignored exclude each other; a detection that is neither is a false positive.
    """

    scores: np.ndarray  # (K,) float64
    image: np.ndarray  # (K,) int64, index of the image
    row: np.ndarray  # (K,) int64, among the detections of its image
    right: np.ndarray  # (K,) bool
    ignored: np.ndarray  # (K,) bool: matched to a difficult box
    n_positive: int  # ground-truth boxes that are not difficult


@dataclass(frozen=True)
class PrecisionRecall:
    """One class over all images; entry k counts the detections 0..k in descending order of score.

    A detection matched to a difficult box is neither right nor wrong: it keeps its place and counts for
    nothing.
    """

    precision: np.ndarray  # (K,) float64; NaN as long as no detection has counted
    recall: np.ndarray  # (K,) float64; NaN without positives
    scores: np.ndarray  # (K,) float64, descending
    n_positive: int  # ground-truth boxes that are not difficult


def match_detections(
    detections: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    difficult: Sequence[np.ndarray],
    iou: float = 0.5,
) -> Matches:
    """Match the detections of one class to its ground truth, as VOC 2007's `VOCevaldet`.

    A detection belongs to the box of its image that it overlaps most (the first of equals).  It is right
    where that overlap is at least `iou` and no detection of higher score has taken the box.  Equal scores
    keep the order of the images, then of the rows.

    Args:
        detections: per image (N_i, 5) x1, y1, x2, y2, score; 0-based inclusive pixels.
        boxes: per image (M_i, 4), ground truth of the class.
        difficult: per image (M_i,) bool.
        iou: least intersection over union of a match, a fraction.

    Raises:
        ValueError: the sequences, or the boxes and flags of an image, differ in length.
    """
    match_parts = [np.empty(0, np.int64)]  # index of the matched box among all images' boxes, -1 for none
    score_parts = [np.empty(0)]
    n_boxes = 0
    for found, truth, flags in zip(detections, boxes, difficult, strict=True):
        if len(truth) != len(flags):
            raise ValueError(f"{len(truth)} boxes, but {len(flags)} flags of difficulty")
        match = np.full(len(found), -1, np.int64)
        if len(found) and len(truth):
            overlap = box_iou(found[:, :4], truth)  # (N_i, M_i)
            best = overlap.argmax(axis=1)
            match = np.where(overlap.max(axis=1) >= iou, best + n_boxes, -1)
        match_parts.append(match)
        score_parts.append(np.asarray(found, np.float64).reshape(-1, 5)[:, 4])
        n_boxes += len(truth)
    scores = np.concatenate(score_parts)
    order = np.argsort(-scores, kind="stable")
    match = np.concatenate(match_parts)[order]
    is_difficult = np.concatenate([np.empty(0, bool), *(np.asarray(flags, bool) for flags in difficult)])

    taken, first = np.unique(match, return_index=True)
    right = np.zeros(len(match), bool)
    right[first[taken >= 0]] = True  # the highest-scoring detection of each box
    matched = match >= 0
    ignored = np.zeros(len(match), bool)
    ignored[matched] = is_difficult[match[matched]]
    counts = [len(found) for found in detections]
    image = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    return Matches(
        scores[order], image[order], row[order], right & ~ignored, ignored, int((~is_difficult).sum())
    )


def match_class(detections: Sequence[np.ndarray], annotations: Sequence[Annotation], label: int) -> Matches:
    """The detections of class `label`, per image as in `match_detections`, against the objects of each image."""
    of_class = [item.labels == label for item in annotations]
    return match_detections(
        detections,
        [item.boxes[keep] for item, keep in zip(annotations, of_class, strict=True)],
        [item.difficult[keep] for item, keep in zip(annotations, of_class, strict=True)],
    )


def precision_recall(found: Matches) -> PrecisionRecall:
    """Precision and recall of one class's detections."""
    n_right = np.cumsum(found.right)
    n_counted = np.cumsum(~found.ignored)
    with np.errstate(divide="ignore", invalid="ignore"):
        return PrecisionRecall(
            n_right / n_counted, n_right / found.n_positive, found.scores, found.n_positive
        )


def average_precision_11(curve: PrecisionRecall) -> float:
    """Mean over the recalls 0, .1, .., 1 of the best precision at that recall or beyond (`VOCevaldet`).

    NaN without positives; 0 for positives of which none was detected.
    """
    if curve.n_positive == 0:
        return float("nan")
    return float(best_precision_11(np.nan_to_num(curve.precision), curve.recall))


def best_precision_11(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Mean over the recalls 0, .1, .., 1 of the best precision at that recall or beyond, 0 where none is.

    precision and recall: (..., K), curves along the last axis, without NaN.  Returns (...) float64.
    """
    # Division rounds correctly, so k / 10 and an equal recall are one float; 3 * 0.1 is not 3 / 10.
    levels = [np.where(recall >= k / 10, precision, 0.0).max(axis=-1, initial=0.0) for k in range(11)]
    return np.sum(levels, axis=0) / 11


def image_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The 11-point AP of ranking images for one class, as VOC 2007's `VOCevalcls`; NaN without positives.

    Equal scores keep the order of the images.

    Args:
        scores: (n,), the higher the surer.
        labels: (n,), 1 where the class is in the image, -1 where not, 0 where only as difficult objects:
            such an image is left out.

    Raises:
        ValueError: scores and labels differ in length.
    """
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores, but {len(labels)} labels")
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    right = labels[counted][order] > 0
    n_right, n_positive = np.cumsum(right), int(right.sum())
    curve = PrecisionRecall(
        n_right / np.arange(1, len(right) + 1),
        n_right / n_positive if n_positive else np.full(len(right), np.nan),
        scores[counted][order],
        n_positive,
    )
    return average_precision_11(curve)


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
