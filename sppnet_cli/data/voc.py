"""PASCAL VOC detection sets: image lists, class names and annotations of a VOCdevkit folder."""

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from sppnet_cli.console import tally
from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.data.images import IMAGE_SUFFIXES, image_size, read_image
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.files import decode, read_bytes, read_text, safe_id, visible

CLIPPED = "a box reaches a pixel over the edge; it is clipped"
UNSIZED = "the annotation gives no size; the image's own is taken"
RENAMED = "the image is no .jpg file; it is taken under its other suffix"
SUFFIXED = "the list names the image's file; its id is taken"
UNTURNED = "annotated before the EXIF rotation of the image; it is taken without"

_LAYOUT = (
    "a devkit has VOC2007/ImageSets/Main, VOC2007/Annotations and VOC2007/JPEGImages; name it with --data"
)
_OTHER_SUFFIXES = (
    ".JPG", ".jpeg", ".JPEG", ".png", ".PNG",
    *(case for suffix in sorted(IMAGE_SUFFIXES - {".jpg", ".jpeg", ".png"}) for case in (suffix, suffix.upper())),
)  # fmt: skip
_ENCODING = re.compile(
    rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]{1,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']"""
)
_LARGEST = 2**24  # pixels of a side: what float32 boxes count


@dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of one image.

    boxes: (N, 4) float32, 0-based inclusive; labels: (N,) int64 into the class names; difficult: (N,) bool;
    size: (height, width) of the image in pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class VocDetection:
    """One split of a VOC folder (`root`, the VOC2007 folder itself): ids in the order of the split's list.

    Faults that are clear are mended as images and annotations are read (`CLIPPED`, `UNSIZED`, `RENAMED`, `SUFFIXED`,
    `UNTURNED`); `mended` holds the ids by kind, and the command line says them at its end.  With `strict` they are refused.
    """

    root: Path
    split: str
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    strict: bool = False
    mended: dict[str, set[str]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, image_id: str) -> Path:
        """Where the image lies: JPEGImages/<id>.jpg, or of another suffix where there is no such file."""
        folder = self.root / "JPEGImages"
        expected = folder / f"{image_id}.jpg"
        if os.path.lexists(expected):
            return expected
        for suffix in _OTHER_SUFFIXES:
            if (path := folder / f"{image_id}{suffix}").is_file():
                self._mend(RENAMED, image_id, path)
                return path
        return expected

    def annotation(self, image_id: str) -> Annotation:
        """The image's objects, read anew at each call; boxes that reach a pixel over the edge are clipped.

        Where the file gives no size, or 0x0, it is that of the image.  Raises `DataError` naming the file when it is
        missing or malformed, lacks a field, or has a box that is inverted or further outside the image, or a class
        that is not among `class_names`.
        """
        path = self.root / "Annotations" / f"{image_id}.xml"
        root = _parse(path)
        size = _size(root, path)
        if size is None:
            size = image_size(self.image_path(image_id))
            self._mend(UNSIZED, image_id, path)
        annotation, clipped = _objects(root, size, self.class_names, path)
        if clipped:
            self._mend(CLIPPED, image_id, path)
        return annotation

    def marks(self, image_id: str, mark: str) -> list[bool]:
        """Whether objects of the image bear a mark, such as `truncated`; of those whose annotation tells."""
        path = self.root / "Annotations" / f"{image_id}.xml"
        told = [_mark(item, mark) for item in _parse(path).iterfind("object")]
        return [marked for marked in told if marked is not None]

    def image(self, image_id: str) -> np.ndarray:
        """The image as uint8 RGB (H, W, 3), of the size in its annotation where it has one; else `DataError`.

        It is upright, unless it was annotated as its file stores it, before its EXIF rotation.
        """
        path = self.image_path(image_id)
        rgb = read_image(path)
        if not (self.root / "Annotations" / f"{image_id}.xml").exists():
            return rgb
        height, width = self.annotation(image_id).size
        if rgb.shape[:2] == (width, height) != (height, width):
            stored = read_image(path, upright=False)
            if stored.shape[:2] == (height, width):
                self._mend(UNTURNED, image_id, path)
                return stored
        if rgb.shape[:2] != (height, width):
            raise DataError(
                f"{path}: {rgb.shape[1]}x{rgb.shape[0]} pixels, but its annotation says {width}x{height}; restore the "
                "file that was annotated"
            )
        return rgb

    def _mend(self, kind: str, image_id: str, path: Path) -> None:
        if self.strict:
            raise DataError(f"{path}: {kind.partition(';')[0]}; correct it, or leave out --strict")
        self.mended.setdefault(kind, set()).add(image_id)
        tally(str(self.root), kind, image_id)


