"""Greedy non-maximum suppression with VOC's inclusive pixels."""

import numpy as np
import torch
from torchvision.ops import nms as continuous_nms


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float) -> np.ndarray:
    """Indices of the boxes that survive, in descending order of score.

    A box falls where its IoU with a surviving box of higher score is strictly above `iou`; areas are those of
    inclusive pixels, (x2 - x1 + 1) * (y2 - y1 + 1).  Of equal scores the lower index goes first and survives.

    Args:
        boxes: (N, 4) x1, y1, x2, y2, 0-based inclusive pixels.
        scores: (N,) any real dtype.
        iou: a fraction.
    """
    # x2 + 1 and y2 + 1 are the far edges of the last pixels: torchvision's areas become the inclusive ones.
    edges = np.array(boxes, np.float64).reshape(-1, 4)
    edges[:, 2:] += 1
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    # torchvision gets ranks for scores: its own order of equal scores is not documented.
    ranks = torch.arange(len(order), 0, -1, dtype=torch.float64)
    kept = continuous_nms(torch.from_numpy(edges[order]), ranks, iou)
    survivors: np.ndarray = order[kept.numpy()]
    return survivors


def select_per_class(
    boxes: np.ndarray, scores: np.ndarray, *, score_threshold: float, iou: float, max_per_image: int
) -> list[np.ndarray]:
    """The windows of one image that become detections, by class: score threshold, NMS, the best few.

    Args:
        boxes: (N, 4) windows, or (N, K, 4) where each class has moved them; 0-based inclusive pixels.
        scores: (N, K).
        score_threshold: a score must be strictly above it.
        iou: of `nms`, a fraction.
        max_per_image: at most this many detections of each class.

    Returns:
        K arrays of window indices, each in descending order of score.
    """
    selected = []
    for label in range(scores.shape[1]):
        of_class = scores[:, label]
        above = np.flatnonzero(of_class > score_threshold)
        kept = nms(_boxes_of_class(boxes, label)[above], of_class[above], iou)
        selected.append(above[kept[:max_per_image]])
    return selected


def nms_per_class(
    boxes: np.ndarray, scores: np.ndarray, *, score_threshold: float, iou: float, max_per_image: int
) -> list[np.ndarray]:
    """As `select_per_class`, but K arrays (n, 5) of x1, y1, x2, y2, score in place of indices."""
    selected = select_per_class(
        boxes, scores, score_threshold=score_threshold, iou=iou, max_per_image=max_per_image
    )
    return [
        np.column_stack([_boxes_of_class(boxes, label)[kept], scores[kept, label]])
        for label, kept in enumerate(selected)
    ]


def _boxes_of_class(boxes: np.ndarray, label: int) -> np.ndarray:
    return boxes[:, label] if boxes.ndim == 3 else boxes  # (N, 4)
