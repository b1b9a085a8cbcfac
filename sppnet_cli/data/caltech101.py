"""Caltech101: one folder of images per category, BACKGROUND_Google among them (102 in all)."""

from pathlib import Path

from sppnet_cli.data.imagenet import ImageFolder, load_image_folder
from sppnet_cli.errors import DataError

CATEGORIES_FOLDER = "101_ObjectCategories"


def load_caltech101(root: Path, limit: int | None = None) -> ImageFolder:
    """The images of Caltech101; `root` is the folder 101_ObjectCategories or the one that holds it.

    Labels, order, `limit` and errors as of `load_image_folder`.
    """
    inner = root / CATEGORIES_FOLDER
    if inner.is_dir():
        return load_image_folder(inner, limit)
    if root.name != CATEGORIES_FOLDER:
        raise DataError(f"{root}: holds no {CATEGORIES_FOLDER}; name that folder or its parent")
    return load_image_folder(root, limit)