def load_voc(
    data: Path, split: str, limit: int | None = None, *, strict: bool = False, lists: Path | None = None
) -> VocDetection:
    """A split ("trainval", "test", ...) of a VOC set, or the first `limit` images of it.

    `data` is a devkit root (a folder holding exactly one VOC<year>) or the VOC<year> folder itself.  Class
    names are those of the per-class lists in ImageSets/Main, or of the annotations when there are no such
    lists; sorted, which for VOC is the devkit's order.  With `strict` nothing is mended (see `VocDetection`).
    `lists` is a folder that holds the split's list in place of ImageSets/Main.
    Raises `DataError` naming the folder or list that is missing, empty or malformed, or an id that cannot name a file
    of the set; `UsageError` for a split that cannot.
    """
    root = _voc_folder(data)
    try:
        safe_id(split, root)
    except DataError:
        raise UsageError(f"--split {split!a:.60}: a split is named as its list in ImageSets/Main") from None
    split_list = (lists or root / "ImageSets" / "Main") / f"{split}.txt"
    if not split_list.is_file():
        known = ", ".join(_lists(root)[0]) or "none"
        raise DataError(f"{split_list}: no such split list; splits found here: {known}")
    listed = [safe_id(line[0], split_list) for line in _read_list(split_list)]
    ids = tuple(_id(name, root) for name in listed)
    if not ids:
        raise DataError(f"{split_list}: lists no image; restore the split list")
    repeated = len(ids) - len(set(ids))
    if repeated:
        raise DataError(f"{split_list}: {repeated} ids are listed twice; remove the repetitions")
    dataset = VocDetection(root, split, ids[:limit], _class_names(root), strict)
    for image_id, name in zip(dataset.ids, listed, strict=False):
        if image_id != name:
            dataset._mend(SUFFIXED, image_id, split_list)
    return dataset


def has_splits(data: Path, *splits: str) -> bool:
    """Whether a folder is a VOC set, as `load_voc` takes it, that has lists of these splits."""
    try:
        root = _voc_folder(data)
    except DataError:
        return False
    return all((root / "ImageSets" / "Main" / f"{split}.txt").is_file() for split in splits)


