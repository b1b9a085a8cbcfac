"""A detector is one thing: network, protocol, scales, SVMs, box regressors and class names in one folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.detection.fast import FastOptions, fast_options
from sppnet_cli.detection.nms import nms, select_per_class
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.distinct import PooledWindows, pool_distinct
from sppnet_cli.features.layers import LAYERS, Layer
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.windows import Extractor
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import Axes, axes_kept, low_rank_head
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import FC_LAYERS, Head, SPPNet
from sppnet_cli.network.weights import (
    HEAD_FILE,
    load_head,
    load_network,
    read_state_dict,
    save_head,
    save_network,
    save_tensors,
)
from sppnet_cli.protocols import PROTOCOLS, Protocol
from sppnet_cli.records import read_json_as

DETECTOR_FILE = "detector.json"
SVM_FILE = "svm.safetensors"
BBOX_FILE = "bbox.safetensors"
SHORTCUTS_FILE = "shortcuts.safetensors"


@dataclass(frozen=True)
class Detection:
    """One detected object of an image."""

    label: int  # index into the detector's class names
    score: float  # of the SVM
    box: tuple[float, float, float, float]  # x1, y1, x2, y2, 0-based inclusive pixels


def make_extractor(
    method: str,
    network: SPPNet,
    protocol: Protocol,
    scales: tuple[int, ...],
    device: str,
    precision: Precision = "fp32",
) -> Extractor:
    """SPP-net's window features at `scales`, or R-CNN's, which has none; computed in fp32 or bf16."""
    if method == "rcnn":
        return RcnnWindows(network, protocol, device, precision)
    return SppWindows(network, protocol, scales, device, precision)


@dataclass(frozen=True)
class Description:
    """What `detector.json` says."""

    method: str  # spp or rcnn
    scales: tuple[int, ...]
    protocol: str
    layer: str  # pool5, fc6 or fc7
    fine_tuned: bool
    regressed: bool  # boxes, by regressors of the folder
    class_names: tuple[str, ...]
    shortcuts: bool = False  # are in the folder, for `FastOptions`

    @property
    def row(self) -> str:
        """The detector's row in Table 6, such as ftfc7."""
        return "ft" * self.fine_tuned + self.layer


def read_description(folder: Path) -> Description:
    """The description of a detector folder.  Raises `DataError` where there is none."""
    path = folder / DETECTOR_FILE
    if not path.exists():
        raise DataError(
            f"{folder}: not a detector (it has no {DETECTOR_FILE}); make one with `sppnet train-svm`"
        )
    remedy = "this is not a detector: make one with `sppnet train-svm`"
    about = read_json_as(Description, path, remedy=remedy, limits={"scales": (1, 10_000)})
    if about.protocol not in PROTOCOLS or about.method not in ("spp", "rcnn") or about.layer not in LAYERS:
        raise DataError(f"{path}: names an unknown protocol, method or layer; make the detector anew")
    if about.method == "spp" and not about.scales:
        raise DataError(f"{path}: has no scales; make the detector anew")
    if (
        not about.class_names
        or len(set(about.class_names)) < len(about.class_names)
        or "" in about.class_names
    ):
        raise DataError(f"{path}: its class names are none, empty or the same; make the detector anew")
    return about


def fastest(folder: Path) -> FastOptions:
    """What `--fast` means for the detector in `folder`; for R-CNN's, the ranks.  Raises `UsageError` for one on pool5."""
    about = read_description(folder)
    options = fast_options(about.layer, load_head(folder) if about.fine_tuned else load_network(folder).head)
    return options if about.method == "spp" else FastOptions(options.fc_rank)


