"""`sppnet data import`: an export of a labelling tool becomes a VOC set."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sppnet_cli import console
from sppnet_cli.atomic import write_json
from sppnet_cli.data.imports.coco import find_coco, find_coco_results, read_coco
from sppnet_cli.data.imports.files import Export, list_export, suffix_of
from sppnet_cli.data.imports.labelled import Labelled, Reading
from sppnet_cli.data.imports.naming import class_names, image_ids
from sppnet_cli.data.imports.pascal_voc import find_voc, read_voc
from sppnet_cli.data.imports.placing import PlacedObject, drawn_as_stored, look_at, place
from sppnet_cli.data.imports.splitting import hold_out
from sppnet_cli.data.imports.tally import Tally
from sppnet_cli.data.imports.voc_layout import ImportedImage, write_voc_set
from sppnet_cli.data.imports.yolo import find_yolo_labels, find_yolo_names, read_yolo
from sppnet_cli.errors import DataError, SppnetError, UsageError

Format = Literal["voc", "coco", "yolo"]
RECORD_FILE = "import.json"

FORMAT_NAMES: dict[Format, str] = {"voc": "Pascal VOC", "coco": "COCO", "yolo": "YOLO"}
_READERS: dict[Format, Callable[[Export, Tally], Reading]] = {
    "voc": read_voc,
    "coco": read_coco,
    "yolo": read_yolo,
}
_VAL_PART = 0.5  # of trainval, as in VOC 2007
_NO_FAULT = "classes_without_objects"  # said, but no reason for `strict` to refuse


@dataclass(frozen=True)
class Imported:
    """What was read, mended and left out.

    classes: objects by class.  splits: images of trainval and of test.  table: for each class its images and objects
    in trainval and in test, and how many of its objects were mended and left out.  examples: by kind.
    """

    format: Format
    source: str
    images: int
    objects: int
    classes: dict[str, int]
    splits: dict[str, int]
    mended: dict[str, int]
    left_out: dict[str, int]
    table: tuple[tuple[str, int, int, int, int, int, int], ...]
    examples: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        keys = ("format", "images", "objects", "classes", "splits", "mended", "left_out")
        return {key: getattr(self, key) for key in keys}


def recognise(path: Path) -> dict[Format, str]:
    """The formats of which a folder holds annotations, each with a file that shows it; empty where there are none.

    Raises `DataError` as `list_export`.
    """
    return _recognise(list_export(path, Tally()))


def import_export(
    path: Path, out: Path, *, test: float = 0.2, seed: int = 0, copy: bool = False, strict: bool = False
) -> Imported:
    """Make `out` a VOC set of what `path`, a folder or one annotation file in it, holds.

    The export's own split is kept: its test part, or else its validation part, is `test`, the rest `trainval`.
    Without one, `hold_out` draws the part `test` by `seed`.  `import.json` in `out` records the report, and for each
    image the file that it is of.  `out` appears complete or not at all; nothing is ever written elsewhere.

    Raises:
        UsageError: `out` is there already, or lies inside the export.
        DataError: nothing known, or several formats, in `path`; no image with an object; or, with `strict`, anything
            that would be mended or left out.
        SppnetError: `out` cannot be written.
    """
    tally = Tally()
    export = list_export(path, tally)
    _require_place(out, export)
    layout = _choose(export, _recognise(export))
    reading = _READERS[layout](export, tally)
    placed = _place_all(export, reading.images, tally)
    placed = _of_one_part(placed, tally)
    _count_unlabelled(export, layout, reading, tally)
    if not any(image.objects for _, image in placed):
        raise _nothing(export, layout, tally)
    images, records = _named(placed, tally)
    for name in reading.unused_classes:
        tally.leave_out(_NO_FAULT, name)
    _warn_of_case({item.name for image in images.values() for item in image.objects})
    splits = _split(images, records, test, seed, tally)
    report = _report(layout, reading, images, splits, tally)
    for name, _, learnt, *_ in report.table:
        if not learnt:
            console.warn(f"class {name} has no object in trainval: nothing to learn it from")
    faults = {kind: count for kind, count in (tally.mended + tally.left_out).items() if kind != _NO_FAULT}
    if strict and faults:
        kind, count = next(iter(faults.items()))
        more = f" and {len(faults) - 1} other kinds" if len(faults) > 1 else ""
        raise DataError(
            f"{export}: {count} {kind.replace('_', ' ')} ({tally.examples[kind]}){more}; correct the export, or "
            "import it without --strict"
        )
    record = report.as_dict() | {
        "export": str(path.absolute()),
        "test": test,
        "seed": seed,
        "sources": {image_id: record.image for image_id, record in records.items()},
    }
    if layout == "coco":
        ids = {image_id: record.image_id for image_id, record in records.items()}
        names = class_names(reading.category_ids)
        record["image_ids"] = ids
        record["category_ids"] = {names[name]: k for name, k in reading.category_ids.items()}
    _write(out, images, splits, copy, record)
    return report


def _recognise(export: Export) -> dict[Format, str]:
    if export.named and suffix_of(export.named) in (".yaml", ".yml", ".txt", ".names", ".labels"):
        return {"yolo": export.named}
    found: dict[Format, str | None] = {
        "voc": find_voc(export),
        "coco": next(iter(find_coco(export)), None),
        "yolo": None if export.named else find_yolo_labels(export),
    }
    if not any(found.values()):  # labelImg leaves a list of names beside its XML files too
        found["yolo"] = None if export.named else find_yolo_names(export)
    return {layout: file for layout, file in found.items() if file}


def _choose(export: Export, found: Mapping[Format, str]) -> Format:
    if len(found) == 1:
        return next(iter(found))
    if found:
        files = " and ".join(f"{FORMAT_NAMES[layout]} ({file})" for layout, file in found.items())
        raise DataError(f"{export}: holds {files}; name one of these files in place of the folder")
    results = find_coco_results(export)
    if results:
        raise DataError(
            f"{export.root / results}: holds detections, not annotations; give the export that they are of"
        )
    raise DataError(
        f"{export}: no labels found among {len(export.paths)} files; looked for Pascal VOC (.xml with <annotation>), "
        "COCO (.json with images, annotations and categories) and YOLO (data.yaml or classes.txt, a .txt for each image)"
    )


def _require_place(out: Path, export: Export) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out}: is there already; remove it or give another --out")
    inner, outer = out.resolve(), export.root.resolve()
    if inner.is_relative_to(outer):
        raise UsageError(f"{out}: lies in the export, {export.root}; give an --out outside it")
    if inner == Path.cwd().resolve():
        raise UsageError(f"{out}: is the current folder, which cannot be replaced; give --out a new name")


def _place_all(
    export: Export, labelled: list[Labelled], tally: Tally
) -> list[tuple[Labelled, ImportedImage]]:
    pairs = []
    for record in console.track(labelled, "look at images"):
        try:
            pairs.append((record, look_at(export.root / record.image)))
        except DataError as error:
            reason = str(error).removeprefix(f"{export.root / record.image}: ")
            tally.leave_out("images_unreadable", f"{record.image}: {reason}")
    as_stored = drawn_as_stored(pairs)
    placed = []
    for record, picture in pairs:
        objects = place(record, picture, as_stored, tally)
        if objects is not None:
            source = (export.root / record.image).absolute()
            placed.append((record, ImportedImage(source, picture.upright, objects)))
    return placed


def _of_one_part(
    placed: list[tuple[Labelled, ImportedImage]], tally: Tally
) -> list[tuple[Labelled, ImportedImage]]:
    """Without the images that no part lists, where the export has parts."""
    if not any(record.roles for record, _ in placed):
        return placed
    for record, _ in placed:
        if not record.roles:
            tally.leave_out("images_in_no_part", record.image)
    return [(record, image) for record, image in placed if record.roles]


def _count_unlabelled(export: Export, layout: Format, reading: Reading, tally: Tally) -> None:
    if layout != "yolo":
        named = {record.image for record in reading.images}
        for path in export.images.paths:
            if path not in named:
                tally.leave_out("images_without_annotation", path)


def _nothing(export: Export, layout: Format, tally: Tally) -> DataError:
    faults = [*tally.left_out.items(), *tally.mended.items()]
    why = [f"{count} {kind.replace('_', ' ')} ({tally.examples[kind]})" for kind, count in faults]
    reason = "; ".join(why[:2]) or "its images have no objects"
    return DataError(
        f"{export}: {FORMAT_NAMES[layout]} labels, but no image with an object: {reason}; give the folder that holds "
        "images and labels"
    )


def _named(
    placed: list[tuple[Labelled, ImportedImage]], tally: Tally
) -> tuple[dict[str, ImportedImage], dict[str, Labelled]]:
    """Images and records by id, sorted, with the classes' final names."""
    found = Counter(item.name for _, image in placed for item in image.objects)
    names = class_names(found)
    for name, new in names.items():
        if name != new:
            tally.mend("classes_renamed", f"{name!r} is now {new!r}")
    for side in (tally.mended_of, tally.left_out_of):
        for name in [name for name in side if names.get(name, name) != name]:
            side[names[name]] += side.pop(name)
    ids = image_ids(sorted(record.image for record, _ in placed))
    images, records = {}, {}
    for record, image in sorted(placed, key=lambda pair: ids[pair[0].image]):
        objects = tuple(
            PlacedObject(names[item.name], item.box, item.difficult, item.truncated) for item in image.objects
        )
        images[ids[record.image]] = ImportedImage(image.source, image.size, objects)
        records[ids[record.image]] = record
    return images, records


