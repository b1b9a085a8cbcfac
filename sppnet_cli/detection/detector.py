"""A detector: it scores the windows of an image and turns them into detections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.detection.detector_files import (
    DetectorParts,
    read_detector,
    require_fitting,
    write_detector,
)
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.detection.nms import nms, select_per_class
from sppnet_cli.errors import UsageError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.method import Extractor, PooledWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.calibration import Calibration
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.names import WINDOW_LAYERS
from sppnet_cli.network.low_rank import low_rank_head
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import PAPER, DetectRules, find_protocol, take


@dataclass(frozen=True)
class Detection:
    """One detected object of an image."""

    label: int  # index into the detector's class names
    score: float  # of the SVM
    box: tuple[float, float, float, float]  # x1, y1, x2, y2, 0-based inclusive pixels
    confidence: float | None = None  # probability that it is right; None: the detector is not calibrated


class Detector:
    """Scores windows of an image and turns them into detections.

    `Detector.load(folder).set_image(image).detect(boxes)`: the costly part happens once, in `set_image`.  With `fast`,
    part of the work of the fc layers is skipped and scores are approximate; the default is exact.  Raises `UsageError`
    where the detector lacks what `fast` needs, and for ranks that do not fit its fc layers.  The rules from scores to
    detections are those of the `protocol` of that name, unless `rules` gives them.
    """

    def __init__(
        self,
        extractor: Extractor,
        layer: str,
        class_names: tuple[str, ...],
        svms: Svms,
        *,
        head: Head | None = None,
        bbox: BoxRegressors | None = None,
        shortcuts: Shortcuts | None = None,
        rules: DetectRules | None = None,
        protocol: str = PAPER.name,
        calibration: Calibration | None = None,
        fast: FastOptions | None = None,
    ) -> None:
        self.rules = rules or take(DetectRules, find_protocol(protocol))
        self.protocol = protocol
        self.extractor = extractor
        self.fast = fast or FastOptions()
        self.layer = _layer(Layer(layer, head or extractor.network.head), self.fast, shortcuts)
        self.head = head
        self.class_names = class_names
        self.svms = svms
        self.bbox = bbox
        self.shortcuts = shortcuts
        self.calibration = calibration
        cascade = shortcuts.cascade if shortcuts is not None else None
        if self.fast.cascade is not None and cascade is None:
            raise UsageError("this detector has no cascade")
        self._scores = _Linear(svms, extractor.device)
        self._guess = _Linear(cascade, extractor.device) if cascade is not None else None
        self._prepared: Any = None

    def set_image(self, image: NDArray[np.uint8]) -> Self:
        """Compute what all windows of an RGB image `(H, W, 3)` uint8 share: its maps at every scale."""
        self._prepared = self.extractor.prepare(image)
        return self

    def score(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """SVM scores `(N, K)` of windows `(N, 4)` of the image that was set."""
        pooled = self.extractor.pool_distinct(self._prepared, boxes)
        return self.score_pooled(pooled.vectors)[pooled.rows]

    @torch.inference_mode()
    def features(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the SVMs see of windows `(N, 4)` of the image that was set: `(N, D)` float32 of the detector's layer."""
        pooled = self.extractor.pool_distinct(self._prepared, boxes)
        vectors: NDArray[np.float32] = self.layer(pooled.vectors).float().cpu().numpy()
        return vectors[pooled.rows]

    def detect(self, boxes: NDArray[np.floating]) -> list[Detection]:
        """Detections among windows `(N, 4)` of the image that was set, best first."""
        pooled = self.extractor.pool_distinct(self._prepared, boxes)
        return detect_together([self], [pooled], boxes, self._prepared.size)

    @torch.inference_mode()
    def score_pooled(self, pooled: Tensor) -> NDArray[np.float32]:
        """SVM scores `(N, K)` from pyramid vectors `(N, D)`; minus infinity for those that the cascade stops."""
        passed = self.promising(pooled)
        if passed is None:
            return self._scores(self.layer(pooled)).cpu().numpy()
        scores = torch.full((len(pooled), len(self.class_names)), -math.inf, device=pooled.device)
        scores[passed] = self._scores(self.layer(pooled[passed]))
        return scores.cpu().numpy()

    def promising(self, pooled: Tensor) -> Tensor | None:
        """Rows of the pyramid vectors `(N, D)` that the cascade lets through, in their order; None: all."""
        if self.fast.cascade is None or self._guess is None:
            return None
        best = self._guess(pooled).amax(dim=1).argsort(descending=True, stable=True)
        return best[: self.passing(len(pooled))].sort().values

    def passing(self, vectors: int) -> int:
        """How many of so many pyramid vectors the cascade lets through."""
        return vectors if self.fast.cascade is None else math.ceil(self.fast.cascade * vectors)

    def save(self, folder: Path) -> None:
        """Write the whole detector, never only its fast part, into an existing folder."""
        parts = DetectorParts(
            self.extractor,
            self.layer.name,
            self.class_names,
            self.svms,
            self.head,
            self.bbox,
            self.shortcuts,
            self.rules,
            self.protocol,
            self.calibration,
        )
        write_detector(parts, folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        scales: tuple[int, ...] | None = None,
        *,
        fast: FastOptions | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """The detector in `folder`, at the scales that it was trained at or at others; exact and in fp32 by default.

        Raises `DataError` where the folder is not whole, `UsageError` for options that do not fit the detector.
        """
        folder = Path(folder)
        if fast is not None:
            require_fitting(folder, fast)
        return cls(**vars(read_detector(folder, device, scales, precision)), fast=fast)


def detect_together(
    detectors: Sequence[Detector],
    pooled: Sequence[PooledWindows],
    boxes: NDArray[np.floating],
    size: tuple[int, int],
) -> list[Detection]:
    """Detections of one or several detectors of the same classes and protocol, best first.

    For each class: score threshold, NMS, the best 100; then regression and NMS once more (released code).  The windows
    as each of the detectors scores them compete in one NMS (paper section 4.4), and a window is moved by the regressors
    of the detector whose score it has.  The second NMS takes its boxes in the order in which the first one gave them,
    as the released code does, which matters for equal scores (`Protocol.nms_ties`).  A calibrated detector that works
    alone gives confidences, too.

    Args:
        detectors: one or several.
        pooled: their pyramid vectors of the windows.
        boxes: `(N, 4)` windows, the same for all.
        size: of the image, (H, W).
    """
    scores = [d.score_pooled(each.vectors)[each.rows] for d, each in zip(detectors, pooled, strict=True)]
    return detections_of(detectors, pooled, np.concatenate(scores), boxes, size)


def detections_of(
    detectors: Sequence[Detector],
    pooled: Sequence[PooledWindows],
    scores: NDArray[np.float32],
    boxes: NDArray[np.floating],
    size: tuple[int, int],
) -> list[Detection]:
    """What `detect_together` makes of the scores: those of the first detector's windows, then the next one's."""
    rules = detectors[0].rules
    windows = np.tile(boxes.astype(np.float64), (len(detectors), 1))
    selected = select_per_class(
        windows,
        scores,
        score_threshold=rules.score_threshold,
        iou=rules.nms_iou,
        ties=rules.nms_ties,
        max_per_image=rules.max_per_image,
    )
    regressed = any(detector.bbox is not None for detector in detectors)
    calibration = detectors[0].calibration if len(detectors) == 1 else None
    detections = []
    for label, rows in enumerate(selected):
        moved = windows[rows]
        if regressed and len(rows):
            for number, (detector, each) in enumerate(zip(detectors, pooled, strict=True)):
                scored = np.flatnonzero(rows // len(boxes) == number)  # by this detector
                if detector.bbox is not None and len(scored):
                    vectors = each.vectors[torch.from_numpy(each.rows[rows[scored] % len(boxes)])]
                    moved[scored] = detector.bbox(vectors.float().cpu().numpy(), moved[scored], label, size)
            kept = nms(moved, scores[rows, label], rules.nms_iou, rules.nms_ties)
            moved, rows = moved[kept], rows[kept]
        of_class = scores[rows, label]
        sure: Sequence[float | None] = [None] * len(rows)
        if calibration is not None:
            sure = calibration(of_class, label).tolist()
        detections += [
            Detection(label, *each)
            for each in zip(of_class.tolist(), map(tuple, moved.tolist()), sure, strict=True)
        ]
    return sorted(detections, key=lambda d: -d.score)


class _Linear:
    """Scores `(N, K)` float32 from features `(N, D)`."""

    def __init__(self, svms: Svms, device: str) -> None:
        self._weights = torch.from_numpy(svms.weights * np.float32(svms.scale)).to(device)
        self._bias = torch.from_numpy(svms.bias).to(device)

    def __call__(self, features: Tensor) -> Tensor:
        if features.dtype == torch.float32:
            return torch.addmm(self._bias, features, self._weights.T)
        return (features @ self._weights.T.to(features.dtype)).float() + self._bias


def _layer(layer: Layer, fast: FastOptions, shortcuts: Shortcuts | None) -> Layer:
    """The layer that the SVMs see, its fc layers cut where `fast` says so."""
    ranks = fast.fc_rank[: WINDOW_LAYERS.index(layer.name)]  # one for fc6, two for fc7
    if not ranks or layer.head is None:
        return layer
    if shortcuts is None:
        raise UsageError("this detector has no axes to cut its fc layers by")
    return Layer(layer.name, low_rank_head(layer.head, shortcuts.axes, ranks))
