"""Classification sets in ImageNet's layout: a folder of class folders of images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.data.images import image_files
from sppnet_cli.errors import DataError
from sppnet_cli.files import is_hidden, links_to_nothing, path_text


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Labelled images: `paths`, their `labels` (N,) int64 into `class_names`; by class, then by name."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def training_folder(data: Path) -> Path:
    """`data/train`, or `data` where it holds the class folders itself.

    Raises `DataError` for ImageNet's validation images alone.
    """
    if (data / "train").is_dir():
        return data / "train"
    if data.absolute().name == "val" or (data / "val").is_dir():
        raise DataError(
            f"{data}: ImageNet's validation images alone, on which no network is trained; name the folder that "
            "holds train too"
        )
    return data


def load_image_folder(root: Path, limit: int | None = None) -> ImageFolder:
    """The images of <root>/<wnid>/*.JPEG, such as ImageNet's train; classes are the folders, sorted by name.

    Any suffix of `IMAGE_SUFFIXES` will do, in either case.  `limit` takes that many images evenly over the
    classes: the first of each class, then the second of each, and so on.  Raises `DataError` for a missing
    folder, one without class folders, another data set, and a class folder without images.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name the one that holds a folder of images per class")
    folders = sorted(
        (entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name)),
        key=lambda folder: folder.name,
    )
    _require_classes(root, folders)
    for link in links_to_nothing(root):
        raise DataError(f"{link}: links to {link.readlink()}, which is not there; restore or remove it")
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
        class_names=tuple(path_text(folder.name) for folder in folders),
    )


def _require_classes(root: Path, folders: list[Path]) -> None:
    """Raise `DataError`, saying what `root` is, where the folders in it cannot be those of classes."""
    give = "name a folder that holds a folder of images per class, as ImageNet's train does"
    if (root / "ImageSets").is_dir() or any(root.glob("VOC[0-9]*/ImageSets")):
        raise DataError(f"{root}: a VOC set, whose images lie in no class folders; {give}")
    if not folders:
        loose = len(image_files(root))
        raise DataError(f"{root}: holds {f'{loose} images and ' if loose else ''}no class folders; {give}")
