"""Detections as COCO's tools exchange them: a JSON list of image id, category id, box and score."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli.atomic import write_json
from sppnet_cli.console import warn
from sppnet_cli.data.imports.importing import read_record
from sppnet_cli.data.voc import Annotation, VocDetection
from sppnet_cli.errors import DataError
from sppnet_cli.files import decode, read_bytes

_COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class CocoIds:
    """COCO's numbers of the images and of the classes, each by our name."""

    images: Mapping[str, int]
    categories: Mapping[str, int]


def coco_ids(dataset: VocDetection) -> CocoIds:
    """The numbers that the COCO export had from which the set was imported; of another set, the places from 1.

    Raises `DataError` when the record of an import cannot be read.
    """
    images = {image_id: place for place, image_id in enumerate(dataset.ids, 1)}
    categories = {name: place for place, name in enumerate(dataset.class_names, 1)}
    record = read_record(dataset.root) or {}
    given = CocoIds(record.get("image_ids") or {}, record.get("category_ids") or {})
    if not _covers(given.images, images) or not _covers(given.categories, categories):
        return CocoIds(images, categories)
    return CocoIds({i: given.images[i] for i in images}, {n: given.categories[n] for n in categories})


def write_coco_results(path: Path, frame: pd.DataFrame, ids: CocoIds) -> None:
    """Write detections as COCO results; x, y, width and height, so that a box of one pixel is 1 wide.

    Where the frame has confidences, each entry has one beside its score; COCO's tools rank by the score.

    Args:
        path: usually `detections.json`.
        frame: columns image, class, score, x1, y1, x2, y2 as in `detections.csv`, boxes 0-based inclusive; the order
            of the rows is kept.
        ids: hold all images and classes of the frame.

    Raises:
        KeyError: an image or class is not among `ids`.
        SppnetError: the file cannot be written.
    """
    rows = frame[_COLUMNS].itertuples(index=False, name=None)
    entries = [
        {
            "image_id": ids.images[image],
            "category_id": ids.categories[name],
            "bbox": [float(x1), float(y1), float(x2 - x1 + 1), float(y2 - y1 + 1)],
            "score": float(score),
        }
        for image, name, score, x1, y1, x2, y2 in rows
    ]
    if "confidence" in frame:
        for entry, confidence in zip(entries, frame["confidence"].tolist(), strict=True):
            entry["confidence"] = confidence
    write_json(path, entries)


def read_coco_results(path: Path, ids: CocoIds) -> pd.DataFrame:
    """The frame that `write_coco_results` takes, of any detector's COCO results, rows as in the file.

    Where every entry has a confidence, so has the frame.  Detections of categories that are not among `ids` are
    warned of and left out.  A box without extent stays, and one that is not finite becomes such a box: it overlaps
    nothing, so that it is a false positive.

    Raises:
        DataError: not a list of results, an entry that is malformed or has a score that is not finite, or an image
            that is not among `ids`.
    """
    images = {number: image for image, number in ids.images.items()}
    names = {number: name for name, number in ids.categories.items()}
    try:
        entries = json.loads(decode(read_bytes(path, "JSON")))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as COCO results ({error}); restore it") from None
    if not isinstance(entries, list):
        raise DataError(f"{path}: not COCO results (a list of detections); name the file that holds them")
    rows: list[tuple[Any, ...]] = []
    sure: list[float] = []
    strangers = set()
    for number, entry in enumerate(entries, 1):
        try:
            image_id, category_id = entry["image_id"], entry["category_id"]
            x, y, width, height, score = (float(value) for value in (*entry["bbox"], entry["score"]))
            confidence = float(entry.get("confidence", math.nan))
            known, name = image_id in images, names.get(category_id)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise DataError(
                f"{path}: entry {number} is not image_id, category_id, bbox [x, y, width, height], score; correct it"
            ) from None
        if not math.isfinite(score):
            raise DataError(f"{path}: entry {number} has a score that is not finite; correct it")
        if not all(map(math.isfinite, (x, y, width, height))):
            x = y = width = height = 0.0
        if not known:
            raise DataError(
                f"{path}: entry {number} is of image_id {image_id!r:.60}, which is not in the list of images; name the "
                "--data and --split that these results are of"
            )
        if name is None:
            strangers.add(f"{category_id!r:.60}")
            continue
        x2, y2 = x + max(width, 0) - 1, y + max(height, 0) - 1
        rows.append((images[image_id], name, score, x, y, x2, y2))
        sure.append(confidence)
    if strangers:
        warn(
            f"{path}: left out category_id {', '.join(sorted(strangers)[:5])}: not of classes of the data set"
        )
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame = frame.astype({"image": str, "class": str, **dict.fromkeys(_COLUMNS[2:], float)})
    if sure and all(0 <= confidence <= 1 for confidence in sure):
        frame.insert(3, "confidence", sure)
    return frame


def coco_ground_truth(
    ids: CocoIds,
    file_names: Mapping[str, str],
    annotations: Mapping[str, Annotation],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """What COCO's tools need beside the results: images, categories, and annotations, which may be empty.

    Difficult objects become crowds, the only objects that COCO does not count; a crowd's overlap is defined otherwise.

    Args:
        ids: hold all images and classes.
        file_names: of each image.
        annotations: of each image; labels are into `class_names`.
    """
    entries: list[dict[str, Any]] = []
    for image_id, found in annotations.items():
        for box, label, difficult in zip(found.boxes.tolist(), found.labels, found.difficult, strict=True):
            x1, y1, x2, y2 = box
            width, height = x2 - x1 + 1, y2 - y1 + 1
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": ids.images[image_id],
                    "category_id": ids.categories[class_names[label]],
                    "bbox": [x1, y1, width, height],
                    "area": width * height,
                    "iscrowd": int(difficult),
                }
            )
    images = [
        {
            "id": ids.images[image_id],
            "file_name": file_names[image_id],
            "width": found.size[1],
            "height": found.size[0],
        }
        for image_id, found in annotations.items()
    ]
    categories = [{"id": number, "name": name} for name, number in ids.categories.items()]
    return {"images": images, "annotations": entries, "categories": categories}


def _covers(given: Any, names: Mapping[str, int]) -> bool:
    return isinstance(given, dict) and all(isinstance(given.get(name), int) for name in names)
