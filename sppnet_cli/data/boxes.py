"""Arithmetic of boxes: (N, 4), x1, y1, x2, y2 in 0-based inclusive pixels, so that w = x2 - x1 + 1."""

import numpy as np


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) moved into an image of size (height, width): x in [0, width - 1], y in [0, height - 1].

    Returns a new array of the same dtype.
    """
    height, width = size
    limit = np.array([width - 1, height - 1, width - 1, height - 1])
    clipped: np.ndarray = np.clip(boxes, 0, limit).astype(boxes.dtype)
    return clipped


def flip_boxes(boxes: np.ndarray, width: int) -> np.ndarray:
    """Boxes (N, 4) in the image mirrored left to right, for an image `width` pixels wide; dtype kept."""
    flipped = boxes.copy()
    flipped[:, 0] = width - 1 - boxes[:, 2]
    flipped[:, 2] = width - 1 - boxes[:, 0]
    return flipped


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (N,) float64 in pixels, (x2 - x1 + 1) * (y2 - y1 + 1)."""
    wide = np.asarray(boxes, dtype=np.float64)
    return (wide[:, 2] - wide[:, 0] + 1) * (wide[:, 3] - wide[:, 1] + 1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a (N, 4) with every one of b (M, 4): (N, M) float64.

    Areas count inclusive pixels, as in the VOC devkit's `VOCevaldet`.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    corner1 = np.maximum(a[:, None, :2], b[None, :, :2])
    corner2 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(corner2 - corner1 + 1, 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - intersection
    overlap: np.ndarray = intersection / union
    return overlap
