"""Pascal VOC exports: an XML for each image, as labelImg, CVAT and Roboflow write it."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from sppnet_cli.console import track
from sppnet_cli.data.imports.files import Export, decode, listed_roles, role_of_folder
from sppnet_cli.data.imports.labelled import Edges, ExportedObject, Labelled, Reading
from sppnet_cli.data.imports.tally import Tally

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    corners: Edges  # as in the file
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class _Sheet:
    """One XML file."""

    path: str
    filename: str
    size: tuple[int, int]  # (width, height), (0, 0) where it does not say
    objects: list[_Object]


def find_voc(export: Export) -> str | None:
    """A VOC annotation of the export, or None."""
    for path in [export.named] if export.named else export.with_suffix(".xml"):
        if re.search(rb"<annotation[\s>]", _head(export.root / path)):
            return path
    return None


def read_voc(export: Export, tally: Tally) -> Reading:
    """All images that have an XML, beside them, in a folder of the same shape, or by its `<filename>`.

    Whether corners count from 1 or from 0 is read off the boxes at the images' borders (`_convention`).  Parts are
    those of the lists that name images, else of the folders.
    """
    paths = export.with_suffix(".xml")
    sheets = [sheet for path in track(paths, "read XML") if (sheet := _read_sheet(export, path, tally))]
    zero_based, last_outside = _convention(sheets)
    roles = listed_roles(export, export.with_suffix(".txt"))
    images: dict[str, Labelled] = {}
    for sheet in sheets:
        found = export.images.find(sheet.path, sheet.path)
        if len(found) != 1 and sheet.filename:
            found = export.images.find(sheet.filename, sheet.path)
        if len(found) != 1:
            kind = "images_ambiguous" if found else "images_missing"
            tally.leave_out(kind, f"{sheet.path} is about {sheet.filename or 'an image of that name'}")
            continue
        if found[0] in images:
            tally.leave_out("annotations_repeated", f"{sheet.path}: {found[0]} has another")
            continue
        objects = []
        for item in sheet.objects:
            x1, y1, x2, y2 = item.corners
            if x1 > x2 or y1 > y2:
                tally.mend("corners_swapped", sheet.path, item.name)
                x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
            if x1 == x2 or y1 == y2:
                tally.leave_out("boxes_empty", sheet.path, item.name)
                continue
            if zero_based:
                tally.mend("boxes_zero_based", sheet.path, item.name)
            first, last = (0 if zero_based else -1), (1 if zero_based and not last_outside else 0)
            edges = (x1 + first, y1 + first, x2 + last, y2 + last)
            objects.append(ExportedObject(item.name, edges, item.difficult, item.truncated))
        folder_role = role_of_folder(found[0]) or role_of_folder(sheet.path)
        own = frozenset(roles[found[0]] if roles else {folder_role} if folder_role else ())
        images[found[0]] = Labelled(found[0], tuple(objects), sheet.size, own)
    return Reading(list(images.values()), f"Pascal VOC, {len(paths)} XML files")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096).replace(b"\0", b"")  # as of UTF-16
    except OSError:
        return b""


def _read_sheet(export: Export, path: str, tally: Tally) -> _Sheet | None:
    try:
        root = _parse((export.root / path).read_bytes())
    except (OSError, ParseError, ValueError, LookupError, RecursionError, DefusedXmlException) as error:
        tally.leave_out("annotations_unreadable", f"{path}: {' '.join(str(error).split())}")
        return None
    if root.tag != "annotation":
        tally.leave_out("annotations_unreadable", f"{path}: its root is <{root.tag}>, not <annotation>")
        return None
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    size = (int(width), int(height)) if width >= 1 and height >= 1 else (0, 0)
    objects = []
    for item in root.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        corners = _corners(item)
        if not name:
            tally.leave_out("objects_without_class", path)
        elif corners is None:
            tally.leave_out("boxes_unreadable", path, name)
        else:
            objects.append(_Object(name, corners, _flag(item, "difficult"), _flag(item, "truncated")))
    return _Sheet(path, (root.findtext("filename") or "").strip(), size, objects)


def _parse(content: bytes) -> Element:
    try:
        root: Element = defusedxml.ElementTree.fromstring(content)
    except (ParseError, ValueError, LookupError):
        # Another encoding than it says, or one that the parser does not know, as GBK.
        declared = re.match(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>", content)
        text = decode(content)
        if declared:
            name = declared[1].decode("ascii")
            if name.casefold().replace("-", "") not in ("utf8", "utf16"):
                text = content.decode(name)
        root = defusedxml.ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    return root


def _corners(item: Element) -> Edges | None:
    """x1, y1, x2, y2 of `<bndbox>`, else around `<polygon>`."""
    if item.find("bndbox") is not None:
        corners = [_number(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS]
    else:
        around = item.findall("polygon/*") + item.findall("polygon/pt/*")
        xs = [_number(point.text) for point in around if re.fullmatch(r"x\d*", point.tag)]
        ys = [_number(point.text) for point in around if re.fullmatch(r"y\d*", point.tag)]
        if not xs or not ys:
            return None
        corners = [min(xs), min(ys), max(xs), max(ys)]
    x1, y1, x2, y2 = corners
    return (x1, y1, x2, y2) if all(map(math.isfinite, corners)) else None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _flag(item: Element, name: str) -> bool:
    return (item.findtext(name) or "").strip().casefold() in ("1", "true", "yes")


def _convention(sheets: Sequence[_Sheet]) -> tuple[bool, bool]:
    """Whether corners count from 0, and if so, whether the last corner is the pixel after the box's last.

    VOC counts from 1, CVAT writes the edges of boxes (0 to the width), others pixels from 0.  Boxes that end at the
    border of the image tell: more first corners are 1 than 0, or not; more last ones the width than one less, or not.
    Where no box does, fractions are edges and whole numbers VOC's.
    """
    first = [corner for item in _items(sheets) for corner in item.corners[:2]]
    ends = [
        side - corner
        for sheet in sheets
        for item in sheet.objects
        for corner, side in zip(item.corners[2:], sheet.size, strict=True)
        if side
    ]
    fractions = sum(any(corner % 1 for corner in item.corners) for item in _items(sheets))
    edges = 2 * fractions > sum(len(sheet.objects) for sheet in sheets)
    zeros, ones = first.count(0), first.count(1)
    if zeros == ones == 0:
        return edges, edges
    width, less = ends.count(0), ends.count(1)
    return zeros >= ones, edges if width == less == 0 else width >= less


def _items(sheets: Sequence[_Sheet]) -> Iterator[_Object]:
    for sheet in sheets:
        yield from sheet.objects
