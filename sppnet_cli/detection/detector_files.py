"""The folder of a detector: what it is, and how its parts are written and read."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.atomic import write_json
from sppnet_cli.detection.fast import FastOptions, fast_options
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.methods import METHODS, make_extractor
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.calibration import Calibration
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.names import FC_LAYERS, WINDOW_LAYERS
from sppnet_cli.network.low_rank import Axes, axes_kept
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import Head
from sppnet_cli.network.weights import (
    HEAD_FILE,
    load_head,
    load_network,
    read_state_dict,
    save_head,
    save_network,
    save_tensors,
)
from sppnet_cli.protocols import PROTOCOLS, DetectRules, MappingRules
from sppnet_cli.records import read_json_as

DETECTOR_FILE = "detector.json"
SVM_FILE = "svm.safetensors"
BBOX_FILE = "bbox.safetensors"
SHORTCUTS_FILE = "shortcuts.safetensors"  # of a detector on fc6 or fc7


_LIMITS = {
    "scales": (1, 10_000),
    "mapping.cell_slack": (0, 8),
    "rules.nms_iou": (0, 1),
    "rules.max_per_image": (1, 1_000_000),
    "calibration.slope": (0, 1e9),
    "calibration.offset": (-1e9, 1e9),
    "calibration.knee": (-1e9, 1e9),
    "calibration.bend": (0, 1),
}


@dataclass(frozen=True)
class Description:
    """What `detector.json` says."""

    method: str  # a name in METHODS
    scales: tuple[int, ...]  # short sides in pixels; none for a method without
    protocol: str  # the name of the one whose rules these are
    mapping: MappingRules
    rules: DetectRules
    layer: str  # pool5, fc6 or fc7: what the SVMs score
    fine_tuned: bool  # whether the fc layers are the detector's own, in its head file
    regressed: bool  # whether there are box regressors
    class_names: tuple[str, ...]
    calibration: Calibration | None = None  # from scores to confidences

    @property
    def row(self) -> str:
        """The detector's row in Table 6, such as ftfc7."""
        return "ft" * self.fine_tuned + self.layer


@dataclass(frozen=True)
class DetectorParts:
    """What a detector's folder holds."""

    extractor: Extractor
    layer: str
    class_names: tuple[str, ...]
    svms: Svms
    head: Head | None  # fine-tuned; None: the network's
    bbox: BoxRegressors | None
    shortcuts: Shortcuts | None  # None on pool5
    rules: DetectRules
    protocol: str  # its name
    calibration: Calibration | None = None


def read_description(folder: Path) -> Description:
    """The description of a detector folder.  Raises `DataError` where there is none."""
    path = folder / DETECTOR_FILE
    if not path.exists():
        raise DataError(
            f"{folder}: not a detector (it has no {DETECTOR_FILE}); make one with `sppnet train-svm`"
        )
    remedy = "this is not a detector: make one with `sppnet train-svm`"
    about = read_json_as(Description, path, remedy=remedy, limits=_LIMITS)
    known = {"protocol": tuple(PROTOCOLS), "method": tuple(METHODS), "layer": WINDOW_LAYERS}
    for name, values in known.items():
        if getattr(about, name) not in values:
            raise DataError(
                f"{path}: names the unknown {name} {getattr(about, name)!r}; make the detector again"
            )
    if not METHODS[about.method].per_window and not about.scales:
        raise DataError(f"{path}: has no scales; make the detector again")
    names = about.class_names
    if not names or len(set(names)) < len(names) or "" in names:
        raise DataError(f"{path}: its class names are none, empty or the same; make the detector again")
    curves = about.calibration
    if curves is not None and not len(curves.slope) == len(curves.offset) == len(names):
        raise DataError(f"{path}: its calibration is of other classes; make the detector again")
    return about


def write_detector(parts: DetectorParts, folder: Path) -> None:
    """Write all parts into an existing folder.  Raises `UsageError` for a detector on fc layers without shortcuts."""
    if parts.layer in FC_LAYERS and parts.shortcuts is None:
        raise UsageError(f"a detector on {parts.layer} cannot be saved without its shortcuts")
    save_network(parts.extractor.network, folder)
    if parts.head is not None:
        save_head(parts.head, folder)
    save_tensors(_state(parts.svms), folder / SVM_FILE)
    if parts.bbox is not None:
        save_tensors(_state(parts.bbox), folder / BBOX_FILE)
    if parts.shortcuts is not None:
        _write_shortcuts(parts.shortcuts, folder / SHORTCUTS_FILE)
    about = Description(
        parts.extractor.method,
        parts.extractor.scales,
        parts.protocol,
        parts.extractor.mapping,
        parts.rules,
        parts.layer,
        parts.head is not None,
        parts.bbox is not None,
        parts.class_names,
        parts.calibration,
    )
    fields = asdict(about)
    if parts.calibration is None:
        del fields["calibration"]
    write_json(folder / DETECTOR_FILE, fields)


