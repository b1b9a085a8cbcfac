"""Greedy non-maximum suppression with VOC's inclusive pixels."""

import numpy as np

from sppnet_cli.kernels.nms import suppress
from sppnet_cli.protocols import NmsTies


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float, ties: NmsTies) -> np.ndarray:
    """Indices of the boxes that survive, in descending order of score.

    A box is suppressed where its IoU with a surviving box before it is strictly above `iou`; areas are those of
    inclusive pixels, (x2 - x1 + 1) * (y2 - y1 + 1).

    Args:
        boxes: (N, 4) x1, y1, x2, y2, 0-based inclusive pixels.
        scores: (N,) any real dtype.
        iou: a fraction.
        ties: which of equal scores comes before the other: the `first` of them or the `last`.
    """
    # x2 + 1 and y2 + 1 are the far edges of the last pixels.
    edges = np.array(boxes, np.float64).reshape(-1, 4)
    edges[:, 2:] += 1
    descending = -np.asarray(scores, np.float64)
    if ties == "last":
        order = len(descending) - 1 - np.argsort(descending[::-1], kind="stable")
    else:
        order = np.argsort(descending, kind="stable")
    survivors: np.ndarray = order[suppress(edges[order], iou)]
    return survivors


def select_per_class(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    score_threshold: float,
    iou: float,
    ties: NmsTies,
    max_per_image: int,
) -> list[np.ndarray]:
    """The windows of one image that become detections, by class: score threshold, NMS, the best few.

    Args:
        boxes: (N, 4) windows, 0-based inclusive pixels.
        scores: (N, K).
        score_threshold: a score must be strictly above it.
        iou: of `nms`, a fraction.
        ties: of `nms`; of equal scores at the limit of `max_per_image`, those that `nms` puts first stay.
        max_per_image: at most this many detections of each class.

    Returns:
        K arrays of window indices, each in the order of `nms`.
    """
    selected = []
    for of_class in scores.T:
        above = np.flatnonzero(of_class > score_threshold)
        kept = nms(boxes[above], of_class[above], iou, ties)
        selected.append(above[kept[:max_per_image]])
    return selected
