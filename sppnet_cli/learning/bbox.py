"""Bounding-box regression by ridge on the pooled features (R-CNN's appendix C and code)."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sppnet_cli.console import track
from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.windows import ImageWindows, WindowSource
from sppnet_cli.protocols import Protocol

_WHITENING = 0.001
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


def train_bbox(source: WindowSource, protocol: Protocol, scale: float) -> BoxRegressors:
    """Ridge regressors of all classes from windows that overlap the ground truth enough (`scale`: see `Svms`).

    R-CNN keeps its own thresholds (IoU > .6, lambda 1000).  A class without samples regresses to no change.
    """
    classes = len(source.dataset.class_names)
    features: list[list[NDArray[np.float16]]] = [[] for _ in range(classes)]
    targets: list[list[NDArray[np.float64]]] = [[] for _ in range(classes)]
    for index in track(range(len(source)), "box regression"):
        windows = source.windows(index)
        rows, best = _samples(windows, source, protocol)
        if not len(rows):
            continue
        pooled = (source.pooled(index, rows) * scale).half().cpu().numpy()
        deltas = encode(windows.boxes[rows], windows.truth.boxes[best])
        for label in np.unique(windows.truth.labels[best]):
            own = windows.truth.labels[best] == label
            features[label].append(pooled[own])
            targets[label].append(deltas[own])
    penalty = _RCNN_LAMBDA if isinstance(source.extractor, RcnnWindows) else protocol.bbox_lambda
    dimension = source.extractor.network.pooled_size
    weights = np.zeros((classes, dimension, 4), dtype=np.float32)
    bias = np.zeros((classes, 4), dtype=np.float32)
    for label in track(range(classes), "ridge"):
        if features[label]:
            x = np.concatenate(features[label]).astype(np.float32)
            features[label].clear()
            weights[label], bias[label] = fit_whitened_ridge(x, np.concatenate(targets[label]), penalty)
    return BoxRegressors(weights, bias, scale)


def fit_whitened_ridge(
    x: NDArray[np.float32], y: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights `(D, 4)` and bias `(4,)` of ridge on `x` (N, D) and a constant 1, penalised alike.

    Targets `y` (N, 4) are whitened by the inverse square root of (covariance + .001 I).  Solved in the primal
    or the dual, whichever system is smaller.
    """
    n, dimension = x.shape
    mean = y.mean(axis=0)
    centred = y - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / n)
    root = np.sqrt(variance + _WHITENING)
    whitened = centred @ (axes / root) @ axes.T
    rows = np.concatenate([x, np.ones((n, 1), dtype=np.float32)], axis=1)
    if n <= dimension:
        gram = (rows @ rows.T).astype(np.float64)
        gram[np.diag_indices(n)] += penalty
        solution = rows.T @ scipy.linalg.solve(gram, whitened, assume_a="pos", overwrite_a=True)
    else:
        gram = (rows.T @ rows).astype(np.float64)
        gram[np.diag_indices(dimension + 1)] += penalty
        solution = scipy.linalg.solve(gram, rows.T @ whitened, assume_a="pos", overwrite_a=True)
    coefficients = solution @ (axes * root) @ axes.T
    return coefficients[:-1], coefficients[-1] + mean


def _samples(
    windows: ImageWindows, source: WindowSource, protocol: Protocol
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if not windows.iou.shape[1]:
        return np.empty(0, np.intp), np.empty(0, np.intp)
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
    return rows, best[rows]


def _centre_extent(boxes: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = boxes.astype(np.float64)
    extent = wide[:, 2:] - wide[:, :2]
    return wide[:, :2] + extent / 2, extent
