"""Detections as labelling tools read them: a text file (YOLO) or an XML (VOC) for each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.data.imports.placing import PlacedObject
from sppnet_cli.data.imports.voc_layout import annotation_xml
from sppnet_cli.errors import DataError


def write_yolo_labels(
    folder: Path, frame: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], class_names: Sequence[str]
) -> None:
    """Write `classes.txt` and `labels/<image>.txt`: class, centre, width and height as fractions, and how sure it is.

    That is the confidence where the frame has one, else the score.

    Args:
        folder: made where it does not exist.
        frame: columns image, class, score, x1, y1, x2, y2 as in `detections.csv`, boxes 0-based inclusive.
        sizes: (height, width) of every image, which gets a file also where nothing was detected in it.
        class_names: line k of `classes.txt` names class k.

    Raises:
        DataError: an image's name leads out of the folder.
        SppnetError: a file cannot be written.
    """
    index = {name: k for k, name in enumerate(class_names)}
    rows = dict(list(frame.groupby("image", sort=False)))
    for image, (height, width) in sizes.items():
        lines = []
        found = rows.get(image, frame.iloc[:0])
        for name, score, x1, y1, x2, y2 in _rows(found):
            across, down = (x2 - x1 + 1) / width, (y2 - y1 + 1) / height
            x, y = (x1 + x2 + 1) / 2 / width, (y1 + y2 + 1) / 2 / height
            lines.append(f"{index[name]} {x:.6f} {y:.6f} {across:.6f} {down:.6f} {score!r}\n")
        write_text(_place(folder / "labels", image, ".txt"), "".join(lines))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in class_names))


def write_voc_annotations(
    folder: Path, frame: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], file_names: Mapping[str, str]
) -> None:
    """Write `Annotations/<image>.xml`: boxes in whole 1-based pixels, each with its confidence, or score, as `<confidence>`.

    Args:
        folder, frame, sizes: as of `write_yolo_labels`.
        file_names: of each image, for `<filename>`.

    Raises:
        DataError, SppnetError: as `write_yolo_labels`.
    """
    rows = dict(list(frame.groupby("image", sort=False)))
    for image, (height, width) in sizes.items():
        found = list(_rows(rows.get(image, frame.iloc[:0])))
        objects = [
            PlacedObject(name, (round(x1), round(y1), round(x2), round(y2)), False, False)
            for name, _, x1, y1, x2, y2 in found
        ]
        xml = annotation_xml(file_names[image], (width, height), objects, [score for _, score, *_ in found])
        write_text(_place(folder / "Annotations", image, ".xml"), xml)


def _rows(frame: pd.DataFrame) -> list[tuple[str, float, float, float, float, float]]:
    sure = "confidence" if "confidence" in frame else "score"
    numbers = frame[[sure, "x1", "y1", "x2", "y2"]].to_numpy(float).tolist()
    return [(name, *row) for name, row in zip(frame["class"], numbers, strict=True)]


def _place(folder: Path, image: str, suffix: str) -> Path:
    path = folder / f"{image}{suffix}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{image}: names a file outside {folder}; correct the image's name")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
