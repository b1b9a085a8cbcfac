"""Bounding-box regression by ridge on the pooled features (R-CNN's appendix C and code)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.console import track
from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.errors import SppnetError
from sppnet_cli.features.windows import ImageWindows, WindowSource
from sppnet_cli.learning.ridge import Ridge, ridge_memory
from sppnet_cli.protocols import BboxRules


@dataclass(frozen=True)
class BoxRegressors:
    """Per class: `deltas = scale * pooled @ weights[k] + bias[k]` as dx/w, dy/h, log w'/w, log h'/h."""

    weights: NDArray[np.float32]  # (K, D, 4)
    bias: NDArray[np.float32]  # (K, 4)
    scale: float

    def __call__(
        self, pooled: NDArray[np.float32], boxes: NDArray[np.floating], label: int, size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Boxes `(N, 4)` regressed for class `label` and clipped to the image of `size` (H, W)."""
        deltas = self.scale * (pooled @ self.weights[label]) + self.bias[label]
        return clip_boxes(decode(boxes, deltas), size)


def encode(boxes: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Deltas `(N, 4)` that move `boxes` to `targets`; here w = x2 - x1, without the +1 (R-CNN's code)."""
    centre, extent = _centre_extent(boxes)
    target_centre, target_extent = _centre_extent(targets)
    shift = (target_centre - centre) / extent
    return np.concatenate([shift, np.log(target_extent / extent)], axis=1)


def decode(boxes: NDArray[np.floating], deltas: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of `encode`."""
    centre, extent = _centre_extent(boxes)
    new_centre = centre + deltas[:, :2] * extent
    new_half = extent * np.exp(deltas[:, 2:].astype(np.float64)) / 2
    return np.concatenate([new_centre - new_half, new_centre + new_half], axis=1)


def train_bbox(source: WindowSource, rules: BboxRules, scale: float, *, max_gib: float) -> BoxRegressors:
    """Ridge regressors of all classes, on features times `scale` (see `Svms`).

    The rules give the IoU that a window must have with its best object, and the ridge penalty.  A class
    without samples leaves boxes as they are.  The classes are fitted in groups that take at most `max_gib`, with one
    pass over the features per group.  Raises `SppnetError` if a single class takes more.
    """
    samples = [
        _samples(source.windows(i), rules)
        for i in track(range(len(source)), "box regression, windows that overlap objects")
    ]
    names = source.dataset.class_names
    label = np.concatenate([part.labels for part in samples])
    deltas = np.concatenate([part.deltas for part in samples])
    dimension = source.extractor.network.pooled_size
    weights = np.zeros((len(names), dimension, 4), dtype=np.float32)
    bias = np.zeros((len(names), 4), dtype=np.float32)
    for group in _groups(np.bincount(label, minlength=len(names)), dimension, names, max_gib):
        ridges = {k: Ridge(deltas[label == k], dimension, rules.bbox_lambda) for k in group}
        for index, part in enumerate(track(samples, f"box regression of {len(group)} classes")):
            in_group = np.isin(part.labels, group)
            if not in_group.any():
                continue
            pooled = (source.pooled(index, part.rows[in_group]) * scale).half().cpu().numpy()
            for k in np.unique(part.labels[in_group]):
                ridges[k].add(pooled[part.labels[in_group] == k])
        for k in track(group, "box regression, solving"):
            weights[k], bias[k] = ridges.pop(k).solve()
    return BoxRegressors(weights, bias, scale)


def _groups(
    counts: NDArray[np.int64], dimension: int, names: Sequence[str], max_gib: float
) -> list[list[int]]:
    """The classes that have samples, in groups whose ridges fit into the bound even while one of them is solved."""
    groups: list[list[int]] = []
    held = solving = 0
    for k, count in enumerate(counts.tolist()):
        if not count:
            continue
        gathered, peak = ridge_memory(count, dimension)
        if peak > max_gib * 2**30:
            needed = f"box regression of {names[k]} takes {peak / 2**30:.1f} GiB, more than {max_gib:g}"
            raise SppnetError(f"{needed}; allow more with --max-memory")
        if not groups or held + gathered + max(solving, peak - gathered) > max_gib * 2**30:
            groups.append([])
            held = solving = 0
        groups[-1].append(k)
        held, solving = held + gathered, max(solving, peak - gathered)
    return groups


class _Samples(NamedTuple):
    """The windows of an image that a regressor learns from."""

    rows: NDArray[np.intp]  # (n,) of the image's windows
    labels: NDArray[np.int64]  # (n,) class of the best ground-truth box
    deltas: NDArray[np.float64]  # (n, 4)


def _samples(windows: ImageWindows, rules: BboxRules) -> _Samples:
    if not windows.iou.shape[1]:
        return _Samples(np.empty(0, np.intp), np.empty(0, np.int64), np.empty((0, 4)))
    best = windows.iou.argmax(axis=1)
    overlap = windows.iou.max(axis=1)
    enough = overlap >= rules.bbox_iou if rules.bbox_iou_inclusive else overlap > rules.bbox_iou
    # A box one pixel wide or high has the extent 0, which has no logarithm.
    extent = windows.boxes[:, 2:] - windows.boxes[:, :2]
    target = (windows.truth.boxes[:, 2:] - windows.truth.boxes[:, :2])[best]
    rows = np.flatnonzero(enough & (extent > 0).all(axis=1) & (target > 0).all(axis=1))
    truth = best[rows]
    deltas = encode(windows.boxes[rows], windows.truth.boxes[truth])
    return _Samples(rows, windows.truth.labels[truth], deltas)


def _centre_extent(boxes: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = boxes.astype(np.float64)
    extent = wide[:, 2:] - wide[:, :2]
    return wide[:, :2] + extent / 2, extent
