"""Images inside of the page."""

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 62


@dataclass(frozen=True)
class Picture:
    """An image with what is said of it."""

    source: str  # a data: address
    width: int
    height: int
    text: str  # for those who do not see it
    caption: str = ""


def picture(
    image: NDArray[np.uint8], text: str, caption: str = "", most: tuple[int, int] | None = None
) -> Picture:
    """An RGB image `(H, W, 3)` as WebP, shrunk to a width and height of at most `most` pixels."""
    if most is not None:
        zoom = min(most[0] / image.shape[1], most[1] / image.shape[0])
        if zoom < 1:
            size = max(1, round(zoom * image.shape[1])), max(1, round(zoom * image.shape[0]))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=_QUALITY, method=4)
    source = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(source, image.shape[1], image.shape[0], text, caption)
