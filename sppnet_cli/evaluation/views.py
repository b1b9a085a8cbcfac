"""Cuts the views that a network classifies out of an image (crops, the whole image) or out of its feature maps."""

from collections.abc import Callable

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sppnet_cli.network.geometry import CROP, SHORT_SIDE
from sppnet_cli.network.preprocessing import resize_short

MAP_SCALES = (224, 256, 300, 360, 448, 560)  # short sides of the images whose maps are pooled

Image = NDArray[np.uint8]
Resize = Callable[[Image, int], Image]


def resize_as_torchvision(image: Image, short_side: int) -> Image:
    """Resize as torchvision's classifiers are measured: antialiased, with the long side rounded down."""
    height, width = image.shape[:2]
    long_side = int(short_side * max(height, width) / min(height, width))
    size = (short_side, long_side) if height > width else (long_side, short_side)
    return np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR))


def views_of(image: Image, views: str, resize: Resize = resize_short) -> list[Image]:
    """Cut the `CROP_VIEWS` or `FULL_VIEWS` named `views` out of an RGB image `(H, W, 3)` resized to a short side of 256.

    - `10`: the 224x224 centre and corners of the entire image, then their mirror images (paper section 3.1).
    - `10central`: the same of the central 256x256 square (AlexNet's).
    - `1crop`: the centre.
    - `1full`: the entire image.
    - `8+2full`: the corners and the entire image, then their mirror images.
    """
    resized = resize(image, SHORT_SIDE)
    if views == "10central":
        resized = _central(resized, SHORT_SIDE)
    down, right = resized.shape[0] - CROP, resized.shape[1] - CROP
    corners = [resized[y : y + CROP, x : x + CROP] for y in (0, down) for x in (0, right)]
    centre = _central(resized, CROP)
    unflipped = {
        "10": [centre, *corners],
        "10central": [centre, *corners],
        "1crop": [centre],
        "1full": [resized],
        "8+2full": [*corners, resized],
    }
    chosen = unflipped[views]
    return chosen if views in ("1crop", "1full") else chosen + [view[:, ::-1] for view in chosen]


def _central(image: Image, side: int) -> Image:
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def map_scales(views: str) -> tuple[int, ...]:
    """Short sides of the images whose maps `maps:10`, `maps:96` or `maps:96+2full` pool (journal edition)."""
    return (SHORT_SIDE,) if views == "maps:10" else MAP_SCALES


def map_windows(size: tuple[int, int], views: str) -> NDArray[np.int64]:
    """224x224 windows `(N, 4)` of an image of `size` (H, W), to be pooled from its maps.

    `maps:10` takes the centre and the corners.  The others take the centre, the corners and the middles of the
    sides: 9 windows, or 3 along the long side where the short side is 224.  With their mirror images these are
    10 views, or 5 * 18 + 6 = 96 over all scales (journal edition).
    """
    down, right = size[0] - CROP, size[1] - CROP
    if views == "maps:10":
        places = [(down // 2, right // 2)] + [(y, x) for y in (0, down) for x in (0, right)]
    else:
        one_row = down == 0
        one_column = right == 0 and not one_row
        rows = [0] if one_row else [0, down // 2, down]
        columns = [0] if one_column else [0, right // 2, right]
        places = [(y, x) for y in rows for x in columns]
    return np.array([(x, y, x + CROP - 1, y + CROP - 1) for y, x in places])
