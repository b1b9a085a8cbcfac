"""COCO exports: one JSON of images, annotations and categories, or one for each part."""

import json
import math
import mmap
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from sppnet_cli.console import track
from sppnet_cli.data.imports.files import Export, decode, role_of_folder, role_of_name
from sppnet_cli.data.imports.labelled import Edges, ExportedObject, Labelled, Reading
from sppnet_cli.data.imports.tally import Tally
from sppnet_cli.errors import DataError

_KEYS = ("images", "annotations", "categories")


def find_coco(export: Export) -> list[str]:
    """The COCO annotations of the export, the files `instances*` alone where there are such; or the file named."""
    found = [
        path
        for path in ([export.named] if export.named else export.with_suffix(".json"))
        if _mentions(export.root / path, *(f'"{key}"'.encode() for key in _KEYS))
    ]
    instances = [path for path in found if PurePosixPath(path).name.casefold().startswith("instances")]
    return instances or found


def find_coco_results(export: Export) -> str | None:
    """A JSON file of the export that holds detections in place of annotations, or None."""
    for path in [export.named] if export.named else export.with_suffix(".json"):
        if _mentions(export.root / path, b'"image_id"', b'"category_id"', b'"score"'):
            return path
    return None


def read_coco(export: Export, tally: Tally) -> Reading:
    """All images that the JSON files name.  A crowd becomes a difficult object, a segment without a box its box.

    The part of a JSON is that of its name or folder, else that of each image's folder.  Raises `DataError` for a
    JSON that is broken or has no lists of images and annotations.
    """
    paths = find_coco(export)
    images: dict[str, Labelled] = {}
    category_ids: dict[str, int] = {}
    for path in paths:
        _read_file(export, path, tally, images, category_ids)
    used = {item.name for image in images.values() for item in image.objects}
    unused = tuple(name for name in category_ids if name not in used)
    named = paths[0] if len(paths) == 1 else f"{len(paths)} files"
    return Reading(list(images.values()), f"COCO, {named}", category_ids, unused)


def _read_file(
    export: Export, path: str, tally: Tally, images: dict[str, Labelled], category_ids: dict[str, int]
) -> None:
    content = _load(export.root / path)
    names: dict[Any, str] = {}
    for category in _entries(content, "categories"):
        name, number = category.get("name"), category.get("id")
        if not isinstance(number, int):
            tally.leave_out("categories_unreadable", f"{path}: {json.dumps(category)[:80]}")
            continue
        names[number] = " ".join(str(name).split()) if name not in (None, "") else f"class_{number}"
        category_ids.setdefault(names[number], number)
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in _entries(content, "annotations"):
        annotations[_hashable(annotation.get("image_id"))].append(annotation)
    role = role_of_name(PurePosixPath(path).stem) or role_of_folder(path)
    for entry in track(_entries(content, "images"), f"read {PurePosixPath(path).name}"):
        number, name = _hashable(entry.get("id")), entry.get("file_name")
        own = annotations.pop(number, [])
        if number is None or not isinstance(name, str):
            tally.leave_out("images_unreadable", f"{path}: an entry without id or file_name")
            continue
        found = export.images.find(name, path)
        if len(found) != 1:
            kind = "images_ambiguous" if found else "images_missing"
            tally.leave_out(kind, f"{path} names {name[:200]}")
            continue
        if found[0] in images:
            tally.leave_out("annotations_repeated", f"{path}: {found[0]} is annotated twice")
            continue
        objects = [item for annotation in own if (item := _object(annotation, names, path, tally))]
        folder_role = role or role_of_folder(found[0])
        images[found[0]] = Labelled(
            found[0],
            tuple(objects),
            _frame(entry),
            frozenset({folder_role} if folder_role else ()),
            number if isinstance(number, int) else None,
        )
    for number, lost in annotations.items():
        for annotation in lost:
            name = names.get(_hashable(annotation.get("category_id")))
            tally.leave_out("objects_of_unknown_images", f"{path}: image_id {number}", name)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(decode(path.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as JSON ({reason}); export it again") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _KEYS):
        raise DataError(
            f"{path}: not COCO annotations (lists {', '.join(_KEYS)} at its top); export it again"
        )
    return content


def _mentions(path: Path, *words: bytes) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(word) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return [entry for entry in content[key] if isinstance(entry, dict)]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str) else None


def _frame(entry: dict[str, Any]) -> tuple[int, int]:
    sides = [entry.get(side) for side in ("width", "height")]
    width, height = (int(side) if isinstance(side, int | float) and 1 <= side < 1e6 else 0 for side in sides)
    return (width, height) if width and height else (0, 0)


def _object(
    annotation: dict[str, Any], names: dict[Any, str], path: str, tally: Tally
) -> ExportedObject | None:
    where = f"{path}: annotation {annotation.get('id')}"
    name = names.get(_hashable(annotation.get("category_id")))
    if name is None:
        tally.leave_out("objects_of_unknown_classes", f"{where} has category {annotation.get('category_id')}")
        return None
    edges = _edges(annotation)
    if edges is None:
        tally.leave_out("boxes_unreadable", where, name)
        return None
    crowd = annotation.get("iscrowd") in (1, True)
    if crowd:
        tally.mend("crowds_as_difficult", where, name)
    return ExportedObject(name, edges, difficult=crowd)


def _edges(annotation: dict[str, Any]) -> Edges | None:
    box, segments = annotation.get("bbox"), annotation.get("segmentation")
    try:
        if isinstance(box, list) and len(box) == 4:
            x, y, width, height = map(float, box)
            edges = (x, y, x + width, y + height)
        elif isinstance(segments, list) and segments:
            points = [float(number) for segment in segments for number in segment]
            xs, ys = points[::2], points[1::2]
            edges = (min(xs), min(ys), max(xs), max(ys))
        else:
            return None
    except (TypeError, ValueError, OverflowError):
        return None
    return edges if all(map(math.isfinite, edges)) else None