def _warn_of_case(names: set[str]) -> None:
    same: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        same[name.casefold()].append(name)
    for spellings in same.values():
        if len(spellings) > 1:
            console.warn(
                f"classes {' and '.join(spellings)} differ in case only and stay apart; name them alike in the export "
                "if they are one"
            )


def _split(
    images: dict[str, ImportedImage], records: dict[str, Labelled], test: float, seed: int, tally: Tally
) -> dict[str, list[str]]:
    """Ids of train, val, trainval and test."""
    of_role: dict[str, set[str]] = defaultdict(set)
    for image_id, record in records.items():
        for role in record.roles:
            of_role[role].add(image_id)
    train, val, both, held = (of_role[role] for role in ("train", "val", "trainval", "test"))
    learnt = train | val | both
    if not (held - learnt and learnt):
        train |= both - val  # no test part: that of validation takes its place
        held, val, learnt = val, set(), train
    if held - learnt and learnt:
        for image_id in sorted(held & learnt):
            tally.mend("images_in_two_parts", f"{records[image_id].image} stays in training")
        held = held - learnt
        if not any(images[image_id].objects for image_id in held):
            console.warn(f"none of the {len(held)} images of the export's test part has an object")
    else:
        learnt, val = set(images), set()
        held = _drawn(learnt, images, records, test, seed)
        learnt = learnt - held
    val = val - train
    if not val or val == learnt:
        val = _drawn(learnt, images, records, _VAL_PART, seed)
    parts = {"train": learnt - val, "val": val, "trainval": learnt, "test": held}
    return {name: sorted(ids) for name, ids in parts.items()}


