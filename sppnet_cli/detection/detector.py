"""A detector is one thing: network, protocol, scales, SVMs, box regressors and class names in one folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from sppnet_cli.detection.nms import nms, select_per_class
from sppnet_cli.errors import DataError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.windows import Extractor
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.sppnet import Head, SPPNet
from sppnet_cli.network.weights import (
    HEAD_FILE,
    load_head,
    load_network,
    read_state_dict,
    save_head,
    save_network,
)
from sppnet_cli.protocols import PROTOCOLS, Protocol

DETECTOR_FILE = "detector.json"
SVM_FILE = "svm.safetensors"
BBOX_FILE = "bbox.safetensors"


@dataclass(frozen=True)
class Detection:
    """One detected object of an image."""

    label: int  # index into the detector's class names
    score: float  # of the SVM
    box: tuple[float, float, float, float]  # x1, y1, x2, y2, 0-based inclusive pixels


def make_extractor(
    method: str, network: SPPNet, protocol: Protocol, scales: tuple[int, ...], device: str
) -> Extractor:
    """SPP-net's window features at `scales`, or R-CNN's, which has none."""
    if method == "rcnn":
        return RcnnWindows(network, protocol, device)
    return SppWindows(network, protocol, scales, device)


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

    @property
    def row(self) -> str:
        """The detector's row in Table 6, such as ftfc7."""
        return "ft" * self.fine_tuned + self.layer


def read_description(folder: Path) -> Description:
    """The description of a detector folder.  Raises `DataError` where there is none."""
    try:
        fields = json.loads((folder / DETECTOR_FILE).read_text())
        tuples = {name: tuple(fields[name]) for name in ("scales", "class_names")}
        about = Description(**{**fields, **tuples})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a detector ({error}); make one with `sppnet train-svm`") from None
    if about.protocol not in PROTOCOLS or about.method not in ("spp", "rcnn"):
        raise DataError(f"{folder}: {DETECTOR_FILE} names an unknown protocol or method; make it anew")
    return about


class Detector:
    """Scores windows of an image and turns them into detections.

    `Detector.load(folder).set_image(image).detect(boxes)`: the costly part happens once, in `set_image`.
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
    ) -> None:
        self.extractor = extractor
        self.layer = Layer(layer, head or extractor.network.head)
        self.head = head
        self.class_names = class_names
        self.svms = svms
        self.bbox = bbox
        self._weights = torch.from_numpy(svms.weights * np.float32(svms.scale)).to(extractor.device)
        self._bias = torch.from_numpy(svms.bias).to(extractor.device)
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
        return self.score_pooled(self.extractor.pool(self._prepared, boxes))

    def detect(self, boxes: NDArray[np.floating]) -> list[Detection]:
        """Detections among windows `(N, 4)` of the image that was set, best first."""
        pooled = self.extractor.pool(self._prepared, boxes)
        return self.detect_pooled(pooled, boxes, self._prepared.size)

    def score_pooled(self, pooled: Tensor) -> NDArray[np.float32]:
        """SVM scores `(N, K)` from pyramid vectors `(N, D)`."""
        with torch.inference_mode():
            return torch.addmm(self._bias, self.layer(pooled), self._weights.T).cpu().numpy()

    def detect_pooled(
        self, pooled: Tensor, boxes: NDArray[np.floating], size: tuple[int, int]
    ) -> list[Detection]:
        """Detections from pyramid vectors `(N, D)` of windows `(N, 4)` in an image of `size` (H, W).

        Score threshold, NMS, the best 100 of each class; then regression and NMS once more (released code).
        """
        return detect_together([self], [pooled], boxes, size)

    def save(self, folder: Path) -> None:
        """Write the whole detector into an existing folder."""
        save_network(self.extractor.network, folder)
        if self.head is not None:
            save_head(self.head, folder)
        svm = {
            "weights": torch.from_numpy(self.svms.weights),
            "bias": torch.from_numpy(self.svms.bias),
            "scale": torch.tensor(self.svms.scale, dtype=torch.float64),
        }
        save_file(svm, folder / SVM_FILE)
        if self.bbox is not None:
            bbox = {
                "weights": torch.from_numpy(self.bbox.weights),
                "bias": torch.from_numpy(self.bbox.bias),
                "scale": torch.tensor(self.bbox.scale, dtype=torch.float64),
            }
            save_file(bbox, folder / BBOX_FILE)
        about = Description(
            self.extractor.method,
            self.extractor.scales,
            self.protocol.name,
            self.layer.name,
            self.head is not None,
            self.bbox is not None,
            self.class_names,
        )
        (folder / DETECTOR_FILE).write_text(json.dumps(asdict(about), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", scales: tuple[int, ...] | None = None) -> Self:
        """The detector in `folder`, at its own scales or others.  Raises `DataError` where it is not whole."""
        about = read_description(folder)
        network = load_network(folder)
        head = load_head(folder) if about.fine_tuned else None
        if head is not None and head.fc6.in_features != network.pooled_size:
            raise DataError(f"{folder / HEAD_FILE}: is of another network; copy the detector as a whole")
        extractor = make_extractor(
            about.method, network, PROTOCOLS[about.protocol], scales or about.scales, device
        )
        layer = Layer(about.layer, head or network.head)
        width = network.pooled_size if layer.name == "pool5" else getattr(layer.head, layer.name).out_features
        classes = len(about.class_names)
        svms = Svms(*_read_linear(folder / SVM_FILE, (classes, width)))
        bbox = None
        if about.regressed:
            bbox = BoxRegressors(*_read_linear(folder / BBOX_FILE, (classes, network.pooled_size, 4)))
        return cls(extractor, about.layer, about.class_names, svms, head=head, bbox=bbox)


def detect_together(
    detectors: Sequence[Detector],
    pooled: Sequence[Tensor],
    boxes: NDArray[np.floating],
    size: tuple[int, int],
) -> list[Detection]:
    """Detections of one or several detectors of the same classes and protocol, best first.

    All windows as each of the detectors scores them compete in one NMS (paper section 4.4); each is then moved by
    the regressors of the detector whose score it has, and NMS once more.

    Args:
        detectors: one or several.
        pooled: their pyramid vectors `(N, D)` of the windows.
        boxes: `(N, 4)` windows, the same for all.
        size: of the image, (H, W).
    """
    protocol = detectors[0].protocol
    scores = np.concatenate([d.score_pooled(vectors) for d, vectors in zip(detectors, pooled, strict=True)])
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
            for number, (detector, vectors) in enumerate(zip(detectors, pooled, strict=True)):
                own = np.flatnonzero(rows // len(boxes) == number)
                if detector.bbox is not None and len(own):
                    of_windows = vectors[torch.from_numpy(rows[own] % len(boxes))].cpu().numpy()
                    moved[own] = detector.bbox(of_windows, moved[own], label, size)
            kept = nms(moved, scores[rows, label], protocol.nms_iou)
            moved, rows = moved[kept], rows[kept]
        found += [
            Detection(label, float(scores[row, label]), tuple(box))
            for row, box in zip(rows, moved.tolist(), strict=True)
        ]
    return sorted(found, key=lambda d: -d.score)


def _read_linear(
    path: Path, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Weights of `shape` (K, width, ...), biases (K, ...) and feature scale."""
    state = read_state_dict(path)
    wanted = {"weights": shape, "bias": (shape[0], *shape[2:]), "scale": ()}
    if {name: tuple(tensor.shape) for name, tensor in state.items()} != wanted:
        raise DataError(f"{path}: is of another detector; copy the detector as a whole")
    return state["weights"].numpy(), state["bias"].numpy(), float(state["scale"])
