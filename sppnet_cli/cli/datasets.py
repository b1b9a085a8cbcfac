"""Which set of whole images a command is about."""

from dataclasses import replace
from pathlib import Path

from sppnet_cli.data.caltech101 import CATEGORIES_FOLDER
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.stages.extract_features import Dataset
from sppnet_cli.stages.workspace import Workspace


def layout_of(data: Path) -> Dataset | None:
    """Which data set a folder is, by its layout; None for another folder.  Raises `DataError` for none at all."""
    if not data.exists():
        raise DataError(f"{data}: no such folder; name a VOC devkit, Caltech101 or a folder of images")
    if data.absolute().name == CATEGORIES_FOLDER or (data / CATEGORIES_FOLDER).is_dir():
        return "Caltech101"
    if (data / "ImageSets").is_dir() or any(data.glob("VOC[0-9]*/ImageSets")):
        return "VOC"
    return None


def choose_dataset(ws: Workspace, name: str | None) -> tuple[Workspace, Dataset | None]:
    """What `data` is by its layout, or the embedded data set of that name (VOC by default).

    Returns the workspace with a Caltech101 folder as its `caltech`.  Raises `UsageError` for a name beside `data`.
    """
    if ws.data is None:
        return ws, "Caltech101" if name == "caltech101" else "VOC"
    if name is not None:
        raise UsageError("--dataset chooses from the embedded data; what --data is tells its layout")
    dataset = layout_of(ws.data)
    return (replace(ws, data=None, caltech=ws.data) if dataset == "Caltech101" else ws), dataset
