"""Which of the published data sets a folder is."""

from pathlib import Path
from typing import Literal

from sppnet_cli.data.caltech101 import CATEGORIES_FOLDER
from sppnet_cli.errors import DataError

Dataset = Literal["VOC", "Caltech101"]  # of whole images with labels


def layout_of(data: Path) -> Dataset | None:
    """The data set whose layout a folder has; None for another folder.  Raises `DataError` where it does not exist."""
    if not data.exists():
        raise DataError(f"{data}: no such folder; name a VOC devkit, Caltech101 or a folder of images")
    if data.absolute().name == CATEGORIES_FOLDER or (data / CATEGORIES_FOLDER).is_dir():
        return "Caltech101"
    if (data / "ImageSets").is_dir() or any(data.glob("VOC[0-9]*/ImageSets")):
        return "VOC"
    return None
