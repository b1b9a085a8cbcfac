"""Window proposals by selective search or EdgeBoxes, and the files that keep them.

Nothing here imports torch, so that the worker processes start at once, or OpenCV before it is needed.  OpenCV draws from libc's one random
state: make proposals in processes, not in threads.
"""

import ctypes
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.data.edges import edge_map
from sppnet_cli.data.images import read_image
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.records import read_array

MIN_SIDE = 20  # pixels; P section 4 by way of selective search's `minBoxWidth`
_MOST_EDGE_BOXES = 2000
_AGAIN = "make its windows with `sppnet propose`"
_EDGE_BOXES_OVERLAP = 0.65  # above which a box falls for one of a higher score


def ss_fast(image: np.ndarray, seed: int) -> np.ndarray:
    """OpenCV's fast selective search: HSV and Lab, k = 150, 300, 450, about 1,200 windows a VOC image.

    image: uint8 RGB (H, W, 3).  Returns (N, 4) float32, 0-based inclusive, sides of at least 20 px, no box
    twice, in selective search's order of priority: large regions tend to come first, drawn by `seed`, so that
    the first few hundred are a fair choice.  N may be 0.
    """
    cv2 = _opencv()
    search = _segmentation().createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    search.switchToSelectiveSearchFast()
    return _process(search, seed)


def ss_paper(image: np.ndarray, seed: int) -> np.ndarray:
    """Selective search with the settings of P and R (fast mode), about 2,000 windows a VOC image.

    HSV and Lab, both with the full range of 8 bits; k = 50, 100; sigma .8; segments of at least k pixels;
    similarities colour + texture + size + fill and texture + size + fill, equally weighted: `fast_mode` of
    `selective_search_boxes.m` in R-CNN's released code.  Arguments and result as of `ss_fast`.
    """
    cv2, segmentation = _opencv(), _segmentation()
    search = segmentation.createSelectiveSearchSegmentation()
    for space in (cv2.COLOR_RGB2HSV_FULL, cv2.COLOR_RGB2Lab):
        search.addImage(cv2.cvtColor(image, space))
    for k in (50, 100):
        search.addGraphSegmentation(segmentation.createGraphSegmentation(sigma=0.8, k=k, min_size=k))
    colour = segmentation.createSelectiveSearchSegmentationStrategyColor()
    texture = segmentation.createSelectiveSearchSegmentationStrategyTexture()
    size = segmentation.createSelectiveSearchSegmentationStrategySize()
    fill = segmentation.createSelectiveSearchSegmentationStrategyFill()
    for similarities in ((colour, texture, size, fill), (texture, size, fill)):
        search.addStrategy(segmentation.createSelectiveSearchSegmentationStrategyMultiple(*similarities))
    return _process(search, seed)


def edge_boxes(image: np.ndarray, seed: int) -> np.ndarray:
    """EdgeBoxes (Zitnick and Dollár, ECCV 2014), as OpenCV has it, on the edges of the colour gradient.

    The boxes that hold most contours wholly, best first and at most 2,000.  Arguments and result as of `ss_fast`, but
    nothing is drawn: the `seed` changes nothing.
    """
    search = _ximgproc().createEdgeBoxes(
        beta=_EDGE_BOXES_OVERLAP, maxBoxes=2 * _MOST_EDGE_BOXES, minBoxArea=MIN_SIDE**2
    )
    if min(image.shape[:2]) < MIN_SIDE:
        return np.empty((0, 4), dtype=np.float32)
    found, _ = search.getBoundingBoxes(*edge_map(image))
    windows = np.asarray(found, dtype=np.float32).reshape(-1, 4)
    # OpenCV counts x and y from 1, as the authors' MATLAB code does, and w and h from pixel to pixel.
    boxes = np.concatenate([windows[:, :2] - 1, windows[:, :2] + windows[:, 2:] - 1], axis=1)
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= MIN_SIDE).all(axis=1)
    return boxes[large][:_MOST_EDGE_BOXES]


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "ss-fast": ss_fast,
    "ss-paper": ss_paper,
    "edgeboxes": edge_boxes,
}


def proposal_parts(given: str) -> list[str]:
    """The methods and paths that `A+B` names; a path that exists may have a plus in its name.

    Raises `UsageError` where nothing stands on one side of a plus.
    """
    parts = given.split("+")
    if not set(parts) <= set(METHODS) and Path(given).exists():
        return [given]
    if "" in parts:
        raise UsageError(f"--proposals {given}: write a method or a path on both sides of a plus, as in A+B")
    return parts


def join_boxes(sources: Sequence[np.ndarray]) -> np.ndarray:
    """The windows (N, 4) of several sources together, no box twice: one of each by turns, the first source's first.

    So the first few hundred hold as many of each source.
    """
    turns = np.concatenate([np.arange(len(boxes)) for boxes in sources])
    return _first_of_each(np.concatenate(sources)[np.argsort(turns, kind="stable")])


