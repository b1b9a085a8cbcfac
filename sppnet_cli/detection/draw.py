"""Detections drawn into their image (Figure 6)."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sppnet_cli.detection.detector import Detection


def class_colour(label: int, classes: int) -> tuple[int, int, int]:
    """An RGB colour of its own for each class."""
    red, green, blue = colorsys.hsv_to_rgb(label / max(classes, 1), 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: NDArray[np.uint8],
    detections: Sequence[Detection],
    class_names: Sequence[str],
    min_score: float = 0.0,
) -> NDArray[np.uint8]:
    """A copy of an RGB image `(H, W, 3)` with the boxes of all detections scoring above `min_score`, named."""
    picture = image.copy()
    unit = max(picture.shape[:2]) / 500
    thickness, font = max(1, round(2 * unit)), 0.45 * unit
    # The best is drawn last, on top.
    for found in sorted(detections, key=lambda d: d.score):
        if found.score <= min_score:
            continue
        colour = class_colour(found.label, len(class_names))
        x1, y1, x2, y2 = (round(v) for v in found.box)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thickness)
        text = f"{class_names[found.label]} {found.score:.2f}"
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font, max(1, thickness // 2))
        top = max(y1, height + base)
        cv2.rectangle(picture, (x1, top - height - base), (x1 + width, top), colour, cv2.FILLED)
        cv2.putText(
            picture,
            text,
            (x1, top - base // 2),
            cv2.FONT_HERSHEY_SIMPLEX,
            font,
            (255, 255, 255),
            max(1, thickness // 2),
            cv2.LINE_AA,
        )
    return picture