def read_detector(
    folder: Path, device: str = "cpu", scales: tuple[int, ...] | None = None, precision: Precision = "fp32"
) -> DetectorParts:
    """The parts in `folder`, with the extractor at the folder's scales or others.

    Raises `DataError` where a part is missing or is of another detector.
    """
    about = read_description(folder)
    network = load_network(folder)
    head = load_head(folder) if about.fine_tuned else None
    if head is not None and head.fc6.in_features != network.pooled_size:
        raise DataError(f"{folder / HEAD_FILE}: is of another network; copy the detector as a whole")
    extractor = make_extractor(
        about.method, network, about.mapping, scales or about.scales, device, precision
    )
    layer = Layer(about.layer, head or network.head)
    width = getattr(layer.head, layer.name).out_features if layer.name in FC_LAYERS else network.pooled_size
    classes = len(about.class_names)
    svms = Svms(*_read_linear(folder / SVM_FILE, (classes, width)))
    bbox = None
    if about.regressed:
        bbox = BoxRegressors(*_read_linear(folder / BBOX_FILE, (classes, network.pooled_size, 4)))
    shortcuts = None
    if layer.name in FC_LAYERS:
        cascade = (classes, network.pooled_size) if extractor.cascade else None
        shortcuts = _read_shortcuts(folder / SHORTCUTS_FILE, layer, cascade)
    return DetectorParts(
        extractor,
        layer.name,
        about.class_names,
        svms,
        head,
        bbox,
        shortcuts,
        about.rules,
        about.protocol,
        about.calibration,
    )


def fastest(folder: Path) -> FastOptions:
    """What `--fast` means for the detector in `folder`: nothing for one without fc layers."""
    about = read_description(folder)
    if about.layer not in FC_LAYERS:
        return FastOptions()
    options = fast_options(about.layer, load_head(folder) if about.fine_tuned else load_network(folder).head)
    return options if _has_cascade(about) else FastOptions(options.fc_rank)


def require_fitting(folder: Path, fast: FastOptions) -> None:
    """Raise `UsageError` where `fast` asks for what the detector in `folder` does not have."""
    about = read_description(folder)
    if fast != FastOptions() and about.layer not in FC_LAYERS:
        raise UsageError(f"{folder}: its SVMs are on {about.layer}: no fc layers to make fast")
    if fast.cascade is not None and not _has_cascade(about):
        raise UsageError(
            f"{folder}: a detector of method {about.method} has no cascade: its time is not spent in the fc layers"
        )


def _has_cascade(about: Description) -> bool:
    return METHODS[about.method].cascade


def _state(linear: Svms | BoxRegressors) -> dict[str, Tensor]:
    return {
        "weights": torch.from_numpy(linear.weights),
        "bias": torch.from_numpy(linear.bias),
        "scale": torch.tensor(linear.scale, dtype=torch.float64),
    }


def _read_linear(
    path: Path, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Weights of `shape` (K, width, ...), biases (K, ...) and feature scale."""
    state = read_state_dict(path, bottomless=("bias",))
    _require_shapes(path, state, {"weights": shape, "bias": (shape[0], *shape[2:]), "scale": ()})
    return state["weights"].float().numpy(), state["bias"].float().numpy(), float(state["scale"])


def _write_shortcuts(shortcuts: Shortcuts, path: Path) -> None:
    state = {
        f"{name}.{key}": value
        for name, axes in shortcuts.axes.items()
        for key, value in axes._asdict().items()
    }
    if shortcuts.cascade is not None:
        state |= {f"cascade.{key}": value for key, value in _state(shortcuts.cascade).items()}
    save_tensors(state, path)


def _read_shortcuts(path: Path, layer: Layer, cascade_shape: tuple[int, int] | None) -> Shortcuts:
    """Axes of the fc layers up to `layer`, and a cascade with weights `(K, D)` of the given shape, if any."""
    state = read_state_dict(path, bottomless=("cascade.bias",))
    names = FC_LAYERS[: FC_LAYERS.index(layer.name) + 1]
    wanted: dict[str, tuple[int, ...]] = {}
    for name in names:
        outputs = getattr(layer.head, name).out_features
        wanted |= {f"{name}.axes": (outputs, axes_kept(outputs)), f"{name}.mean": (outputs,)}
    if cascade_shape is not None:
        wanted |= {"cascade.weights": cascade_shape, "cascade.bias": cascade_shape[:1], "cascade.scale": ()}
    _require_shapes(path, state, wanted)
    cascade = None
    if cascade_shape is not None:
        weights, bias, scale = (state[f"cascade.{key}"] for key in ("weights", "bias", "scale"))
        cascade = Svms(weights.float().numpy(), bias.float().numpy(), float(scale))
    axes = {name: Axes(state[f"{name}.axes"].float(), state[f"{name}.mean"].float()) for name in names}
    return Shortcuts(cascade, axes)


def _require_shapes(path: Path, state: dict[str, Tensor], wanted: dict[str, tuple[int, ...]]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != wanted or not all(tensor.dtype.is_floating_point for tensor in state.values()):
        raise DataError(f"{path}: is of another detector; copy the detector as a whole")
