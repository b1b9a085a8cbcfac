"""Drawing for the mini dataset: cluttered backgrounds, and objects placed on them.

Every function takes the random generator it draws from, so an image depends on its generator's seed alone.
Images here are uint8 BGR (H, W, 3), the order that OpenCV encodes.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sppnet_cli.data.mini_shapes import TEXTURES, Field, ObjectClass, object_alpha, texture

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pose:
    """Where an object stands: `centre` (x, y) and `side`, in pixels; `opacity` below 1 makes it faint.

    `aspect` is how much wider than high it is stretched, its area unchanged.
    """

    centre: tuple[float, float]
    side: float
    opacity: float = 1.0
    aspect: float = 1.0


def stream(seed: int, role: str, index: int = 0) -> np.random.Generator:
    """Random numbers of one image of a role: no image depends on how many others there are."""
    return np.random.default_rng([seed, *role.encode(), index])


def image_size(
    rng: np.random.Generator, short: tuple[int, int], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Height and width: the short side uniform in `short`, width / height log-uniform in `aspect`."""
    side, ratio = int(rng.integers(short[0], short[1] + 1)), float(np.exp(rng.uniform(*np.log(aspect))))
    return (side, round(side * ratio)) if ratio >= 1 else (round(side / ratio), side)


@cache
def _photographs() -> tuple[Image, ...]:
    """scikit-learn's two photographs, BGR, and blurred copies: what backgrounds are cropped from."""
    from sklearn.datasets import load_sample_images  # takes a second

    sharp = [np.ascontiguousarray(photo[:, :, ::-1]) for photo in load_sample_images().images]
    return tuple(sharp + [cv2.GaussianBlur(photo, (0, 0), 2.5) for photo in sharp])


def _colour(hue: float, saturation: float, value: float) -> Field:
    """BGR in 0..255 of a hue in degrees, saturation and value in [0, 1]."""
    channel = (np.array([1.0, 3.0, 5.0]) + hue / 60) % 6  # order B, G, R
    return (255 * value * (1 - saturation * np.clip(np.minimum(channel, 4 - channel), 0, 1))).astype(
        np.float32
    )


def draw_background(rng: np.random.Generator, height: int, width: int, plain: bool = False) -> Image:
    """A recoloured random crop of a photograph; in front of it, unless `plain`, lines and textured blobs."""
    photographs = _photographs()
    photo = photographs[rng.integers(2) + (2 if plain else 2 * rng.integers(2))]
    zoom = rng.uniform(0.35, 1.0) * min(photo.shape[0] / height, photo.shape[1] / width)
    crop_h, crop_w = int(zoom * height), int(zoom * width)
    top, left = rng.integers(photo.shape[0] - crop_h + 1), rng.integers(photo.shape[1] - crop_w + 1)
    crop = photo[top : top + crop_h, left : left + crop_w]
    image = cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        image = cv2.flip(image, 1)
    # Channels change places, colours fade towards grey, contrast towards a level.
    contrast = rng.uniform(0.15, 0.4) if plain else rng.uniform(0.5, 1.0)
    vivid, level = rng.uniform(0.2, 0.9), rng.uniform(70, 190)
    mixing = contrast * (vivid * np.eye(3)[rng.permutation(3)] + (1 - vivid) / 3)
    offset = np.full((3, 1), level * (1 - contrast))
    image = np.asarray(cv2.transform(image, np.hstack([mixing, offset])), np.uint8)
    if not plain:
        for _ in range(rng.integers(1, 5)):
            draw_line(rng, image)
        for _ in range(rng.integers(1, 5)):
            _draw_blob(rng, image)
    return image


def draw_line(rng: np.random.Generator, image: Image) -> None:
    """Draw a straight line of any colour, 1 to 4 pixels thick, onto `image`, in place."""
    height, width = image.shape[:2]
    ends = (rng.random((2, 2)) * (width, height)).astype(int)
    colour = rng.uniform(30, 220, 3)
    cv2.line(image, ends[0].tolist(), ends[1].tolist(), colour.tolist(), int(rng.integers(1, 5)), cv2.LINE_AA)


