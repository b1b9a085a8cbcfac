"""A held-out part drawn by seed: every class on both sides, a video's frames on one."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import PurePosixPath
from statistics import median

import numpy as np

from sppnet_cli.data.imports.files import role_of_folder

Unit = list[int]  # images that stay on one side

# How cameras and tools name single pictures: IMG_0001.jpg and IMG_0002.jpg are no frames of one video.
_STILLS = frozenset(
    {
        "dcim",
        "dsc",
        "dscf",
        "dscn",
        "file",
        "foto",
        "image",
        "images",
        "img",
        "jpeg",
        "jpegimages",
        "jpg",
        "p",
    }
    | {"photo", "photos", "pic", "pics", "pict", "picture", "pictures", "png", "pxl", "sample", "scan"}
    | {"screenshot", "untitled", "webp", "whatsapp"}
)
_GAP = 4.0  # times the usual step from frame to frame: there a new scene begins
_ROBOFLOW = re.compile(r"[_-](jpe?g|png|webp|bmp)\.rf\.\w+$", re.IGNORECASE)


def hold_out(images: Sequence[str], classes: Sequence[frozenset[str]], part: float, seed: int) -> set[int]:
    """Indices of the images to hold out: about `part` of them, and of each class.

    Every class of two images or more is on both sides, unless its images are neighbouring frames.  Frames are what
    names say: clip_000123.jpg and clip_000124.jpg.  A video stays whole; only where the share or a class cannot be had
    otherwise, it is cut, at gaps of its numbering first, then into a few stretches.

    Args:
        images: paths, distinct.
        classes: the names of the classes in each image.
        part: a fraction, 0 to 1; 0 holds out nothing.
        seed: of the draw, which does not depend on the order of the images.
    """
    order = sorted(range(len(images)), key=lambda index: images[index])
    if part == 0 or len(order) < 2:
        return set()
    target = min(max(1, round(part * len(order))), len(order) - 1)
    sequences = _sequences(images, order)
    numbers = dict(chain.from_iterable(sequences))
    units = [[index for index, _ in sequence] for sequence in sequences]
    for refine in (_at_gaps, _into_stretches):
        short = len(_draw(units, classes, part, target, seed)) < target / 2
        every = _count(range(len(images)), classes)
        pieces = []
        for unit in units:
            alone = any(count > 1 and count == every[name] for name, count in _count(unit, classes).items())
            cut = len(unit) > 1 and (alone or (short and len(unit) > target))
            pieces += refine(unit, numbers, part) if cut else [unit]
        units = pieces
    return _draw(units, classes, part, target, seed)


def _sequences(images: Sequence[str], order: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Images with their numbers: those of one video together, every other image alone."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for index in order:
        path = PurePosixPath(images[index])
        match = re.fullmatch(r"(.*?)(\d{1,12})(\D*)", _ROBOFLOW.sub("", path.stem))
        # Where a name is but a number, the folder is the video, unless it is named for a part of a split.
        words = re.findall("[a-z]+", match[1].casefold()) if match else []
        if match and not words and not role_of_folder(f"{path.parent.name}/x"):
            words = re.findall("[a-z]+", path.parent.name.casefold())
        if match and not _STILLS.issuperset(words):
            found[str(path.parent), match[1], match[3]].append((index, int(match[2])))
        else:
            found[images[index],] = [(index, 0)]
    return [sorted(frames, key=lambda frame: frame[1]) for frames in found.values()]


def _at_gaps(unit: Unit, numbers: dict[int, int], part: float) -> list[Unit]:
    steps = [numbers[b] - numbers[a] for a, b in pairwise(unit)]
    usual = max(median(steps), 1) if steps else 1
    scenes = [unit[:1]]
    for index, step in zip(unit[1:], steps, strict=True):
        if step > _GAP * usual:
            scenes.append([])
        scenes[-1].append(index)
    return scenes


def _into_stretches(unit: Unit, numbers: dict[int, int], part: float) -> list[Unit]:
    length = max(1, round(min(part, 1 - part) * len(unit)))
    return [unit[start : start + length] for start in range(0, len(unit), length)]


def _count(unit: Iterable[int], classes: Sequence[frozenset[str]]) -> Counter[str]:
    """The images of each class."""
    return Counter(chain.from_iterable(classes[index] for index in unit))


def _draw(
    units: Sequence[Unit], classes: Sequence[frozenset[str]], part: float, target: int, seed: int
) -> set[int]:
    """Held-out images: class by class, rare ones first, up to its share; then any, up to `target`."""
    order = [units[k] for k in np.random.default_rng(seed).permutation(len(units))]
    # Images without objects count as a class of their own.
    of_image = [names or frozenset({""}) for names in classes]
    counts = [_count(unit, of_image) for unit in order]
    every = sum(counts, Counter[str]())
    held: set[int] = set()  # positions in order
    within: Counter[str] = Counter()
    size = 0

    def may(k: int) -> bool:
        left = all(within[name] + count < every[name] for name, count in counts[k].items() if name)
        return k not in held and left

    def take(k: int) -> None:
        nonlocal size
        held.add(k)
        within.update(counts[k])
        size += len(order[k])

    for name in sorted(every, key=lambda name: (every[name], name)):
        quota = round(part * every[name])
        mine = [k for k in range(len(order)) if counts[k][name]]
        for k in mine:
            fits = size + len(order[k]) <= target
            if fits and within[name] + counts[k][name] <= quota and may(k):
                take(k)
        if name and not within[name]:  # no room, or all its units are larger than its share: the smallest
            for k in sorted(mine, key=lambda k: len(order[k])):
                if may(k) and 2 * len(order[k]) <= len(classes):
                    take(k)
                    break
    for k in range(len(order)):
        if size + len(order[k]) <= target and may(k):
            take(k)
    return {index for k in held for index in order[k]}
