"""From the boxes of an export to whole pixels of the upright picture."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from sppnet_cli.data.images import read_image
from sppnet_cli.data.imports.labelled import Edges, Labelled
from sppnet_cli.data.imports.tally import Tally

_SAME_SHAPE = 0.01  # relative difference of two aspect ratios


@dataclass(frozen=True)
class Picture:
    """The size of a picture: (width, height) as stored, and the EXIF orientation, 1 where there is none."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of what `read_image` returns."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


@dataclass(frozen=True)
class PlacedObject:
    """An object of a VOC set.  box: x1, y1, x2, y2 in 0-based inclusive pixels of the upright picture."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool
    truncated: bool


def look_at(path: Path) -> Picture:
    """A picture's size and orientation from its header; it is decoded only where its end or its EXIF looks odd.

    Raises `DataError` as `read_image` does.
    """
    with suppress(Exception), path.open("rb") as file, Image.open(file) as image:
        if image.mode not in ("I", "F") and _ends(path, image):
            # Of a PNG, `getexif` decodes the picture in search of a block behind it.
            late = image.format == "PNG" and "exif" not in image.info and b"eXIf" in path.read_bytes()
            exif = image.getexif() if late or image.format != "PNG" else Image.Image.getexif(image)
            orientation = exif.get(ExifTags.Base.Orientation, 1)
            orientation = orientation if orientation in range(1, 9) else 1
            # Pillow opens a TIFF with its upright size.
            swapped = image.format == "TIFF" and orientation >= 5
            return Picture(image.size[::-1] if swapped else image.size, orientation)
    height, width = read_image(path).shape[:2]
    with suppress(Exception), Image.open(path) as image:
        picture = Picture(image.size, image.getexif().get(ExifTags.Base.Orientation, 1))
        if picture.upright == (width, height):
            return picture
    return Picture((width, height), 1)


def _ends(path: Path, image: Image.Image) -> bool:
    """Whether a JPEG ends as JPEGs do; one that does not may still be sound."""
    if image.format != "JPEG":
        return True
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read().rstrip(b"\0").endswith(b"\xff\xd9")


def drawn_as_stored(pairs: Iterable[tuple[Labelled, Picture]]) -> bool:
    """Whether the labelling tool showed photographs as they are stored and not upright.

    Those tell that EXIF turns by a quarter and whose annotation gives the picture's size.
    """
    votes = 0
    for labelled, picture in pairs:
        if labelled.frame is not None and picture.stored != picture.upright:
            votes += (labelled.frame == picture.stored) - (labelled.frame == picture.upright)
    return votes > 0


def place(
    labelled: Labelled, picture: Picture, as_stored: bool, tally: Tally
) -> tuple[PlacedObject, ...] | None:
    """The objects of an image, clipped to it; None for a picture of another shape than the one that was annotated.

    Boxes go to the nearest whole pixels.  What was wrong is counted in `tally`.
    """
    edges = [item.edges for item in labelled.objects]
    width, height = picture.upright
    frame = labelled.frame
    if frame == (0, 0):
        tally.mend("sizes_filled", labelled.image)
        frame = picture.stored if as_stored else picture.upright
    if frame is None:
        edges = [_scaled(box, width, height) for box in edges]
    elif frame == picture.stored and (as_stored or picture.stored != picture.upright):
        if picture.orientation > 1:
            tally.mend("exif_rotated", labelled.image)
        edges = [turned(box, picture) for box in edges]
    elif frame != picture.upright:
        across, down = width / frame[0], height / frame[1]
        if not math.isclose(across, down, rel_tol=_SAME_SHAPE):
            tally.leave_out(
                "images_of_another_size",
                f"{labelled.image}: {width}x{height}, but annotated at {frame[0]}x{frame[1]}",
            )
            return None
        tally.mend("images_of_another_scale", labelled.image)
        edges = [_scaled(box, across, down) for box in edges]
    placed = []
    for item, (left, top, right, bottom) in zip(labelled.objects, edges, strict=True):
        if left >= right or top >= bottom:
            tally.leave_out("boxes_empty", labelled.image, item.name)
        elif right <= 0 or bottom <= 0 or left >= width or top >= height:
            tally.leave_out("boxes_outside", labelled.image, item.name)
        else:
            box = _pixels(left, top, right, bottom)
            clipped = _pixels(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
            if clipped != box:
                tally.mend("boxes_clipped", labelled.image, item.name)
            placed.append(PlacedObject(item.name, clipped, item.difficult, item.truncated))
    return tuple(placed)


def turned(edges: Edges, picture: Picture) -> Edges:
    """Edges in the stored picture -> in the upright one, as `ImageOps.exif_transpose` turns it."""
    left, top, right, bottom = edges
    width, height = picture.stored
    if picture.orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if picture.orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if picture.orientation >= 5 else (left, top, right, bottom)


def _scaled(edges: Edges, across: float, down: float) -> Edges:
    left, top, right, bottom = edges
    return left * across, top * down, right * across, bottom * down


def _pixels(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    """The nearest inclusive pixels, one at least each way."""
    x1 = min(math.floor(left + 0.5), math.ceil(right) - 1)
    y1 = min(math.floor(top + 0.5), math.ceil(bottom) - 1)
    return x1, y1, max(x1, math.floor(right - 0.5)), max(y1, math.floor(bottom - 0.5))
