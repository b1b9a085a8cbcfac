"""PASCAL VOC detection sets: image lists, class names and annotations of a VOCdevkit folder."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from sppnet_cli.data.images import read_image
from sppnet_cli.errors import DataError

_LAYOUT = (
    "a devkit has VOC2007/ImageSets/Main, VOC2007/Annotations and VOC2007/JPEGImages; name it with --data"
)


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
    """One split of a VOC folder (`root`, the VOC2007 folder itself): ids in the order of the split's list."""

    root: Path
    split: str
    ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, image_id: str) -> Path:
        """Where the image lies: JPEGImages/<id>.jpg."""
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def annotation(self, image_id: str) -> Annotation:
        """The image's objects, read anew at each call.

        Raises `DataError` naming the file when it is missing or malformed, lacks a field, or has a box that
        is inverted or outside the image, or a class that is not among `class_names`.
        """
        return read_annotation(self.root / "Annotations" / f"{image_id}.xml", self.class_names)

    def image(self, image_id: str) -> np.ndarray:
        """The image as uint8 RGB (H, W, 3); `DataError` when its size is not the one in its annotation."""
        rgb = read_image(self.image_path(image_id))
        height, width = self.annotation(image_id).size
        if rgb.shape[:2] != (height, width):
            raise DataError(
                f"{self.image_path(image_id)}: {rgb.shape[1]}x{rgb.shape[0]} pixels, but its annotation says "
                f"{width}x{height}; restore the file that was annotated"
            )
        return rgb


def load_voc(data: Path, split: str, limit: int | None = None) -> VocDetection:
    """A split ("trainval", "test", ...) of a VOC set, or the first `limit` images of it.

    `data` is a devkit root (a folder holding exactly one VOC<year>) or the VOC<year> folder itself.  Class
    names are those of the per-class lists in ImageSets/Main, or of the annotations when there are no such
    lists; sorted, which for VOC is the devkit's order.  Raises `DataError` naming the folder or list that
    is missing, empty or malformed.
    """
    root = _voc_folder(data)
    split_list = root / "ImageSets" / "Main" / f"{split}.txt"
    if not split_list.is_file():
        known = ", ".join(_lists(root)[0]) or "none"
        raise DataError(f"{split_list}: no such split list; splits found here: {known}")
    ids = tuple(line[0] for line in _read_list(split_list))
    if not ids:
        raise DataError(f"{split_list}: lists no image; restore the split list")
    repeated = len(ids) - len(set(ids))
    if repeated:
        raise DataError(f"{split_list}: {repeated} ids are listed twice; remove the repetitions")
    return VocDetection(root, split, ids[:limit], _class_names(root))


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
        if len(line) != 2 or line[1] not in ("-1", "0", "1"):
            raise DataError(f"{class_list}: {' '.join(line)!r} is not an id and -1, 0 or 1; restore the list")
        labels[line[0]] = int(line[1])
    for image_id in dataset.ids:
        if image_id not in labels:
            raise DataError(f"{class_list}: lacks image {image_id} of the {dataset.split} list; restore it")
    return dataset.ids, np.array([labels[image_id] for image_id in dataset.ids], dtype=np.int64)


def read_annotation(path: Path, class_names: tuple[str, ...]) -> Annotation:
    """A VOC XML file as an `Annotation`; its 1-based boxes become 0-based.  Raises as `annotation`."""
    root = _parse(path)
    height, width = (int(_number(root, f"size/{side}", path)) for side in ("height", "width"))
    boxes, labels, difficult = [], [], []
    for item in root.iterfind("object"):
        name = _text(item, "name", path)
        if name not in class_names:
            raise DataError(f"{path}: unknown class {name!r}; the set's classes are {', '.join(class_names)}")
        corners = ("xmin", "ymin", "xmax", "ymax")
        x1, y1, x2, y2 = (_number(item, f"bndbox/{corner}", path) - 1 for corner in corners)
        if x1 > x2 or y1 > y2:
            raise DataError(f"{path}: inverted box of a {name}, xmin > xmax or ymin > ymax; correct it")
        if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height:
            raise DataError(f"{path}: box of a {name} reaches outside the {width}x{height} image; correct it")
        boxes.append((x1, y1, x2, y2))
        labels.append(class_names.index(name))
        difficult.append(_number(item, "difficult", path) == 1)
    return Annotation(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=bool),
        size=(height, width),
    )


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
    for path in sorted((root / "ImageSets" / "Main").glob("*.txt")):
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
        for path in (root / "Annotations").glob("*.xml"):
            names.update(_text(item, "name", path) for item in _parse(path).iterfind("object"))
    if not names:
        raise DataError(f"{root}: no per-class lists and no annotated object, so no classes; {_LAYOUT}")
    return tuple(sorted(names))


def _read_list(path: Path) -> list[list[str]]:
    """The non-blank lines of a list, split into words."""
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of images ({error}); restore it") from None


def _parse(path: Path) -> Element:
    try:
        root: Element | None = defusedxml.ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file; restore it or take its id off the list") from None
    except (OSError, ParseError, ValueError, DefusedXmlException) as error:
        raise DataError(f"{path}: not readable as XML ({error}); restore the annotation") from None
    if root is None or root.tag != "annotation":
        raise DataError(f"{path}: not a VOC annotation (no <annotation> at its root); restore it")
    return root


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
