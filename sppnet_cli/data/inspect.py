"""What a folder holds: which data sets, how much of them, what is missing or broken, and what it is good for."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from sppnet_cli.console import track
from sppnet_cli.data.all_cores import on_all_cores
from sppnet_cli.data.caltech101 import CATEGORIES_FOLDER
from sppnet_cli.data.fetch import SOURCES
from sppnet_cli.data.images import IMAGE_SUFFIXES, image_files
from sppnet_cli.data.imports.files import holds_one_kind
from sppnet_cli.data.imports.importing import read_record, recognise
from sppnet_cli.data.voc import Annotation, VocDetection, image_labels, load_voc
from sppnet_cli.data.whole import faults, looks_whole
from sppnet_cli.errors import DataError
from sppnet_cli.files import is_hidden, links_to_nothing, visible

Layout = Literal["ImageNet", "VOC", "Caltech101"]

# Images by split: ILSVRC 2012, VOC 2007 (P section 3.2) and Caltech101 with its background category.
PUBLISHED: dict[Layout, dict[str, int]] = {
    "ImageNet": {"train": 1_281_167, "val": 50_000},
    "VOC": {"trainval": 5_011, "test": 4_952},
    "Caltech101": {"all": 9_144},
}
CALTECH_LEAST = 31  # images a category: 30 train (P section 3.3), one to test

_IMAGENET_TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
_UNFINISHED = frozenset({".aria2", ".crdownload", ".part"})
_DEPTH = 2  # folders down to which data sets are sought: DIR/VOCdevkit/VOC2007
_NAMED = 3  # classes or images that a message names


@dataclass(frozen=True)
class SplitCounts:
    """The images of one split: `per_class` are those of the smallest and of the largest class.

    published: the images of the published set; objects: annotated boxes.  None where there is no such thing.
    """

    name: str
    images: int
    published: int | None
    classes: int
    per_class: tuple[int, int]
    objects: int | None = None


@dataclass(frozen=True)
class DataSet:
    """One data set: `use` says what it is good for, `tables` which of the paper's that includes.

    root: its folder, as --data takes it; problems: what is missing or broken, a line each; mended: what is wrong and is
    mended as it is read, images by kind.
    """

    layout: Layout
    root: Path
    splits: tuple[SplitCounts, ...]
    tables: tuple[int, ...]
    use: str
    problems: tuple[str, ...]
    mended: dict[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether it has as many images as the published set."""
        return {split.name: split.images for split in self.splits} == PUBLISHED[self.layout]

    @property
    def own(self) -> bool:
        """Whether it is somebody's own set for detection, which no published one is compared with."""
        return self.layout == "VOC" and all(split.published is None for split in self.splits)


@dataclass(frozen=True)
class Report:
    """What `inspect_data` finds: data sets, and the problems of the folder itself, a line each."""

    mini: bool  # the embedded data
    data_sets: tuple[DataSet, ...]
    problems: tuple[str, ...]

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Those of the folder and those of its data sets."""
        return (*self.problems, *chain.from_iterable(found.problems for found in self.data_sets))


def inspect_data(root: Path, full: bool = False, strict: bool = False) -> Report:
    """Look through a data set, or a folder of several (down to DIR/VOCdevkit/VOC2007).

    Every annotation is read, and of every image the header and whether the file is cut off; with `full` every
    image is decoded; with `strict` what would be mended is a problem.  Raises `DataError` when there is no such folder and when it holds nothing known.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name one that holds a data set")
    found = _find(root, _DEPTH)
    exports = _exports(root, found)
    found = [(layout, folder) for layout, folder in found if not {folder, folder.parent} & exports.keys()]
    if not found and not exports and any(image_files(folder) for folder in _subfolders(root)):
        found = [("ImageNet", root)]
    looks: dict[Layout, Callable[[Path, bool], DataSet]] = {
        "ImageNet": _inspect_imagenet,
        "VOC": partial(_inspect_voc, strict=strict),
        "Caltech101": _inspect_caltech101,
    }
    problems = [
        f"{folder}: an export of a labelling tool ({label}); `sppnet data import {shlex.quote(str(folder))} --out mine` "
        "makes a data set of it"
        for folder, label in exports.items()
    ]
    problems += _unfinished(root, {layout for layout, _ in found})
    if not found and not problems:
        raise DataError(
            f"{root}: holds no train or val folder, no class folders of images, no VOC2007 and no "
            f"{CATEGORIES_FOLDER}; `sppnet data fetch voc2007` gets one"
        )
    return Report(
        mini=(root / "mini.json").is_file(),
        data_sets=tuple(looks[layout](folder, full) for layout, folder in found),
        problems=tuple(problems),
    )


