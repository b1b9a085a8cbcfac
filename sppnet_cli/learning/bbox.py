"""Bounding-box regression by ridge on the pooled features (R-CNN's appendix C and code)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.console import track
from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.errors import SppnetError
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.windows import ImageWindows, WindowSource
from sppnet_cli.learning.ridge import Ridge, ridge_memory
from sppnet_cli.protocols import Protocol

_RCNN_IOU = 0.6  # R-CNN's own: strictly above
_RCNN_LAMBDA = 1000.0


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
    """Deltas `(N, 4)` that take `boxes` to `targets`; here w = x2 - x1, without the +1 (R-CNN's code)."""
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


def train_bbox(source: WindowSource, protocol: Protocol, scale: float, *, max_gib: float) -> BoxRegressors:
    """Ridge regressors of all classes from windows that overlap the ground truth enough (`scale`: see `Svms`).

    R-CNN keeps its own thresholds (IoU > .6, lambda 1000).  A class without samples regresses to no change.
    Classes are fitted in groups that take at most `max_gib`, with a pass over the features for each group.
    Raises `SppnetError` where a single class takes more.
    """
    samples = [_samples(source.windows(i), source, protocol) for i in track(range(len(source)), "samples")]
    names = source.dataset.class_names
    label = np.concatenate([part.labels for part in samples])
    deltas = np.concatenate([part.deltas for part in samples])
    penalty = _RCNN_LAMBDA if isinstance(source.extractor, RcnnWindows) else protocol.bbox_lambda
    dimension = source.extractor.network.pooled_size
    weights = np.zeros((len(names), dimension, 4), dtype=np.float32)
    bias = np.zeros((len(names), 4), dtype=np.float32)
    for group in _groups(np.bincount(label, minlength=len(names)), dimension, names, max_gib):
        ridges = {k: Ridge(deltas[label == k], dimension, penalty) for k in group}
        for index, part in enumerate(track(samples, f"box regression of {len(group)} classes")):
            own = np.isin(part.labels, group)
            if not own.any():
                continue
            pooled = (source.pooled(index, part.rows[own]) * scale).half().cpu().numpy()
            for k in np.unique(part.labels[own]):
                ridges[k].add(pooled[part.labels[own] == k])
        for k in track(group, "ridge"):
            weights[k], bias[k] = ridges.pop(k).solve()
    return BoxRegressors(weights, bias, scale)


def _groups(
    counts: NDArray[np.int64], dimension: int, names: Sequence[str], max_gib: float
) -> list[list[int]]:
    """Classes that have samples, in groups whose ridges fit into the bound while one of them is solved."""
    groups: list[list[int]] = []
    held = solving = 0
    for k, count in enumerate(counts.tolist()):
        if not count:
            continue
        own, peak = ridge_memory(count, dimension)
        if peak > max_gib * 2**30:
            needed = f"box regression of {names[k]} takes {peak / 2**30:.1f} GiB of {max_gib:g}"
            raise SppnetError(f"{needed}; allow more with --max-memory")
        if not groups or held + own + max(solving, peak - own) > max_gib * 2**30:
            groups.append([])
            held = solving = 0
        groups[-1].append(k)
        held, solving = held + own, max(solving, peak - own)
    return groups


class _Samples(NamedTuple):
    """The windows of an image that a regressor learns from."""

    rows: NDArray[np.intp]  # (n,) of the image's windows
    labels: NDArray[np.int64]  # (n,) class of the best ground-truth box
    deltas: NDArray[np.float64]  # (n, 4)


def _samples(windows: ImageWindows, source: WindowSource, protocol: Protocol) -> _Samples:
    if not windows.iou.shape[1]:
        return _Samples(np.empty(0, np.intp), np.empty(0, np.int64), np.empty((0, 4)))
    best = windows.iou.argmax(axis=1)
    overlap = windows.iou.max(axis=1)
    if isinstance(source.extractor, RcnnWindows):
        enough = overlap > _RCNN_IOU
    elif protocol.bbox_iou_inclusive:
        enough = overlap >= protocol.bbox_iou
    else:
        enough = overlap > protocol.bbox_iou
    # A box of one pixel's width has no extent to take the logarithm of.
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
