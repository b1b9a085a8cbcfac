"""Stage: the training images in folds, each with the images outside of it."""

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.imports.importing import read_record
from sppnet_cli.data.imports.splitting import hold_out
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError


@dataclass(frozen=True)
class FoldsConfig:
    """How the images of a split are dealt out."""

    split: str
    count: int
    seed: int
    limit: int | None = None  # images


def fold_name(fold: int) -> str:
    """Name of the list of a fold, counted from 1."""
    return f"fold{fold}"


def rest_name(fold: int) -> str:
    """Name of the list of the images that are not in a fold."""
    return f"without{fold}"


def deal_folds(config: FoldsConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """`fold1.txt`, `without1.txt`, `fold2.txt`, ...: lists of ids, in the order of the split.

    Each class is in as many folds as it has images, if it can be, and the frames of a video are in one, unless a class
    is in that video alone (`hold_out`).
    Raises `DataError` where fewer images than folds have objects: some fold would leave nothing to learn from.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit)
    classes = {
        image_id: frozenset(dataset.class_names[k] for k in dataset.annotation(image_id).labels)
        for image_id in dataset.ids
    }
    with_objects = sum(map(bool, classes.values()))
    if with_objects < config.count:
        raise DataError(
            f"{dataset.root}: {with_objects} images of {config.split} have objects, fewer than {config.count} folds; "
            "label more of them"
        )
    sources = (read_record(dataset.root) or {}).get("sources", {})
    counts = Counter(chain.from_iterable(classes.values()))
    left = list(dataset.ids)
    for fold in range(1, config.count + 1):
        names = [str(sources.get(image_id, image_id)) for image_id in left]
        # A class of one image cannot be on both sides.
        common = [frozenset(name for name in classes[image_id] if counts[name] > 1) for image_id in left]
        parts = config.count - fold + 1
        held = {left[k] for k in hold_out(names, common, 1 / parts, config.seed)} or set(left[::parts])
        if parts == 1:
            held = set(left)
        left = [image_id for image_id in left if image_id not in held]
        for name, inside in ((fold_name(fold), True), (rest_name(fold), False)):
            lines = [f"{image_id}\n" for image_id in dataset.ids if (image_id in held) == inside]
            (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def folds_cost(config: FoldsConfig, images: int) -> Cost:
    """Of reading the annotations."""
    lists = {
        f"{name(k)}.txt": 12 * images for k in range(1, config.count + 1) for name in (fold_name, rest_name)
    }
    return Cost(1e-3 * images, lists)
