"""Detections as the VOC devkit exchanges them: a text file per class, in 1-based pixels."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.console import warn
from sppnet_cli.errors import DataError
from sppnet_cli.files import read_text, safe_id, visible

_FIELDS = ("image", "score", "x1", "y1", "x2", "y2")
_CORNERS = list(_FIELDS[2:])
# Where results lie below a folder that is named: in a run, and as the devkit keeps them.
_PLACES = ("comp4", "Main", "VOC*/Main", "results/VOC*/Main")


def write_comp4(folder: Path, frame: pd.DataFrame, split: str, class_names: Sequence[str]) -> None:
    """Write `comp4_det_<split>_<class>.txt` of every class, empty where it has no detection.

    A line is `<image> <score> <x1> <y1> <x2> <y2>` (`VOCevaldet`), with all digits: rounding could make scores
    equal or move an overlap across a half.

    Args:
        folder: made where it does not exist.
        frame: columns image, class, score, x1, y1, x2, y2 as in `detections.csv`, boxes 0-based; the order of
            the rows is kept.
        split: name of the list of images.
        class_names: of the data set.

    Raises:
        SppnetError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in class_names:
        rows = frame.loc[frame["class"] == name, list(_FIELDS)]
        rows = rows.assign(**{corner: rows[corner] + 1 for corner in _CORNERS})
        text = rows.to_csv(sep=" ", header=False, index=False, lineterminator="\n")
        write_text(folder / f"comp4_det_{split}_{_in_file_name(name)}.txt", text)


def read_comp4(folder: Path, split: str, class_names: Sequence[str]) -> tuple[pd.DataFrame, frozenset[str]]:
    """The detections of a results folder, and the classes of which it has no file.

    Files are `comp3_det_<split>_<class>.txt` or comp4's, also with a suffix as Fast R-CNN's code adds it
    (`comp4_<suffix>_det_...`).  They lie in `folder` itself, or below it in a run's `comp4` or the devkit's
    `results/VOC2007/Main`.  Files of classes that are not in `class_names` are warned of and left out.
    Boxes that are inverted or not finite cannot match: they become boxes without an area, which are false positives.

    Returns:
        The frame that `write_comp4` takes, by class in the order of `class_names`, rows as in the files; and
        the names without a file.

    Raises:
        DataError: no results of that split or several sets of them, none of a known class, or a line that is
            malformed or has a score that is not finite.
    """
    files = _find(folder, split)
    paths = {name: files.pop(_in_file_name(name), None) for name in class_names}
    if not any(paths.values()):
        raise DataError(
            f"{next(iter(files.values()))}: not one of the classes {', '.join(class_names)}; name the --data that "
            "these results are of"
        )
    if files:
        strangers = ", ".join(path.name for path in files.values())
        warn(f"{folder}: left out {strangers}: not of classes of the data set")
    rows = [
        (image, name, *numbers)
        for name, path in paths.items()
        if path
        for image, *numbers in _read_lines(path)
    ]
    frame = pd.DataFrame(rows, columns=["image", "class", "score", *_CORNERS])
    frame = frame.astype({"image": str, "class": str, "score": float, **dict.fromkeys(_CORNERS, float)})
    frame[_CORNERS] -= 1
    return frame, frozenset(name for name, path in paths.items() if path is None)


def _in_file_name(class_name: str) -> str:
    return class_name.replace("/", "_")


def _find(folder: Path, split: str) -> dict[str, Path]:
    """The files of the one set of results, by what their names say of the class."""
    form = re.compile(rf"(comp[34](?:[-_].*?)?)_det_{re.escape(split)}_(.+)\.txt")
    sets: dict[Path, dict[str, Path]] = {}
    for place in [folder, *(found for pattern in _PLACES for found in visible(folder, pattern))]:
        for path in visible(place, "comp[34]*_det_*.txt"):
            if match := form.fullmatch(path.name):
                sets.setdefault(place / match[1], {})[match[2]] = path
    if not sets:
        raise DataError(
            f"{folder}: has no detections of {split} (comp4_det_{split}_<class>.txt), itself or in its "
            "results/VOC<year>/Main; name the folder that has, or another --split"
        )
    if len(sets) > 1:
        names = ", ".join(f"{found}_*" for found in sets)
        raise DataError(f"{folder}: holds several sets of results ({names}); name a folder that holds one")
    return next(iter(sets.values()))


def _read_lines(path: Path) -> list[tuple[str, float, float, float, float, float]]:
    """The lines of a file as `_FIELDS`, still 1-based; blank ones are skipped.

    A box that cannot match anything, inverted or not finite, becomes one without an area at the corner of the image.
    It counts as a false positive: published detectors have such boxes, and the devkit takes them.
    """
    rows = []
    for number, line in enumerate(read_text(path, "detections").splitlines(), 1):
        if not line.strip():
            continue
        try:
            image, *words = line.split()
            score, x1, y1, x2, y2 = map(float, words)
        except ValueError:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is not <image> <score> <x1> <y1> <x2> <y2>; correct it"
            ) from None
        if not math.isfinite(score):
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} has a score that is not finite; correct it"
            )
        if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 > x2 or y1 > y2:
            x1, y1, x2, y2 = 1.0, 1.0, 0.0, 0.0
        rows.append((image, score, x1, y1, x2, y2))
    for image in dict.fromkeys(row[0] for row in rows):
        safe_id(image, path)
    return rows