def propose(image: np.ndarray, method: str, seed: int, max_side: int | None = None) -> np.ndarray:
    """Windows of an image, uint8 RGB (H, W, 3), by one of `METHODS`.

    With `max_side` an image whose longer side exceeds it is shrunk to it for the search and the windows are
    scaled back, rounded to pixels: the limit of 20 px then holds in the shrunken image.  Returns (N, 4)
    float32, 0-based inclusive, inside the image; N = 0 when no region is large enough.  `seed` is that of
    the image, see `image_seed`.  Raises `UsageError` for an unknown method.
    """
    if method not in METHODS:
        raise UsageError(f"proposals {method!r}: unknown method; choose one of {', '.join(METHODS)}")
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return METHODS[method](image, seed)
    shrink = max_side / max(height, width)
    small_width, small_height = max(1, round(width * shrink)), max(1, round(height * shrink))
    cv2 = _opencv()
    small = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    boxes = METHODS[method](small, seed)
    # The edges of the pixels scale, not their centres: x2 + 1 is the right edge.
    edges = boxes + np.array([0, 0, 1, 1], dtype=np.float32)
    stretch = np.array([width / small_width, height / small_height] * 2)
    return clip_boxes((np.round(edges * stretch) - [0, 0, 1, 1]).astype(np.float32), (height, width))


def read_and_propose(job: tuple[Path, str, int, int | None]) -> tuple[np.ndarray, np.ndarray]:
    """The image in a file, as `read_image` gives it, and its windows: path, and what else `propose` takes."""
    path, method, seed, max_side = job
    image = read_image(path)
    return image, propose(image, method, seed, max_side)


def image_seed(seed: int, image_id: str) -> int:
    """The seed of one image in a run with `seed`: a stable hash, whatever the order or the sharding."""
    return zlib.crc32(os.fsencode(f"{seed}/{image_id}"))  # a photograph's name need not be text


def start_worker() -> None:
    """Initialise a worker process: one thread for OpenCV, since the processes fill the cores."""
    _opencv().setNumThreads(1)


def top_up(boxes: np.ndarray, count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Exactly `count` windows, (count, 4) float32: the first of `boxes`, then distinct random ones.

    The random windows lie inside the image of size (height, width), have sides of at least 20 px and equal
    none of `boxes`; for timing with equal numbers of windows, not for training.  Raises `DataError` when
    the image holds fewer than `count` such windows.
    """
    height, width = size
    possible = _intervals(width) * _intervals(height)
    if len(boxes) < count and possible < count:
        raise DataError(f"an image of {width}x{height} pixels holds only {possible} windows, not {count}")
    rng = np.random.default_rng(seed)
    filled = boxes[:count].astype(np.float32)
    while len(filled) < count:
        x1 = rng.integers(0, width - MIN_SIDE, size=count, endpoint=True)
        y1 = rng.integers(0, height - MIN_SIDE, size=count, endpoint=True)
        x2 = rng.integers(x1 + MIN_SIDE - 1, width)
        y2 = rng.integers(y1 + MIN_SIDE - 1, height)
        drawn = np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)
        filled = _first_of_each(np.concatenate([filled, drawn]))
    return filled[:count]


def write_boxes(path: Path, boxes: np.ndarray) -> None:
    """Write one image's windows (N, 4) as a float32 .npy file, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, boxes.astype(np.float32), allow_pickle=False)


def require_boxes(folder: Path, ids: Iterable[str], split: str) -> None:
    """Raise `DataError` where a folder holds proposals of none of these images."""
    if not any((folder / "boxes" / f"{image_id}.npy").is_file() for image_id in ids):
        raise DataError(
            f"{folder}: holds proposals of none of the images of {split}; give --proposals a run of "
            f"`sppnet propose --split {split}`, or a method"
        )


def read_boxes(path: Path) -> np.ndarray:
    """Windows (N, 4) float32 that `write_boxes`, or another program, wrote as numbers of any kind.

    Raises `DataError` naming the file when it is not there, or holds anything but windows: finite, x1 <= x2, y1 <= y2.
    """
    boxes = read_array(path, _AGAIN)
    if boxes.dtype.kind not in "fiu" or (boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4)):
        raise DataError(f"{path}: {boxes.dtype} array of shape {boxes.shape}, not numbers (N, 4); {_AGAIN}")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        boxes = boxes.astype(np.float32, copy=False).reshape(-1, 4)
    if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise DataError(f"{path}: holds boxes that are not x1 <= x2 and y1 <= y2; {_AGAIN}")
    return boxes


def can_propose() -> bool:
    """Whether there is an OpenCV with the methods of `METHODS`."""
    try:
        _ximgproc()
    except DataError:
        return False
    return True


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise DataError(
            "windows are proposed by OpenCV, which is not installed: pip install opencv-contrib-python-headless"
        ) from None
    return cv2


def _segmentation() -> Any:
    return _ximgproc().segmentation


def _ximgproc() -> Any:
    try:
        return _opencv().ximgproc
    except AttributeError:
        raise DataError(
            "this OpenCV has no ximgproc: pip uninstall opencv-python opencv-python-headless, "
            "then pip install --force-reinstall opencv-contrib-python-headless"
        ) from None


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _process(search: Any, seed: int) -> np.ndarray:
    """Run a search; its order is drawn by libc's `rand`, which OpenCV never seeds."""
    _libc().srand(ctypes.c_uint(seed))
    windows = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)  # x, y, w, h; none twice
    windows = windows[(windows[:, 2:] >= MIN_SIDE).all(axis=1)]
    # OpenCV sorts the other way round; in selective search's own order large regions tend to come first.
    windows = windows[::-1]
    return np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:] - 1], axis=1)


def _intervals(side: int) -> int:
    """How many intervals of at least 20 pixels `side` pixels hold."""
    free = max(0, side - MIN_SIDE + 1)
    return free * (free + 1) // 2


def _first_of_each(boxes: np.ndarray) -> np.ndarray:
    """Boxes without repetition, in order of first appearance."""
    first = np.unique(boxes, axis=0, return_index=True)[1]
    return boxes[np.sort(first)]
