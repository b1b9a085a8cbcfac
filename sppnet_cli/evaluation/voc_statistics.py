"""How large, how many and how marked the objects of a VOC set are, and how well selective search finds them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sppnet_cli.console import track
from sppnet_cli.data.boxes import box_areas
from sppnet_cli.data.proposals import image_seed, propose, start_worker
from sppnet_cli.data.voc import VocDetection, has_splits, load_voc
from sppnet_cli.evaluation.proposal_recall import proposal_recall
from sppnet_cli.processes import worker_pool

_SPLITS = ("trainval", "test")
_METHOD = "ss-fast"


@dataclass(frozen=True)
class VocStatistics:
    """Statistics of a VOC set: fractions, and None where the set does not say or nothing was measured.

    Difficult objects count where that is said.
    """

    images: int
    objects: int
    classes: int
    side: tuple[
        float, ...
    ]  # root of an object's area / short side of its image: 5%, median, 95%; not of difficult ones
    difficult_side: tuple[float, ...]  # the same of difficult ones
    objects_an_image: tuple[float, ...]  # mean, median, 95%; difficult ones count here and in the next five
    classes_an_image: float  # mean
    images_a_class: tuple[int, float, int]  # fewest, median, most
    objects_a_class: tuple[int, float, int]
    truncated: float | None  # of the objects
    occluded: float | None
    difficult: float | None
    image_size: tuple[float, float]  # short and long side of an image, pixels, medians
    searched: int  # images, on which the rest is measured
    windows: float | None  # an image, mean
    recall_05: float | None  # of the objects that are not difficult: a window overlaps it by IoU .5
    recall_07: float | None
    best_overlap: float | None  # IoU of an object with the best window, mean

    def rows(self) -> list[tuple[str, str]]:
        """What is measured and its value, empty where there is none; shares in percent."""
        return [
            ("images", str(self.images)),
            ("objects", str(self.objects)),
            ("classes", str(self.classes)),
            ("side of an object / short side of the image: 5%, median, 95%", _several(self.side, 2)),
            ("the same of difficult objects", _several(self.difficult_side, 2)),
            ("objects an image: mean, median, 95%", _several(self.objects_an_image, 1)),
            ("classes an image: mean", f"{self.classes_an_image:.2f}"),
            ("images a class: fewest, median, most", _several(self.images_a_class, 0)),
            ("objects a class: fewest, median, most", _several(self.objects_a_class, 0)),
            ("truncated objects", _percent(self.truncated)),
            ("occluded objects", _percent(self.occluded)),
            ("difficult objects", _percent(self.difficult)),
            ("short and long side of an image, pixels, median", _several(self.image_size, 0)),
            (f"images searched by {_METHOD}", str(self.searched)),
            ("windows an image, mean", "" if self.windows is None else f"{self.windows:.0f}"),
            ("objects found at IoU .5 (not difficult)", _percent(self.recall_05)),
            ("objects found at IoU .7 (not difficult)", _percent(self.recall_07)),
            ("IoU with the best window, mean", _percent(self.best_overlap)),
        ]


def voc_statistics(data: Path, searched: int, seed: int = 0, workers: int = 1) -> VocStatistics:
    """Measure the trainval and the test images of a VOC set together, or those of the two that it has.

    Args:
        data: a devkit or its VOC<year> folder.
        searched: images, drawn by `seed`, in which windows are proposed by selective search; 0 for none.
        workers: processes that search.

    Raises:
        DataError: the folder is no VOC set, or a file of it cannot be read.
    """
    splits = [split for split in _SPLITS if has_splits(data, split)] or [_SPLITS[0]]
    images = [(dataset, i) for dataset in (load_voc(data, split) for split in splits) for i in dataset.ids]
    names = images[0][0].class_names
    truths = [dataset.annotation(i) for dataset, i in images]
    short, long = np.array([sorted(truth.size) for truth in truths]).T
    counts = np.array([len(truth.labels) for truth in truths])
    labels = np.concatenate([truth.labels for truth in truths])
    present = [np.unique(truth.labels) for truth in truths]
    difficult = np.concatenate([truth.difficult for truth in truths])
    sides = np.sqrt(box_areas(np.concatenate([truth.boxes for truth in truths]))) / np.repeat(short, counts)

    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:searched])
    jobs = [(replace(images[k][0], ids=()), images[k][1], seed) for k in chosen]
    windows = recall_05 = recall_07 = best_overlap = None
    if jobs:
        pool = worker_pool(min(max(workers, 1), len(jobs)), start_worker)
        try:
            found = list(track(pool.map(_search, jobs), f"windows of {data}", len(jobs)))
        finally:
            pool.shutdown(cancel_futures=True)
        recall = proposal_recall(found, [truths[k] for k in chosen], names)
        overlaps = np.concatenate(list(recall.overlaps.values()))
        windows, best_overlap = recall.windows, _mean(overlaps)
        recall_05, recall_07 = (_mean(overlaps >= level) for level in (0.5, 0.7))

    return VocStatistics(
        images=len(images),
        objects=len(labels),
        classes=len(names),
        side=_percentiles(sides[~difficult], 5, 50, 95),
        difficult_side=_percentiles(sides[difficult], 5, 50, 95),
        objects_an_image=(float(counts.mean()), *_percentiles(counts, 50, 95)),
        classes_an_image=float(np.mean([len(classes) for classes in present])),
        images_a_class=_extremes(np.concatenate(present), len(names)),
        objects_a_class=_extremes(labels, len(names)),
        truncated=_marked(images, "truncated"),
        occluded=_marked(images, "occluded"),
        difficult=_mean(difficult),
        image_size=(float(np.median(short)), float(np.median(long))),
        searched=len(jobs),
        windows=windows,
        recall_05=recall_05,
        recall_07=recall_07,
        best_overlap=best_overlap,
    )


def _search(job: tuple[VocDetection, str, int]) -> np.ndarray:
    dataset, image_id, seed = job
    return propose(dataset.image(image_id), _METHOD, image_seed(seed, image_id))


def _marked(images: Iterable[tuple[VocDetection, str]], mark: str) -> float | None:
    """The share of the objects that bear a mark, of those whose annotations tell."""
    return _mean(np.array([marked for dataset, i in images for marked in dataset.marks(i, mark)]))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _percentiles(values: np.ndarray, *percents: float) -> tuple[float, ...]:
    return tuple(np.percentile(values, percents).tolist() if len(values) else [np.nan] * len(percents))


def _extremes(labels: np.ndarray, classes: int) -> tuple[int, float, int]:
    counts = np.bincount(labels, minlength=classes)
    return int(counts.min()), float(np.median(counts)), int(counts.max())


def _several(numbers: Iterable[float], digits: int) -> str:
    return "  ".join(f"{number:.{digits}f}" for number in numbers)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"