def _drawn(
    ids: set[str],
    images: Mapping[str, ImportedImage],
    records: Mapping[str, Labelled],
    part: float,
    seed: int,
) -> set[str]:
    ordered = sorted(ids)
    classes = [frozenset(item.name for item in images[i].objects) for i in ordered]
    return {ordered[k] for k in hold_out([records[i].image for i in ordered], classes, part, seed)}


def _report(
    layout: Format,
    reading: Reading,
    images: Mapping[str, ImportedImage],
    splits: Mapping[str, list[str]],
    tally: Tally,
) -> Imported:
    objects: dict[str, Counter[str]] = {}
    holders: dict[str, Counter[str]] = {}
    for split in ("trainval", "test"):
        objects[split] = Counter(item.name for i in splits[split] for item in images[i].objects)
        holders[split] = Counter(
            name for i in splits[split] for name in {item.name for item in images[i].objects}
        )
    every = objects["trainval"] + objects["test"]
    table = tuple(
        (
            name,
            holders["trainval"][name],
            objects["trainval"][name],
            holders["test"][name],
            objects["test"][name],
            tally.mended_of[name],
            tally.left_out_of[name],
        )
        for name in sorted(every)
    )
    return Imported(
        layout,
        reading.source,
        len(images),
        every.total(),
        {name: every[name] for name in sorted(every)},
        {split: len(splits[split]) for split in ("trainval", "test")},
        dict(tally.mended),
        dict(tally.left_out),
        table,
        dict(tally.examples),
    )


def _write(
    out: Path,
    images: Mapping[str, ImportedImage],
    splits: Mapping[str, list[str]],
    copy: bool,
    record: dict[str, Any],
) -> None:
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_voc_set(partial, images, splits, copy)
        write_json(partial / RECORD_FILE, record)
        partial.replace(out)
    except OSError as error:
        raise SppnetError(
            f"{out}: cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_record(devkit: Path) -> dict[str, Any] | None:
    """The record of an imported set, from its folder or the VOC2007 in it; None for another folder.

    Raises `DataError` when it cannot be read.
    """
    for folder in (devkit, devkit.absolute().parent):
        path = folder / RECORD_FILE
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise DataError(f"{path}: cannot be read ({error}); import the export again") from None
            if isinstance(record, dict) and isinstance(record.get("sources"), dict):
                return record
    return None