def _draw_blob(rng: np.random.Generator, image: Image) -> None:
    """A textured distractor of a shape that no class has, in any hue."""
    height, width = image.shape[:2]
    radius = rng.uniform(0.05, 0.16) * min(height, width)
    x, y = rng.random(2) * (width, height)
    corners = int(rng.integers(5, 10))
    angle = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    reach = radius * rng.uniform(0.45, 1.0, corners)
    points = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], 1)
    x1, y1 = np.clip(np.floor(points.min(0)), 0, (width - 1, height - 1)).astype(int)
    x2, y2 = np.clip(np.ceil(points.max(0)), 0, (width - 1, height - 1)).astype(int) + 1
    patch = image[y1:y2, x1:x2]
    shape = (int(y2 - y1), int(x2 - x1))
    alpha = np.zeros(shape, np.uint8)
    cv2.fillPoly(alpha, [np.round((points - (x1, y1)) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    u, v = _object_grid(np.array([[radius, 0, x - x1], [0, radius, y - y1]], np.float32), shape)
    pattern = texture(rng, TEXTURES[rng.integers(len(TEXTURES))], u, v)
    colours = _two_colours(rng, rng.uniform(0, 360), rng.uniform(0.05, 0.6))
    _blend(patch, (alpha / 255).astype(np.float32), _fill(pattern, colours), 1.0)


def _object_grid(affine: Field, shape: tuple[int, int]) -> tuple[Field, Field]:
    """Object coordinates u, v (float32, of `shape`) of every pixel under `affine` (object to pixels)."""
    (a, b), (c, d) = np.linalg.inv(affine[:, :2]).astype(np.float32)
    x = np.arange(shape[1], dtype=np.float32)[None] - affine[0, 2]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - affine[1, 2]
    return a * x + b * y, c * x + d * y


def _two_colours(rng: np.random.Generator, hue: float, saturation: float) -> tuple[Field, Field]:
    """The two colours of a texture around `hue`, one bright, one dark."""
    deeper = min(1.0, saturation * rng.uniform(0.8, 1.4))
    bright = _colour(hue, saturation, rng.uniform(0.75, 1.0))
    return bright, _colour(hue + rng.normal(0, 12), deeper, rng.uniform(0.3, 0.6))


def _fill(pattern: Field, colours: tuple[Field, Field]) -> Field:
    bright, dark = colours
    filled: Field = cv2.merge([dark[k] + pattern * (bright[k] - dark[k]) for k in range(3)])
    return filled


def _blend(patch: Image, alpha: Field, colours: Field, opacity: float) -> None:
    """Put float BGR `colours` over `patch`, in place, by coverage `alpha` times `opacity`."""
    over = patch + cv2.merge([alpha * np.float32(opacity)] * 3) * (colours - patch)
    patch[:] = np.clip(over, 0, 255)


def draw_object(
    rng: np.random.Generator, image: Image, kind: ObjectClass, pose: Pose, held_out: bool
) -> tuple[Mask, int]:
    """Draw one member of `kind` onto `image`, in place.

    Returns the pixels (H, W) it covers and its whole area in pixels, what lies outside the image included.
    """
    turn, shear = rng.uniform(-25, 25), rng.normal(0, 0.1)
    stretch = np.exp(rng.uniform(-0.25, 0.25) * np.array([0.5, -0.5]))
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(stretch)
    frame = np.sqrt([pose.aspect, 1 / pose.aspect])
    linear = np.diag(frame) @ linear
    half = int(np.ceil(0.85 * pose.side * frame.max()))
    x0, y0 = int(pose.centre[0]) - half, int(pose.centre[1]) - half
    offset = np.array([[pose.centre[0] - x0], [pose.centre[1] - y0]])
    affine = np.hstack([linear * pose.side / 2, offset]).astype(np.float32)
    alpha = object_alpha(rng, kind.name, affine, (2 * half, 2 * half), held_out)
    area = int((alpha > 0.5).sum())

    height, width = image.shape[:2]
    x1, y1, x2, y2 = max(x0, 0), max(y0, 0), min(x0 + 2 * half, width), min(y0 + 2 * half, height)
    covered: Mask = np.zeros((height, width), np.bool_)
    if x1 >= x2 or y1 >= y2:
        return covered, area
    alpha = alpha[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
    affine[:, 2] -= (x1 - x0, y1 - y0)
    patch = image[y1:y2, x1:x2]
    u, v = _object_grid(affine, (y2 - y1, x2 - x1))
    # A hue family with jitter; some members are nearly grey: hue alone must not decide.
    saturation = rng.uniform(0.1, 0.2) if rng.random() < 0.06 else rng.uniform(0.5, 0.95)
    bright, dark = _two_colours(rng, kind.hue + rng.normal(0, 10), saturation)
    if rng.random() < 0.25:  # camouflage: the darker part takes on the surroundings
        dark = patch.mean((0, 1), dtype=np.float32)
    colours = _fill(texture(rng, kind.texture, u, v), (bright, dark))
    light = np.float32(rng.uniform(-0.2, 0.2)) * u + np.float32(rng.uniform(-0.2, 0.2)) * v
    colours *= cv2.merge([np.float32(rng.uniform(0.75, 1.15)) + light] * 3)
    _blend(patch, alpha, colours, pose.opacity)
    covered[y1:y2, x1:x2] = alpha > 0.5
    return covered, area


def add_noise(rng: np.random.Generator, image: Image) -> Image:
    """`image` with grey sensor noise and a random exposure."""
    noise = np.float32(rng.uniform(1, 10)) * rng.standard_normal(image.shape[:2], np.float32)
    exposed = cv2.convertScaleAbs(image, alpha=rng.uniform(0.75, 1.2))
    return np.asarray(cv2.add(exposed, cv2.merge([noise] * 3), dtype=cv2.CV_8U), np.uint8)


def write_jpeg(path: Path, image: Image) -> None:
    """Write `image`, BGR, as a JPEG of quality 90."""
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
