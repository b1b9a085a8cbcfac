"""The functions of the public API: arrays in, arrays out.

Each imports what it needs when it is called, so that reading an image loads no torch.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sppnet_cli.errors import UsageError


def read_image(path: str | PathLike[str], *, upright: bool = True) -> NDArray[np.uint8]:
    """The picture in a file as RGB `(H, W, 3)` uint8, turned as its EXIF orientation says if `upright`.

    Grey, palette and CMYK pictures become RGB, 16-bit samples 8-bit; alpha is dropped, of an animation the first frame
    is taken.  Raises `DataError` in one line for a file that is missing, damaged, no image or too large.
    """
    from sppnet_cli.data import images

    return images.read_image(Path(path), upright=upright)


def propose(
    image: NDArray[np.uint8], method: str = "ss-fast", *, seed: int = 0, max_side: int | None = None
) -> NDArray[np.float32]:
    """Windows `(N, 4)` float32 of an image that may hold an object, in order of priority.

    Args:
        image: RGB `(H, W, 3)` uint8.
        method: `ss-fast` (selective search, about 1,200 windows of a VOC image), `ss-paper` (the paper's settings,
            about 2,000) or `edgeboxes` (2,000 at most).
        seed: of selective search's order.
        max_side: pixels; a larger image is shrunk for the search.

    Returns:
        x1, y1, x2, y2 in 0-based inclusive pixels, sides of at least 20 pixels; N may be 0.

    Raises `UsageError` for another method and for what is no such image.
    """
    from sppnet_cli.data import proposals

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(f"an image is RGB (H, W, 3) uint8, not {image.shape} {image.dtype}")
    boxes: NDArray[np.float32] = proposals.propose(image, method, seed, max_side)
    return boxes


def pool_windows(
    maps: NDArray[np.float32], cells: ArrayLike, levels: Sequence[int] = (1, 2, 3, 6)
) -> NDArray[np.float32]:
    """Spatial pyramid vectors of many windows of one feature map (paper section 4.1).

    Each is what `SpatialPyramidPooling(levels)` gives of the window's part of the map, to the last bit, but quickly.

    Args:
        maps: `(C, H, W)` float32, of one image.
        cells: `(N, 4)` whole numbers x1, y1, x2, y2: the window's first and last column and row of cells, inside the map.
        levels: bins per side of each level.

    Returns:
        `(N, C * bins)` float32; level by level in ascending order, and in one of n x n bins `c*n*n + row*n + column`.

    Raises `UsageError` for other shapes, cells outside of the map, and maps that hold NaN.
    """
    import torch

    from sppnet_cli.kernels import pooling

    found = np.asarray(cells)
    if not found.size:
        found = np.empty((0, 4), np.int32)
    if maps.ndim != 3 or not maps.size:
        raise UsageError(f"maps are (C, H, W) of one image, not {maps.shape}")
    if np.isnan(maps).any():
        raise UsageError("the maps hold NaN, of which no maximum can be taken")
    if found.ndim != 2 or found.shape[1] != 4 or found.dtype.kind not in "iu":
        raise UsageError(f"cells are (N, 4) whole numbers, not {found.shape} {found.dtype}")
    if not levels or min(levels) < 1:
        raise UsageError(f"levels are numbers of bins, 1 or more, not {tuple(levels)}")
    limit = np.array(maps.shape[:0:-1])  # width, height
    if (found < 0).any() or (found[:, 2:] >= limit).any() or (found[:, :2] > found[:, 2:]).any():
        raise UsageError(
            f"cells are x1 <= x2 and y1 <= y2 inside the map, which is {limit[0]} wide and {limit[1]} high"
        )
    by_cell = np.ascontiguousarray(np.moveaxis(maps, 0, -1), np.float32)
    vectors = pooling.pool_windows(torch.from_numpy(by_cell), found.astype(np.int32), tuple(levels))
    return np.asarray(vectors.numpy())


def average_precision(
    detections: Sequence[ArrayLike],
    boxes: Sequence[ArrayLike],
    difficult: Sequence[ArrayLike] | None = None,
    *,
    iou: float = 0.5,
) -> float:
    """The average precision of one class as the VOC 2007 devkit computes it, with 11 recall levels; a fraction.

    Args:
        detections: per image `(N_i, 5)` x1, y1, x2, y2, score.
        boxes: per image `(M_i, 4)`, the objects of the class.
        difficult: per image `(M_i,)` bool: objects that count neither way.  None: none is.
        iou: least intersection over union of a match.

    Boxes are 0-based inclusive pixels.  NaN where no object counts.  Raises `UsageError` where the lengths differ.
    """
    from sppnet_cli.evaluation import voc_ap

    found = [np.asarray(each, np.float64).reshape(-1, 5) for each in detections]
    truth = [np.asarray(each, np.float64).reshape(-1, 4) for each in boxes]
    flags = [np.zeros(len(each), bool) for each in truth]
    if difficult is not None:
        flags = [np.asarray(each, bool).reshape(-1) for each in difficult]
    if not len(found) == len(truth) == len(flags):
        raise UsageError(
            f"detections of {len(found)} images, boxes of {len(truth)}, difficult of {len(flags)}: give one of each an image"
        )
    try:
        return voc_ap.average_precision_11(
            voc_ap.precision_recall(voc_ap.match_detections(found, truth, flags, iou))
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
