"""Classification sets in ImageNet's layout: a folder of class folders of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.data.images import image_files
from sppnet_cli.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Labelled images: `paths`, their `labels` (N,) int64 into `class_names`; by class, then by name."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def load_image_folder(root: Path, limit: int | None = None) -> ImageFolder:
    """The images of <root>/<wnid>/*.JPEG, such as ImageNet's train; classes are the folders, sorted by name.

    Any suffix of `IMAGE_SUFFIXES` will do, in either case.  `limit` takes that many images evenly over the
    classes: the first of each class, then the second of each, and so on.  Raises `DataError` for a missing
    folder, one without class folders, and a class folder without images.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name the one that holds a folder of images per class")
    folders = sorted(
        (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")),
        key=lambda folder: folder.name,
    )
    if not folders:
        raise DataError(f"{root}: holds no class folders; name the folder that holds one per class")
    ranked = []  # (rank in its class, class, path)
    for label, folder in enumerate(folders):
        inside = image_files(folder)
        if not inside:
            raise DataError(f"{folder}: class folder without images; fill or remove it")
        ranked += [(rank, label, path) for rank, path in enumerate(inside)]
    if limit is not None:
        ranked = sorted(ranked, key=lambda image: image[:2])[:limit]
        ranked.sort(key=lambda image: (image[1], image[0]))
    return ImageFolder(
        paths=tuple(path for _, _, path in ranked),
        labels=np.array([label for _, label, _ in ranked], dtype=np.int64),
        class_names=tuple(folder.name for folder in folders),
    )
