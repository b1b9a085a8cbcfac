"""mini, the embedded default dataset: an ImageNet, a VOC 2007 and a Caltech101 folder, drawn from a seed.

The same seed and size give the same bytes on every run (of one OpenCV and NumPy).  Training and test images
of the first two share no handwriting.  `mini_shapes` has the classes, `mini_drawing` the pictures and
`mini_voc` the scenes of many objects.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sppnet_cli.atomic import write_json
from sppnet_cli.console import track
from sppnet_cli.data.all_cores import on_all_cores
from sppnet_cli.data.mini_drawing import (
    Image,
    Pose,
    add_noise,
    draw_background,
    draw_object,
    image_size,
    stream,
    write_jpeg,
)
from sppnet_cli.data.mini_shapes import CLASSES, EXTRA_CLASSES, ObjectClass
from sppnet_cli.data.mini_voc import write_voc

GENERATOR_VERSION = 3
BACKGROUND_CATEGORY = "BACKGROUND_Google"
CALTECH_CLASSES = (*CLASSES[1:20:3], *EXTRA_CLASSES)  # 7 of the 20 classes and 4 of its own


@dataclass(frozen=True)
class MiniSize:
    """Numbers of images.  From 20 images on, each list of the first four holds every class."""

    imagenet_train: int
    imagenet_val: int
    voc_trainval: int
    voc_test: int
    caltech_per_category: int


MINI = MiniSize(
    imagenet_train=5000, imagenet_val=2000, voc_trainval=600, voc_test=600, caltech_per_category=80
)
TINY = MiniSize(imagenet_train=40, imagenet_val=20, voc_trainval=20, voc_test=20, caltech_per_category=4)


def make_mini(root: Path, seed: int = 0, size: MiniSize = MINI) -> None:
    """Write `imagenet/`, `VOCdevkit/VOC2007/`, `caltech101/` and `mini.json` into `root`, which is made if it is missing.

    What an earlier call left there is replaced.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name in ("imagenet", "VOCdevkit", "caltech101"):
        shutil.rmtree(root / name, ignore_errors=True)
    _write_imagenet(root / "imagenet", seed, size)
    write_voc(root / "VOCdevkit" / "VOC2007", seed, size.voc_trainval, size.voc_test)
    _write_caltech(root / "caltech101", seed, size)
    write_json(root / "mini.json", _record(seed, size))


def _record(seed: int, size: MiniSize) -> dict[str, Any]:
    return {"generator_version": GENERATOR_VERSION, "seed": seed, "size": asdict(size)}


def _write_imagenet(root: Path, seed: int, size: MiniSize) -> None:
    wnids = [f"n9{index + 1:07d}" for index in range(len(CLASSES))]
    for split, count in (("train", size.imagenet_train), ("val", size.imagenet_val)):
        _write_split(root / split, wnids, seed, count)
    rows = [f"{wnid},{kind.name}" for wnid, kind in zip(wnids, CLASSES, strict=True)]
    (root / "classes.csv").write_text("\n".join(["wnid,name", *rows]) + "\n")


def _write_split(folder: Path, wnids: list[str], seed: int, count: int) -> None:
    role = f"imagenet/{folder.name}"
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)

    def draw(index: int) -> None:
        number, label = divmod(index, len(CLASSES))
        held_out = folder.name == "val"
        image = _imagenet_image(stream(seed, role, index), CLASSES[label], held_out)
        write_jpeg(folder / wnids[label] / f"{wnids[label]}_{number + 1}.JPEG", image)

    on_all_cores(draw, range(count), f"mini {role}")


def _imagenet_image(rng: np.random.Generator, kind: ObjectClass, held_out: bool) -> Image:
    """One large object, anywhere in the image, up to an eighth of it beyond the border; its format follows the image's."""
    height, width = image_size(rng, (256, 320), (0.5, 2.0))
    image = draw_background(rng, height, width)
    aspect = float(np.sqrt(width / height))
    side = rng.uniform(0.5, 0.95) * float(np.sqrt(width * height)) / max(aspect, 1 / aspect)
    extent = side * np.sqrt([aspect, 1 / aspect])
    x, y = 0.375 * extent + rng.beta(1.5, 1.5, 2) * ((width, height) - 0.75 * extent)
    draw_object(rng, image, kind, Pose((x, y), side, aspect=aspect), held_out)
    return add_noise(rng, image)


def _write_caltech(root: Path, seed: int, size: MiniSize) -> None:
    kinds = (None, *CALTECH_CLASSES)
    for category, kind in enumerate(track(kinds, "mini caltech101")):
        name = kind.name if kind else BACKGROUND_CATEGORY
        folder = root / "101_ObjectCategories" / name
        folder.mkdir(parents=True)
        for number in range(size.caltech_per_category):
            rng = stream(seed, "caltech101", number * len(kinds) + category)
            write_jpeg(folder / f"image_{number + 1:04d}.jpg", _caltech_image(rng, kind, number % 3 == 0))


def _caltech_image(rng: np.random.Generator, kind: ObjectClass | None, held_out: bool) -> Image:
    """A centred object that fills a plain background; a cluttered background alone if `kind` is None."""
    height, width = image_size(rng, (200, 280), (0.6, 1.7))
    image = draw_background(rng, height, width, plain=kind is not None)
    if kind is not None:
        side = rng.uniform(0.65, 1.0) * float(np.sqrt(width * height))
        centre = (rng.uniform(0.45, 0.55) * width, rng.uniform(0.45, 0.55) * height)
        draw_object(rng, image, kind, Pose(centre, side, aspect=width / height), held_out)
    return add_noise(rng, image)