def _find(folder: Path, depth: int) -> list[tuple[Layout, Path]]:
    if (folder / "ImageSets").is_dir():
        return [("VOC", folder)]
    if folder.absolute().name == CATEGORIES_FOLDER:
        return [("Caltech101", folder)]
    if (
        any((folder / split).is_dir() for split in ("train", "val"))
        or any((folder / tar).is_file() for tar in _IMAGENET_TARS.values())
        or any(folder.glob("ILSVRC2012_val_*.JPEG"))
    ):
        return [("ImageNet", folder)]
    inside = _subfolders(folder) if depth else []
    return list(chain.from_iterable(_find(subfolder, depth - 1) for subfolder in inside))


def _exports(root: Path, found: Sequence[tuple[Layout, Path]]) -> dict[Path, str]:
    """Folders of labelled images that are not read as they are, each with one of its labels' files.

    They look like ImageNet's (train and val, or images/train), or like nothing known.
    """
    folders = [root]
    if found:
        folders = [folder for layout, folder in found if layout == "ImageNet"]
        folders += [folder.parent for folder in folders if folder != root and holds_one_kind(folder)]
    return {folder: next(iter(labels.values())) for folder in folders if (labels := recognise(folder))}


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    return [folder / name for name in names]


def _unfinished(root: Path, layouts: set[Layout]) -> list[str]:
    """Downloads that lie right in a folder, cut off or not unpacked."""
    problems = []
    for path in (path for path in visible(root) if path.suffix in _UNFINISHED):
        problems.append(
            f"{path}: an unfinished download; repeat the command that made it, which continues it"
        )
    layout_of: dict[str, Layout] = {"voc2007": "VOC", "caltech101": "Caltech101"}
    for name, layout in layout_of.items():
        archives = [root / archive.name for archive in SOURCES[name].archives]
        if layout not in layouts:
            problems += [
                f"{path}: not unpacked; `sppnet data fetch {name} --out {root}` continues from it"
                for path in archives
                if path.is_file()
            ]
    return problems


def _inspect_imagenet(root: Path, full: bool) -> DataSet:
    """`root` holds train, val or both, or class folders itself."""
    problems = []
    splits = []
    classes: dict[str, set[str]] = {}
    folders = {name: root / name for name in ("train", "val") if (root / name).is_dir()}
    for name, tar in _IMAGENET_TARS.items():
        if name not in folders and (root / tar).is_file():
            problems.append(f"{root / tar}: not unpacked; `sppnet data fetch imagenet` says how")
    if not folders and not problems:
        name = root.absolute().name
        folders = {name if name in ("train", "val") else "images": root}
    for name, folder in folders.items():
        images, wrong = _class_folders(folder)
        problems += wrong
        classes[name] = set(images)
        if images:
            problems += _broken_images(images, full)
            splits.append(_split(name, images, PUBLISHED["ImageNet"].get(name)))
    if {"train", "val"} <= classes.keys() and classes["train"] and classes["val"]:
        problems += [
            f"{folders['val']}: {_names(others)} in {there} alone; give train and val the same class folders"
            for there, others in (
                ("train", classes["train"] - classes["val"]),
                ("val", classes["val"] - classes["train"]),
            )
            if others
        ]
    present = tuple(split.name for split in splits)
    use = {
        ("train", "val"): "Tables 1 and 2",
        ("train",): "pre-training without validation; Tables 1 and 2 need val too",
        ("val",): "evaluation of a trained network; Tables 1 and 2 need train too",
        ("images",): "pre-training or evaluation; Tables 1 and 2 need a train and a val folder",
    }.get(present, "nothing yet")
    tables = (1, 2) if len(present) == 2 else ()
    return DataSet("ImageNet", root, tuple(splits), tables, use, tuple(problems))


def _inspect_caltech101(root: Path, full: bool) -> DataSet:
    images, problems = _class_folders(root)
    problems += [
        f"{root / name}: {len(paths)} of the 31 images that Table 4 takes, 30 to train and one to test; restore or remove it"
        for name, paths in images.items()
        if 0 < len(paths) < CALTECH_LEAST
    ]
    problems += _broken_images(images, full)
    if not images:
        return DataSet("Caltech101", root, (), (), "nothing yet", tuple(problems))
    split = _split("all", images, PUBLISHED["Caltech101"]["all"])
    use = "Tables 4 and 5 (its column Caltech101)"
    return DataSet("Caltech101", root, (split,), (4, 5), use, tuple(problems))