class Detector:
    """Scores windows of an image and turns them into detections.

    `Detector.load(folder).set_image(image).detect(boxes)`: the costly part happens once, in `set_image`.  With `fast`
    the fc layers are passed by in part; the default is exact.  Raises `UsageError` where there are none to pass by,
    and for ranks that do not fit.
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
        fast: FastOptions | None = None,
    ) -> None:
        self.extractor = extractor
        self.fast = fast or FastOptions()
        self.layer = _layer(Layer(layer, head or extractor.network.head), self.fast, shortcuts)
        self.head = head
        self.class_names = class_names
        self.svms = svms
        self.bbox = bbox
        self.shortcuts = shortcuts
        cascade = shortcuts.cascade if shortcuts is not None else None
        if self.fast.cascade is not None and cascade is None:
            raise UsageError("this detector has no cascade")
        self._scores = _Linear(svms, extractor.device)
        self._guess = _Linear(cascade, extractor.device) if cascade is not None else None
        self._prepared: Any = None

    @property
    def protocol(self) -> Protocol:
        """The protocol that the detector was trained by."""
        return self.extractor.protocol

    def set_image(self, image: NDArray[np.uint8]) -> Self:
        """Compute what all windows of an RGB image `(H, W, 3)` uint8 share: its maps at every scale."""
        self._prepared = self.extractor.prepare(image)
        return self

    def score(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """SVM scores `(N, K)` of windows `(N, 4)` of the image that was set."""
        pooled = self._pool(boxes)
        return self.score_pooled(pooled.vectors)[pooled.rows]

    def detect(self, boxes: NDArray[np.floating]) -> list[Detection]:
        """Detections among windows `(N, 4)` of the image that was set, best first."""
        return detect_together([self], [self._pool(boxes)], boxes, self._prepared.size)

    def _pool(self, boxes: NDArray[np.floating]) -> PooledWindows:
        return pool_distinct(self.extractor, self._prepared, boxes)

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
        part = self.fast.cascade
        if part is None or self._guess is None:
            return None
        promise = self._guess(pooled).amax(dim=1)
        return promise.argsort(descending=True, stable=True)[: math.ceil(part * len(pooled))].sort().values

    def detect_pooled(
        self, pooled: Tensor, boxes: NDArray[np.floating], size: tuple[int, int]
    ) -> list[Detection]:
        """Detections from pyramid vectors `(N, D)` of windows `(N, 4)` in an image of `size` (H, W).

        Score threshold, NMS, the best 100 of each class; then regression and NMS once more (released code).
        """
        return detect_together([self], [PooledWindows(pooled, np.arange(len(boxes)))], boxes, size)

    def save(self, folder: Path) -> None:
        """Write the whole detector into an existing folder."""
        save_network(self.extractor.network, folder)
        if self.head is not None:
            save_head(self.head, folder)
        save_tensors(_state(self.svms), folder / SVM_FILE)
        if self.bbox is not None:
            save_tensors(_state(self.bbox), folder / BBOX_FILE)
        if self.shortcuts is not None:
            state = {
                f"{name}.{field}": value
                for name, axes in self.shortcuts.axes.items()
                for field, value in axes._asdict().items()
            }
            if self.shortcuts.cascade is not None:
                state |= {
                    f"cascade.{field}": value for field, value in _state(self.shortcuts.cascade).items()
                }
            save_tensors(state, folder / SHORTCUTS_FILE)
        about = Description(
            self.extractor.method,
            self.extractor.scales,
            self.protocol.name,
            self.layer.name,
            self.head is not None,
            self.bbox is not None,
            self.class_names,
            self.shortcuts is not None,
        )
        (folder / DETECTOR_FILE).write_text(json.dumps(asdict(about), indent=2) + "\n")

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        scales: tuple[int, ...] | None = None,
        *,
        fast: FastOptions | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """The detector in `folder`, at its own scales or others; exact unless told to be `fast` or less precise.

        Raises `DataError` where it is not whole, `UsageError` for options that do not fit it.
        """
        about = read_description(folder)
        if fast is not None and fast != FastOptions():
            _require_slow(folder, about, fast)
        network = load_network(folder)
        head = load_head(folder) if about.fine_tuned else None
        if head is not None and head.fc6.in_features != network.pooled_size:
            raise DataError(f"{folder / HEAD_FILE}: is of another network; copy the detector as a whole")
        extractor = make_extractor(
            about.method, network, PROTOCOLS[about.protocol], scales or about.scales, device, precision
        )
        layer = Layer(about.layer, head or network.head)
        width = network.pooled_size if layer.name == "pool5" else getattr(layer.head, layer.name).out_features
        classes = len(about.class_names)
        svms = Svms(*_read_linear(folder / SVM_FILE, (classes, width)))
        bbox = None
        if about.regressed:
            bbox = BoxRegressors(*_read_linear(folder / BBOX_FILE, (classes, network.pooled_size, 4)))
        shortcuts = None
        if about.shortcuts:
            shortcuts = _read_shortcuts(folder / SHORTCUTS_FILE, layer, classes, network.pooled_size)
        return cls(
            extractor,
            about.layer,
            about.class_names,
            svms,
            head=head,
            bbox=bbox,
            shortcuts=shortcuts,
            fast=fast,
        )


def detect_together(
    detectors: Sequence[Detector],
    pooled: Sequence[PooledWindows],
    boxes: NDArray[np.floating],
    size: tuple[int, int],
) -> list[Detection]:
    """Detections of one or several detectors of the same classes and protocol, best first.

    All windows as each of the detectors scores them compete in one NMS (paper section 4.4); each is then moved by
    the regressors of the detector whose score it has, and NMS once more.

    Args:
        detectors: one or several.
        pooled: their pyramid vectors of the windows.
        boxes: `(N, 4)` windows, the same for all.
        size: of the image, (H, W).
    """
    protocol = detectors[0].protocol
    scores = np.concatenate(
        [d.score_pooled(each.vectors)[each.rows] for d, each in zip(detectors, pooled, strict=True)]
    )
    windows = np.tile(boxes.astype(np.float64), (len(detectors), 1))
    selected = select_per_class(
        windows,
        scores,
        score_threshold=protocol.score_threshold,
        iou=protocol.nms_iou,
        max_per_image=protocol.max_per_image,
    )
    regressed = any(detector.bbox is not None for detector in detectors)
    found = []
    for label, rows in enumerate(selected):
        moved = windows[rows]
        if regressed and len(rows):
            for number, (detector, each) in enumerate(zip(detectors, pooled, strict=True)):
                own = np.flatnonzero(rows // len(boxes) == number)
                if detector.bbox is not None and len(own):
                    vectors = each.vectors[torch.from_numpy(each.rows[rows[own] % len(boxes)])]
                    moved[own] = detector.bbox(vectors.float().cpu().numpy(), moved[own], label, size)
            kept = nms(moved, scores[rows, label], protocol.nms_iou)
            moved, rows = moved[kept], rows[kept]
        found += [
            Detection(label, float(scores[row, label]), tuple(box))
            for row, box in zip(rows, moved.tolist(), strict=True)
        ]
    return sorted(found, key=lambda d: -d.score)


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
    ranks = fast.fc_rank[: LAYERS.index(layer.name)]  # one for fc6, two for fc7
    if not ranks or layer.head is None:
        return layer
    if shortcuts is None:
        raise UsageError("this detector has no axes to cut its fc layers by")
    return Layer(layer.name, low_rank_head(layer.head, shortcuts.axes, ranks))


def _require_slow(folder: Path, about: Description, fast: FastOptions) -> None:
    """Raise `UsageError` or `DataError` where a detector has nothing to be made fast by these options."""
    if about.layer not in FC_LAYERS:
        raise UsageError(f"{folder}: its SVMs are on {about.layer}: no fc layers to make fast")
    if fast.cascade is not None and about.method != "spp":
        raise UsageError(f"{folder}: R-CNN's time goes into its windows, which no cascade spares")
    if not about.shortcuts:
        raise DataError(
            f"{folder}: has no {SHORTCUTS_FILE}, which earlier versions did not make; remove it and train it anew "
            "with `sppnet train-svm`"
        )


def _state(linear: Svms | BoxRegressors) -> dict[str, Tensor]:
    return {
        "weights": torch.from_numpy(linear.weights),
        "bias": torch.from_numpy(linear.bias),
        "scale": torch.tensor(linear.scale, dtype=torch.float64),
    }


def _read_shortcuts(path: Path, layer: Layer, classes: int, pooled_size: int) -> Shortcuts:
    state = read_state_dict(path, bottomless=("cascade.bias",))
    names = FC_LAYERS[: LAYERS.index(layer.name)]
    wanted: dict[str, tuple[int, ...]] = {}
    for name in names:
        outputs = getattr(layer.head, name).out_features
        wanted |= {f"{name}.axes": (outputs, axes_kept(outputs)), f"{name}.mean": (outputs,)}
    if "cascade.weights" in state:
        wanted |= {"cascade.weights": (classes, pooled_size), "cascade.bias": (classes,), "cascade.scale": ()}
    _require_shapes(path, state, wanted)
    cascade = None
    if "cascade.weights" in state:
        weights, bias, scale = (state[f"cascade.{field}"] for field in ("weights", "bias", "scale"))
        cascade = Svms(weights.float().numpy(), bias.float().numpy(), float(scale))
    axes = {name: Axes(state[f"{name}.axes"].float(), state[f"{name}.mean"].float()) for name in names}
    return Shortcuts(cascade, axes)


def _read_linear(
    path: Path, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Weights of `shape` (K, width, ...), biases (K, ...) and feature scale."""
    state = read_state_dict(path, bottomless=("bias",))
    _require_shapes(path, state, {"weights": shape, "bias": (shape[0], *shape[2:]), "scale": ()})
    return state["weights"].float().numpy(), state["bias"].float().numpy(), float(state["scale"])


def _require_shapes(path: Path, state: dict[str, Tensor], wanted: dict[str, tuple[int, ...]]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != wanted or not all(tensor.dtype.is_floating_point for tensor in state.values()):
        raise DataError(f"{path}: is of another detector; copy the detector as a whole")
