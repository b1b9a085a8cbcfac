"""The authors' precomputed window proposals, published as MATLAB files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from sppnet_cli.errors import DataError
from sppnet_cli.files import read_bytes, safe_id


def load_mat_boxes(path: Path) -> dict[str, np.ndarray]:
    """The authors' precomputed windows (`voc_2007_trainval.mat`, `voc_2007_test.mat`) by image id.

    The file's `boxes` are one (y1, x1, y2, x2) array an image, 1-based inclusive, and `images` their ids;
    returned as (N, 4) float32 x1, y1, x2, y2, 0-based inclusive.  Raises `DataError` for another layout.
    """
    file = BytesIO(read_bytes(path, ".mat"))
    try:
        content: dict[str, Any] = scipy.io.loadmat(file, variable_names=("boxes", "images"))
    except MemoryError:
        raise DataError(f"{path}: claims more than fits into memory; use the authors' .mat file") from None
    except Exception as error:  # noqa: BLE001 - scipy raises anything on broken bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a MATLAB file of version 7 or less ({reason}); save it anew") from None
    missing = [name for name in ("boxes", "images") if name not in content]
    if missing:
        raise DataError(f"{path}: has no variable {' and no '.join(missing)}; use the authors' .mat file")
    boxes, images = (np.asarray(content[name]).ravel() for name in ("boxes", "images"))
    if boxes.dtype != object or images.dtype != object or len(boxes) != len(images):
        raise DataError(
            f"{path}: boxes and images are not cell arrays of one length; use the authors' .mat file"
        )
    return {
        _mat_id(image, path): _from_matlab(windows, path)
        for image, windows in zip(images, boxes, strict=True)
    }


def _mat_id(image: Any, path: Path) -> str:
    if not isinstance(image, np.ndarray) or image.dtype.kind != "U" or image.size != 1:
        raise DataError(f"{path}: an entry of images is not a name; use the authors' .mat file")
    return safe_id(str(image.item()), path)


def _from_matlab(windows: Any, path: Path) -> np.ndarray:
    if not isinstance(windows, np.ndarray):  # a sparse matrix, an object
        raise DataError(f"{path}: an entry of boxes is not (N, 4) numbers; use the authors' .mat file")
    if windows.size == 0:
        return np.empty((0, 4), dtype=np.float32)
    if windows.ndim != 2 or windows.shape[1] != 4 or windows.dtype.kind not in "fiu":
        raise DataError(f"{path}: an entry of boxes is not (N, 4) numbers; use the authors' .mat file")
    boxes = windows[:, [1, 0, 3, 2]].astype(np.float32) - 1
    if (
        not np.isfinite(boxes).all()
        or not (boxes[:, :2] >= 0).all()
        or not (boxes[:, 2:] >= boxes[:, :2]).all()
    ):
        raise DataError(f"{path}: boxes that are not (y1, x1, y2, x2), 1-based; use the authors' .mat file")
    return boxes