def _inspect_voc(root: Path, full: bool, strict: bool) -> DataSet:
    lists = root / "ImageSets" / "Main"
    own = read_record(root) is not None or not any([*lists.glob("*_trainval.txt"), *lists.glob("*_test.txt")])
    problems = []
    mended: Counter[str] = Counter()
    splits = []
    ids: dict[str, set[str]] = {}
    for name, published in PUBLISHED["VOC"].items():
        try:
            dataset = load_voc(root, name, strict=strict)
        except DataError as error:
            if not own or name == "trainval" or (lists / f"{name}.txt").exists():
                problems.append(str(error))
            continue
        for class_name in () if own else dataset.class_names:
            try:
                image_labels(dataset, class_name)
            except DataError as error:
                problems.append(str(error))
        looks = on_all_cores(partial(_look_at_voc, dataset, full), dataset.ids, f"check {root.name} {name}")
        problems += chain.from_iterable(wrong for wrong, _ in looks)
        annotations = [annotation for _, annotation in looks if annotation is not None]
        counts = Counter(label for a in annotations for label in set(a.labels.tolist()))
        per_class = [counts[label] for label in range(len(dataset.class_names))]
        splits.append(
            SplitCounts(
                name,
                images=len(dataset),
                published=None if own else published,
                classes=len(dataset.class_names),
                per_class=(min(per_class), max(per_class)),
                objects=sum(len(a.labels) for a in annotations),
            )
        )
        ids[name] = set(dataset.ids)
        mended.update({kind: len(images) for kind, images in dataset.mended.items()})
    both = set.intersection(*ids.values()) if len(ids) == 2 else set()
    if both:
        problems.append(f"{root}: {_names(both)} in both trainval and test; keep training and test apart")
    use = {
        ("trainval", "test"): "Tables 3, 5 (its column VOC 2007) and 6 to 9",
        ("trainval",): "training; Tables 3 and 5 to 9 need test too",
        ("test",): "testing; Tables 3 and 5 to 9 need trainval too",
    }
    if own:
        use = {
            ("trainval", "test"): "training and testing detectors of its classes",
            (
                "trainval",
            ): "training detectors of its classes; without a test part nothing tells how good they are",
            ("test",): "testing detectors of its classes; training needs trainval too",
        }
    tables = (3, 5, 6, 7, 8, 9) if len(ids) == 2 and not own else ()
    return DataSet(
        "VOC", root, tuple(splits), tables, use.get(tuple(ids), "nothing yet"), tuple(problems), dict(mended)
    )


def _look_at_voc(dataset: VocDetection, full: bool, image_id: str) -> tuple[list[str], Annotation | None]:
    """What is wrong with an image and its annotation, and the annotation."""
    try:
        path = dataset.image_path(image_id)
    except DataError as error:  # strict
        return [str(error)], None
    try:
        annotation = dataset.annotation(image_id)
    except DataError as error:
        return [str(error), *faults(path, full)], None
    try:
        if full or not looks_whole(path, annotation.size):
            dataset.image(image_id)
    except DataError as error:
        return [str(error)], annotation
    return [], annotation


def _class_folders(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The images of every class folder, and what is wrong with the folders."""
    problems = []
    images = {}
    folders = _subfolders(root)
    tars = sum(path.suffix == ".tar" for path in root.iterdir())
    if tars:
        problems.append(f"{root}: {tars} archives not unpacked; `sppnet data fetch imagenet` says how")
    loose = len(image_files(root))
    if loose:
        problems.append(
            f"{root}: {loose} images outside class folders; remove them and unpack their archive as "
            "`sppnet data fetch imagenet` says"
        )
    lost = [link for link in links_to_nothing(root) if link.suffix.lower() not in IMAGE_SUFFIXES]
    problems += [f"{link}: links to {link.readlink()}, which is not there; restore it" for link in lost]
    if not folders and not problems:
        problems.append(f"{root}: holds no class folders; unpack or restore them")
    for folder in track(folders, f"list {root.name}"):
        try:
            images[folder.name] = image_files(folder)
        except OSError as error:
            problems.append(f"{folder}: cannot be read ({error.strerror}); allow it")
            continue
        if not images[folder.name]:
            problems.append(f"{folder}: class folder without images; fill or remove it")
    return images, problems


def _split(name: str, images: dict[str, list[Path]], published: int | None) -> SplitCounts:
    counts = [len(paths) for paths in images.values()]
    return SplitCounts(name, sum(counts), published, len(counts), (min(counts), max(counts)))


def _names(found: set[str]) -> str:
    """`cat, dog` or `a, b, c and 7 more`."""
    named = ", ".join(sorted(found)[:_NAMED])
    return named if len(found) <= _NAMED else f"{named} and {len(found) - _NAMED} more"


def _broken_images(images: dict[str, list[Path]], full: bool) -> list[str]:
    paths = list(chain.from_iterable(images.values()))
    found = on_all_cores(partial(faults, full=full), paths, "decode" if full else "check")
    return list(chain.from_iterable(found))
