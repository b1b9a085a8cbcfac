"""Detections drawn into their image (Figure 6)."""

import colorsys
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sppnet_cli.data.voc import Annotation
from sppnet_cli.detection.detector import Detection

Colour = tuple[int, int, int]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


class Rectangle(NamedTuple):
    """Pixels of a picture, inclusive."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Rectangle") -> bool:
        """Whether they share a pixel."""
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)


def class_colour(label: int, classes: int) -> Colour:
    """A different RGB colour for each class: hues around the circle, bright and dark in turn."""
    value = 0.6 if label % 2 else 1.0
    red, green, blue = colorsys.hsv_to_rgb(label / max(classes, 1), 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: NDArray[np.uint8],
    detections: Sequence[Detection],
    class_names: Sequence[str],
    *,
    weak: bool = False,
    truth: Annotation | None = None,
    zoom: float = 1.0,
) -> NDArray[np.uint8]:
    """An RGB image `(H, W, 3)` with the boxes of all detections, named.

    A label ends with the confidence in percent or, where there is none, the score.  With `weak` the boxes are dashed
    and the labels say so.
    The ground truth `truth` is drawn below them, dashed in black and white.  The picture is `zoom` times as large as
    the image; the size of the letters follows that of the picture.
    """
    picture = Image.fromarray(_resized(image, zoom))
    canvas = ImageDraw.Draw(picture)
    thickness = max(1, round(_side(picture.size) / 180))
    labels: list[tuple[Rectangle, str, Colour]] = []
    if truth is not None:
        for box, label, difficult in zip(truth.boxes, truth.labels, truth.difficult, strict=True):
            edges = _zoomed(box, zoom)
            _draw_dashed(canvas, edges, thickness, _BLACK, _WHITE)
            labels.append((edges, class_names[label] + " (difficult)" * bool(difficult), _WHITE))
    for detection in sorted(detections, key=lambda d: d.score):  # the best on top
        edges, colour = _zoomed(detection.box, zoom), class_colour(detection.label, len(class_names))
        if weak:
            _draw_dashed(canvas, edges, thickness, _WHITE, colour)
        else:
            canvas.rectangle(edges, outline=colour, width=thickness)
        sure = detection.confidence
        says = f"{detection.score:.2f}" if sure is None else f"{sure:.0%}"
        labels.append((edges, f"{class_names[detection.label]} {says}{', weak' * weak}", colour))
    _draw_labels(canvas, labels, picture.size)
    return np.array(picture)


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], width: int, gap: int = 12
) -> NDArray[np.uint8]:
    """RGB pictures `(h, w, 3)` in rows at most `width` pixels wide, each over its caption, on white."""
    font = _font(14)
    rows: list[list[int]] = [[]]
    for k, picture in enumerate(pictures):
        taken = sum(pictures[j].shape[1] + gap for j in rows[-1])
        if rows[-1] and gap + taken + picture.shape[1] + gap > width:
            rows.append([])
        rows[-1].append(k)
    below = 14 + 2 * gap  # caption and space
    heights = [max(pictures[k].shape[0] for k in row) + below for row in rows]
    widest = max(sum(pictures[k].shape[1] + gap for k in row) for row in rows)
    sheet = Image.new("RGB", (widest + gap, sum(heights) + gap), _WHITE)
    canvas = ImageDraw.Draw(sheet)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for k in row:
            sheet.paste(Image.fromarray(pictures[k]), (x, y))
            canvas.text((x, y + pictures[k].shape[0] + 4), captions[k], fill=_BLACK, font=font)
            x += pictures[k].shape[1] + gap
        y += height
    return np.array(sheet)


def _resized(image: NDArray[np.uint8], zoom: float) -> NDArray[np.uint8]:
    """A copy of an RGB image `(H, W, 3)` at `zoom` times its size."""
    if zoom == 1:
        return image.copy()
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)


def _side(size: tuple[int, int]) -> float:
    """Side of the square with the same area."""
    return math.sqrt(size[0] * size[1])


def _zoomed(box: Sequence[float] | NDArray[np.floating], zoom: float) -> Rectangle:
    return Rectangle(*(round((float(v) + 0.5) * zoom - 0.5) for v in box))


def _draw_dashed(
    canvas: ImageDraw.ImageDraw, edges: Rectangle, thickness: int, below: Colour, dashes: Colour
) -> None:
    canvas.rectangle(edges, outline=below, width=thickness)
    left, top, right, bottom = (int(v) for v in edges)
    dash, last = 6 * thickness, thickness - 1
    for x in range(left, right + 1, 2 * dash):
        end = min(x + dash, right)
        canvas.rectangle((x, top, end, top + last), fill=dashes)
        canvas.rectangle((x, bottom - last, end, bottom), fill=dashes)
    for y in range(top, bottom + 1, 2 * dash):
        end = min(y + dash, bottom)
        canvas.rectangle((left, y, left + last, end), fill=dashes)
        canvas.rectangle((right - last, y, right, end), fill=dashes)


def _font(letters: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: Pillow's own font has no letter beyond ASCII."""
    spec = find_spec("matplotlib")
    assert spec
    assert spec.origin
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", letters)


def _draw_labels(
    canvas: ImageDraw.ImageDraw, labels: Sequence[tuple[Rectangle, str, Colour]], size: tuple[int, int]
) -> None:
    """Write labels on rectangles of the boxes' colours; places are given to the last label first."""
    letters = max(11, round(_side(size) / 36))
    font = _font(letters)
    taken: list[Rectangle] = []
    for edges, text, colour in reversed(labels):
        width = round(canvas.textlength(text, font)) + letters // 2
        place = _free_place(width, round(1.3 * letters), edges, size, taken)
        taken.append(place)
        canvas.rectangle(place, fill=colour, outline=_BLACK)
        middle = ((place.left + place.right + 1) / 2, (place.top + place.bottom + 1) / 2)
        luminance = np.dot(colour, (0.299, 0.587, 0.114))
        canvas.text(middle, text, fill=_BLACK if luminance > 128 else _WHITE, font=font, anchor="mm")


def _free_place(
    width: int, height: int, box: Rectangle, size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """A place for the label of a box, inside the picture and clear of the labels in `taken`.

    The first that is free: above the box's top edge, inside the box, below it, further away; if none is free, above the
    top edge.
    """
    inside = [box.top, box.bottom - height] if box.bottom - box.top >= 3 * height else []
    tops = [box.top - height, *inside, box.bottom + 1]
    for k in range(1, 5):
        tops += [box.top - (k + 1) * height, box.bottom + 1 + k * height]
    places = []
    for top in tops:
        for left in (box.left, box.right - width):
            x = max(0, min(left, size[0] - width))
            y = max(0, min(top, size[1] - height))
            places.append(Rectangle(x, y, x + width - 1, y + height - 1))
    free = (place for place in places if not any(place.meets(other) for other in taken))
    return next(free, places[0])
