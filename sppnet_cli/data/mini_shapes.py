"""The object classes of the mini dataset: their outlines, hue families and textures."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DRAWN = ("disk", "ring", "triangle", "star", "cross", "crescent", "arrow", "square", "heart", "hourglass")
_EXTRA = ("bolt", "gear", "house", "drop")
TEXTURES = ("stripes", "checker", "dots", "mottle", "bands")


@dataclass(frozen=True)
class ObjectClass:
    """What the members of a class share: outline or handwritten digit, hue (degrees) and texture."""

    name: str
    hue: float
    texture: str


def _object_class(index: int, name: str) -> ObjectClass:
    # Ten hue families and five textures: no two classes share both, none of the two alone tells the class.
    return ObjectClass(name, hue=36.0 * (3 * index % 10), texture=TEXTURES[(index + 2 * (index // 10)) % 5])


_ALL = tuple(_object_class(index, name) for index, name in enumerate(_DIGITS + _DRAWN + _EXTRA))
CLASSES = _ALL[:20]
"""The 20 classes of the ImageNet and VOC roles."""
EXTRA_CLASSES = _ALL[20:]
"""Classes that only the Caltech101 role has."""


def _circle(radius: float = 1.0, x: float = 0.0) -> Field:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def _crescent() -> Field:
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 40)
    inner = np.linspace(1.5 * np.pi, 0.5 * np.pi, 30)
    x = np.concatenate([np.cos(outer), 0.707 + 0.707 * np.cos(inner)])
    y = np.concatenate([np.sin(outer), 0.707 * np.sin(inner)])
    return np.stack([x, y], 1).astype(np.float32)


def _spikes(points: int, inner: float) -> Field:
    angle = np.pi * np.arange(2 * points) / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def _heart() -> Field:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -(y + 2.5) / 14.5], 1).astype(np.float32)


def _drop() -> Field:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], 1).astype(np.float32)


def _polygon(*points: tuple[float, float]) -> Field:
    return np.array(points, np.float32)


_CROSS = (
    *((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)),
    *((0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
)
_ARROW = ((-1, -0.3), (0.1, -0.3), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.3), (-1, 0.3))
_BOLT = ((0.3, -1), (-0.7, 0.15), (-0.1, 0.15), (-0.4, 1), (0.7, -0.25), (0.05, -0.25))

OUTLINES: dict[str, tuple[Field, ...]] = {
    "disk": (_circle(),),
    "ring": (_circle(), _circle(0.5)),
    "triangle": (_polygon((0, -1), (1, 0.9), (-1, 0.9)),),
    "star": (_spikes(5, 0.42),),
    "cross": (_polygon(*_CROSS),),
    "crescent": (_crescent(),),
    "arrow": (_polygon(*_ARROW),),
    "square": (_polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),),
    "heart": (_heart(),),
    "hourglass": (_polygon((-0.9, -1), (0.9, -1), (0.2, 0), (0.9, 1), (-0.9, 1), (-0.2, 0)),),
    "bolt": (_polygon(*_BOLT),),
    "gear": (_spikes(9, 0.7), _circle(0.3)),
    "house": (_polygon((0, -1), (1, -0.2), (0.75, -0.2), (0.75, 1), (-0.75, 1), (-0.75, -0.2), (-1, -0.2)),),
    "drop": (_drop(),),
}
"""Contours in [-1, 1] x [-1, 1], y downwards; the contours of one shape fill by the even-odd rule."""


@cache
def _digits() -> dict[str, tuple[Field, ...]]:
    """scikit-learn's 8x8 handwritten digits by class name, in [0, 1], a frame of zeros around the ink."""
    from sklearn.datasets import load_digits  # takes a second

    digits = load_digits()
    found: dict[str, list[Field]] = {name: [] for name in _DIGITS}
    for pixels, label in zip(digits.images, digits.target, strict=True):
        columns = np.flatnonzero(pixels.max(0) > 4)
        ink = np.pad(pixels[:, columns[0] : columns[-1] + 1] / 16, 1)
        found[_DIGITS[label]].append(ink.astype(np.float32))
    return {name: tuple(images) for name, images in found.items()}


@cache
def _handwriting(name: str, held_out: bool) -> tuple[Field, ...]:
    """The samples of a digit for test images, one in three, or those for training images."""
    return tuple(ink for number, ink in enumerate(_digits()[name]) if (number % 3 == 0) == held_out)


def object_alpha(
    rng: np.random.Generator, name: str, affine: Field, shape: tuple[int, int], held_out: bool
) -> Field:
    """Coverage in [0, 1], float32 of `shape`, of a randomly deformed object of class `name`.

    `affine` (2, 3) maps the object's [-1, 1] square to pixels; `held_out`: for a test image.
    """
    if name in OUTLINES:
        bend, phase = rng.uniform(0.02, 0.09), rng.uniform(0, 2 * np.pi, 2)
        alpha = np.zeros(shape, np.uint8)
        contours = []
        for points in OUTLINES[name]:
            bent = points + bend * np.sin(2.2 * points[:, ::-1] + phase)
            contours.append(np.round((bent @ affine[:, :2].T + affine[:, 2]) * 16).astype(np.int32))
        cv2.fillPoly(alpha, contours, 255, cv2.LINE_AA, shift=4)
        return (alpha / 255).astype(np.float32)
    samples = _handwriting(name, held_out)
    ink = samples[rng.integers(len(samples))]
    # The eight rows of ink fill the square's height; a narrow digit stays narrow.
    height, width = ink.shape
    cells = np.array([[4, 0, (width - 1) / 2], [0, 4, (height - 1) / 2], [0, 0, 1]], np.float64)
    to_pixels = np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(cells)
    smooth = cv2.warpAffine(ink, to_pixels[:2], shape[::-1], flags=cv2.INTER_CUBIC)
    pixels_per_cell = np.sqrt(abs(np.linalg.det(to_pixels[:2, :2])))
    level = rng.uniform(0.28, 0.45)
    return np.asarray(np.clip((smooth - level) * pixels_per_cell * 1.5 + 0.5, 0, 1), np.float32)


def texture(rng: np.random.Generator, kind: str, u: Field, v: Field) -> Field:
    """A pattern in [0, 1] over the object's coordinates `u`, `v` (float32, in [-1, 1] inside the object)."""
    angle, phase = rng.normal(0.6, 0.2), np.float32(rng.uniform(0, 2 * np.pi))
    frequency = np.float32(2 * np.pi / rng.uniform(0.4, 0.6))
    step_u, step_v = frequency * np.float32(np.cos(angle)), frequency * np.float32(np.sin(angle))
    wave: Field
    if kind == "stripes":
        wave = np.sin(step_u * u + step_v * v + phase)
    elif kind == "bands":
        wave = np.sin(frequency * np.sqrt(u * u + v * v) + phase)
    elif kind == "mottle":
        lumps = rng.normal(0, 0.9, (8, 8)).astype(np.float32)
        wave = np.asarray(cv2.resize(lumps, u.shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
    else:
        along, across = step_u * u + step_v * v + phase, step_u * v - step_v * u
        if kind == "checker":
            wave = np.float32(1.6) * np.sin(np.float32(0.8) * along) * np.sin(np.float32(0.8) * across)
        else:  # dots
            wave = np.cos(np.float32(1.2) * along) + np.cos(np.float32(1.2) * across) - np.float32(0.7)
    return np.asarray(np.clip(1.2 * wave + 0.5, 0, 1), np.float32)
