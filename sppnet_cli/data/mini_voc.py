"""The VOC role of the mini dataset: scenes of several objects, their annotation files and image lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.data.all_cores import on_all_cores
from sppnet_cli.data.mini_drawing import (
    Image,
    Mask,
    Pose,
    add_noise,
    draw_background,
    draw_line,
    draw_object,
    image_size,
    stream,
    write_jpeg,
)
from sppnet_cli.data.mini_shapes import CLASSES, ObjectClass

# VOC 2007: objects' sides over the image's short side have a median of .37, 5% to 95% lie in .09 to .97.
_SIDE, _SPREAD = 0.68, (1.0, 0.55)  # median, and deviations of the logarithm below and above it
_OTHERS = (0.25, 0.24, 0.15, 0.12, 0.1, 0.08, 0.06)  # how often an image has so many objects beside the first
_HARD = 0.2  # of these others


@dataclass(frozen=True)
class VocObject:
    """One VOC object.  `box` is x1, y1, x2, y2 in 0-based inclusive pixels."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


def write_voc(root: Path, seed: int, trainval: int, test: int) -> None:
    """Write the folder VOC2007, `root`: `trainval` and `test` images, their annotations and all lists.

    Ids are dealt to the two at random; in the order of either list the first objects go through all classes in
    turn, so that its first images hold every class too.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    ids = [f"{k + 1:06d}" for k in range(trainval + test)]
    dealt: list[str] = stream(seed, "voc/ids").permutation(ids).tolist()
    ordered = sorted(dealt[:trainval]) + sorted(dealt[trainval:])
    annotations: dict[str, list[VocObject]] = {}

    def draw(position: int) -> None:
        image_id, held_out = ordered[position], position >= trainval
        index = position - trainval if held_out else position
        rng = stream(seed, "voc/test" if held_out else "voc/trainval", index)
        image, annotations[image_id] = _voc_image(rng, CLASSES[index % len(CLASSES)], held_out)
        write_jpeg(root / "JPEGImages" / f"{image_id}.jpg", image)
        xml = _annotation_xml(image_id, image.shape, annotations[image_id])
        (root / "Annotations" / f"{image_id}.xml").write_text(xml)

    on_all_cores(draw, range(len(ordered)), "mini VOCdevkit")
    splits = {
        "train": ordered[: trainval // 2],
        "val": ordered[trainval // 2 : trainval],
        "trainval": ordered[:trainval],
        "test": ordered[trainval:],
    }
    for split, members in splits.items():
        _write_lists(root / "ImageSets" / "Main", split, members, annotations)


def _voc_image(rng: np.random.Generator, main: ObjectClass, held_out: bool) -> tuple[Image, list[VocObject]]:
    """One to seven objects, the larger behind the smaller; the first is of class `main` and never difficult."""
    height, width = shape = image_size(rng, (240, 300), (0.6, 1.7))
    image = draw_background(rng, height, width)
    kinds, poses, hard = [main], [_pose(rng, shape)], [False]
    for k in rng.integers(len(CLASSES), size=rng.choice(len(_OTHERS), p=_OTHERS)):
        is_hard = rng.random() < _HARD
        tries = (_pose(rng, shape, is_hard) for _ in range(8))
        pose = next((pose for pose in tries if _is_free(rng, pose, poses)), None)
        if pose is not None:
            kinds.append(CLASSES[k])
            poses.append(pose)
            hard.append(is_hard)
    owner = np.full(shape, -1)
    areas: dict[int, int] = {}
    for number in sorted(range(len(kinds)), key=lambda k: -poses[k].side):
        covered, areas[number] = draw_object(rng, image, kinds[number], poses[number], held_out)
        owner[covered] = number
    for _ in range(rng.integers(4)):
        draw_line(rng, image)
    found = [_annotate(kinds[k].name, owner == k, areas[k], hard[k]) for k in range(len(kinds))]
    return add_noise(rng, image), [annotation for annotation in found if annotation is not None]


def _pose(rng: np.random.Generator, shape: tuple[int, int], hard: bool = False) -> Pose:
    """A pose anywhere in an image of `shape`, partly outside at times; a `hard` one is tiny or faint."""
    faint = hard and rng.random() < 0.5
    deviate = float(rng.normal())
    side = _SIDE * float(np.exp(deviate * _SPREAD[deviate > 0]))
    side = rng.uniform(0.04, 0.09) if hard and not faint else min(max(side, 0.09), 1.5)
    pixels = side * min(shape)
    margin = (rng.uniform(0.0, 0.4) if rng.random() < 0.6 else 0.5) * pixels  # some reach beyond the border
    x, y = (0.5 * extent + rng.uniform(-1, 1) * abs(0.5 * extent - margin) for extent in (shape[1], shape[0]))
    aspect = float(np.exp(rng.normal(0, 0.35)))
    return Pose((x, y), pixels, opacity=0.35 if faint else rng.uniform(0.65, 1.0), aspect=aspect)


def _is_free(rng: np.random.Generator, pose: Pose, others: Sequence[Pose]) -> bool:
    """Whether an object keeps clear of all others; now and then half of it may hide another."""
    reach = rng.uniform(0.4, 0.8) if rng.random() < 0.7 else 1.0
    return all(
        max(abs(np.subtract(pose.centre, other.centre))) >= reach * (pose.side + other.side) / 2
        for other in others
    )


def _annotate(name: str, visible: Mask, area: int, hard: bool) -> VocObject | None:
    """The annotation of an object with `visible` pixels of `area`; None if next to nothing of it shows."""
    if visible.sum() < max(16, 0.05 * area):
        return None
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    shown = visible.sum() / area
    return VocObject(
        name,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])),
        truncated=bool(shown < 0.93),
        difficult=bool(hard or shown < 0.45),
    )


def _annotation_xml(image_id: str, shape: tuple[int, ...], annotations: Sequence[VocObject]) -> str:
    """The annotation file of VOC 2007; its boxes are 1-based and inclusive."""
    lines = [
        "<annotation>",
        "\t<folder>VOC2007</folder>",
        f"\t<filename>{image_id}.jpg</filename>",
        "\t<source>\n\t\t<database>mini</database>\n\t\t<annotation>PASCAL VOC2007</annotation>\n\t</source>",
        f"\t<size>\n\t\t<width>{shape[1]}</width>\n\t\t<height>{shape[0]}</height>",
        "\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for annotation in annotations:
        x1, y1, x2, y2 = (corner + 1 for corner in annotation.box)
        lines += [
            "\t<object>",
            f"\t\t<name>{annotation.name}</name>",
            "\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{int(annotation.truncated)}</truncated>",
            f"\t\t<difficult>{int(annotation.difficult)}</difficult>",
            f"\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>",
            f"\t\t\t<xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>"]) + "\n"


def _write_lists(
    folder: Path, split: str, ids: Sequence[str], annotations: dict[str, list[VocObject]]
) -> None:
    """`<split>.txt` and each `<class>_<split>.txt`: 1 present, -1 absent, 0 present as difficult only."""
    ids = sorted(ids)
    (folder / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    for kind in CLASSES:
        lines = []
        for image_id in ids:
            difficult = [a.difficult for a in annotations[image_id] if a.name == kind.name]
            label = -1 if not difficult else 0 if all(difficult) else 1
            lines.append(f"{image_id} {label:2d}\n")
        (folder / f"{kind.name}_{split}.txt").write_text("".join(lines))