def image_labels(dataset: VocDetection, class_name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The dataset's ids and, for each, whether the class is in the image: (N,) int64.

    1: yes; -1: no; 0: by difficult objects only.  From ImageSets/Main/<class>_<split>.txt.  Raises
    `DataError` when that list is missing, malformed or lacks one of the ids.
    """
    class_list = dataset.root / "ImageSets" / "Main" / f"{class_name}_{dataset.split}.txt"
    if not class_list.is_file():
        raise DataError(f"{class_list}: no such per-class list; restore it from the devkit")
    labels = {}
    for line in _read_list(class_list):
        if len(line) != 2 or line[1] not in ("-1", "0", "1", "+1"):
            raise DataError(
                f"{class_list}: {' '.join(line)[:60]!a} is not an id and -1, 0 or 1; restore the list"
            )
        labels[_id(line[0], dataset.root)] = int(line[1])
    for image_id in dataset.ids:
        if image_id not in labels:
            raise DataError(f"{class_list}: lacks image {image_id} of the {dataset.split} list; restore it")
    return dataset.ids, np.array([labels[image_id] for image_id in dataset.ids], dtype=np.int64)


def _voc_folder(data: Path) -> Path:
    if not data.is_dir():
        raise DataError(f"{data}: no such folder; {_LAYOUT}")
    if (data / "ImageSets").is_dir():
        return data
    years = sorted(entry for entry in data.glob("VOC[0-9]*") if (entry / "ImageSets").is_dir())
    if not years:
        raise DataError(f"{data}: not a VOC devkit; {_LAYOUT}")
    if len(years) > 1:
        names = ", ".join(year.name for year in years)
        raise DataError(f"{data}: holds {names}; name one of these folders with --data")
    return years[0]


def _lists(root: Path) -> tuple[list[str], list[str]]:
    """Names of the lists in ImageSets/Main: of splits (an id a line), of classes (an id and a label a line)."""
    splits: list[str] = []
    classes: list[str] = []
    for path in visible(root / "ImageSets" / "Main", "*.txt"):
        lines = _read_list(path)
        (classes if lines and len(lines[0]) > 1 else splits).append(path.stem)
    return splits, classes


def _class_names(root: Path) -> tuple[str, ...]:
    splits, class_lists = _lists(root)
    names = set()
    for class_list in class_lists:
        endings = [f"_{split}" for split in splits if class_list.endswith(f"_{split}")]
        if endings:
            names.add(class_list.removesuffix(max(endings, key=len)))
    if not names:
        for path in visible(root / "Annotations", "*.xml"):
            names.update(_text(item, "name", path) for item in _parse(path).iterfind("object"))
    if not names:
        raise DataError(f"{root}: no per-class lists and no annotated object, so no classes; {_LAYOUT}")
    return tuple(sorted(names))


def _read_list(path: Path) -> list[list[str]]:
    """The non-blank lines of a list, split into words."""
    return [line.split() for line in read_text(path, "list").splitlines() if line.strip()]


def _id(name: str, root: Path) -> str:
    """The id that a line of a list means: it may name the image's file, such as `000001.jpg`."""
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() not in IMAGE_SUFFIXES:
        return name
    annotations, images = root / "Annotations", root / "JPEGImages"
    is_id = (annotations / f"{name}.xml").exists() or (images / f"{name}.jpg").exists()
    is_file = (annotations / f"{stem}.xml").exists() or (images / name).exists()
    return stem if is_file and not is_id else name


def _parse(path: Path) -> Element:
    from defusedxml.ElementTree import fromstring  # here, so that what reads no annotation runs without it

    content = read_bytes(path, "annotation", "restore it or take its id off the list")
    try:
        root: Element = fromstring(_xml_text(content).strip())
    except (ParseError, ValueError, LookupError, RecursionError) as error:  # its own errors are ValueErrors
        raise DataError(f"{path}: not readable as XML ({error}); restore the annotation") from None
    if root.tag != "annotation":
        raise DataError(f"{path}: not a VOC annotation (no <annotation> at its root); restore it")
    return root


def _xml_text(content: bytes) -> str:
    """The text of an XML file in any encoding that it names and Python knows; the parser knows few.

    Where it names none and is not UTF-8 either, the wrong bytes become U+FFFD: annotation tools copy paths of their
    machine into the file.
    """
    declared = _ENCODING.match(content)
    if declared is None or declared[1].lower().startswith(
        (b"utf-16", b"utf-32", b"ucs")
    ):  # which it cannot be
        try:
            return decode(content)
        except UnicodeDecodeError:
            return content.decode(errors="replace")
    return decode(content, declared[1].decode("ascii"))


def _size(root: Element, path: Path) -> tuple[int, int] | None:
    """(height, width) of the image; None where the file gives none, or 0."""
    sides = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if not all(side and side.strip() for side in sides):
        return None
    height, width = (int(_number(root, f"size/{side}", path)) for side in ("height", "width"))
    if min(height, width) < 0 or max(height, width) > _LARGEST:
        raise DataError(f"{path}: <size> is {width}x{height} pixels; correct it")
    return (height, width) if height and width else None


def _objects(
    root: Element, size: tuple[int, int], class_names: tuple[str, ...], path: Path
) -> tuple[Annotation, bool]:
    """The objects of an annotation, their 1-based boxes now 0-based; and whether a box had to be clipped."""
    height, width = size
    boxes, labels, difficult = [], [], []
    for item in root.iterfind("object"):
        name = _text(item, "name", path)
        if name not in class_names:
            raise DataError(
                f"{path}: unknown class {name[:60]!r}; the set's classes are {', '.join(class_names)}"
            )
        corners = ("xmin", "ymin", "xmax", "ymax")
        x1, y1, x2, y2 = (_number(item, f"bndbox/{corner}", path) - 1 for corner in corners)
        if x1 > x2 or y1 > y2:
            raise DataError(f"{path}: inverted box of a {name}, xmin > xmax or ymin > ymax; correct it")
        if x1 < -1 or y1 < -1 or x2 > width or y2 > height:
            raise DataError(f"{path}: box of a {name} reaches outside the {width}x{height} image; correct it")
        boxes.append((x1, y1, x2, y2))
        labels.append(class_names.index(name))
        difficult.append(bool(_mark(item, "difficult")))
    given = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    annotation = Annotation(
        boxes=clip_boxes(given, size),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=bool),
        size=size,
    )
    return annotation, not np.array_equal(given, annotation.boxes)


def _mark(item: Element, mark: str) -> bool | None:
    """Whether a mark is 1; None where it is absent or empty.  Another word is 0, as in the devkit's `VOCreadrecxml`."""
    text = item.findtext(mark)
    if not text:
        return None
    try:
        return float(text) == 1
    except ValueError:
        return False


def _text(parent: Element, field: str, path: Path) -> str:
    found = parent.findtext(field)
    if found is None or not found.strip():
        raise DataError(
            f"{path}: <{parent.tag}> has no <{field.replace('/', '><')}>; complete the annotation"
        )
    return found.strip()


def _number(parent: Element, field: str, path: Path) -> float:
    text = _text(parent, field, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}: <{field.replace('/', '><')}> is {text!r}, not a number; correct it")
    return number
