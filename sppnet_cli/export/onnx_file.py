"""A graph as an ONNX file of standard operators, compared with the toolkit in ONNX Runtime before it gets its name."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from sppnet_cli import __version__
from sppnet_cli.atomic import atomic_path
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.export.graphs import DetectorGraph, NetworkGraph
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.sppnet import SPPNet

OPSET = 18
TOLERANCE = 1e-3  # of scores, and of features as a part of the largest
_SAME_BOX = 0.5  # pixels
_NOISY = ("torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class Exported:
    """What an ONNX file takes and gives, and how far it is from the toolkit."""

    inputs: dict[str, str]  # such as image: uint8 (height, width, 3)
    outputs: dict[str, str]
    opset: int
    compared: tuple[str, ...]  # the inputs that both were given
    largest_difference: float  # of scores or features
    largest_shift: float | None  # of boxes, in pixels; None of a network


def export_network(network: SPPNet, out: Path, class_names: Sequence[str] = ()) -> Exported:
    """Write the whole network for images of any size, or of 224 x 224 for a plain net.

    Raises as `export_detector` does.
    """
    graph = NetworkGraph(network)
    plain = network.spec.levels is None
    axes: dict[int, str] = {0: "images"} if plain else {0: "images", 1: "height", 2: "width"}
    example = torch.zeros(2, 224, 224 if plain else 231, 3, dtype=torch.uint8)
    with _written(graph, {"images": (example, axes)}, (graph.output,), out, class_names) as session:
        differences = []
        shapes = [(1, 224, 224), (3, 224, 224)] if plain else [(1, 224, 310), (3, 240, 180)]
        for (count, height, width), photo in zip(shapes, _photos(), strict=True):
            images = np.stack([photo[y : y + height, :width] for y in range(count)])
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            with torch.inference_mode():
                ours = (
                    network(pixels)
                    if network.head is not None
                    else network.pool(network.maps(pixels, "conv5"))
                )
            (theirs,) = session.run(None, {"images": images})
            differences.append(_difference(theirs, ours.numpy()) / max(1.0, float(ours.abs().max())))
        compared = tuple(f"{n} image{'s' * (n > 1)} of {height} x {width}" for n, height, width in shapes)
        result = Exported(*_interface(session), OPSET, compared, max(differences), None)
        _require_close(result, out)
    return result


def export_detector(detector: Detector, out: Path, *, nms: bool = False) -> Exported:
    """Write a detector as `DetectorGraph`, and compare it with `Detector` on random windows of two photos.

    Raises `DataError` where a package is missing, `UsageError` for detectors that have no graph, `SppnetError` where the
    file and the toolkit disagree by more than `TOLERANCE`; then nothing is written.
    """
    graph = DetectorGraph(detector, nms=nms)
    inputs = {
        "image": (torch.zeros(150, 200, 3, dtype=torch.uint8), {0: "height", 1: "width"}),
        "windows": (torch.tensor([[0.0, 0, 99, 99], [50, 20, 199, 149], [9, 9, 39, 59]]), {0: "windows"}),
    }
    outputs = ("labels", "scores", "boxes") if nms else ("scores", "boxes")
    with _written(graph, inputs, outputs, out, detector.class_names) as session:
        rng, compared, differences = np.random.default_rng(0), [], []
        for image, count in zip(_photos(), (200, 17), strict=True):
            height, width = image.shape[:2]
            corners = rng.integers(0, (width // 2, height // 2), (count, 2))
            sides = rng.integers(16, (width // 2, height // 2), (count, 2))
            windows = np.concatenate([corners, corners + sides - 1], axis=1).astype(np.float32)
            differences.append(compare(session, detector, image, windows))
            found = f" ({len(detector.detect(windows))} detections)" if nms else ""
            compared.append(f"{count} windows of a photo of {height} x {width}{found}")
        score, shift = np.max(differences, axis=0).tolist()
        result = Exported(*_interface(session), OPSET, tuple(compared), score, shift)
        _require_close(result, out)
    return result


def compare(
    session: Any, detector: Detector, image: NDArray[np.uint8], windows: NDArray[np.float32]
) -> tuple[float, float]:
    """Largest differences of scores and of boxes, in pixels, between a file in ONNX Runtime and the toolkit.

    Infinite where they detect other objects.  `image` is `(H, W, 3)` RGB, `windows` `(N, 4)`.
    """
    found = session.run(None, {"image": image, "windows": windows})
    detector.set_image(image)
    if len(found) == 2:
        moved = np.repeat(windows[:, None].astype(np.float64), len(detector.class_names), axis=1)
        if detector.bbox is not None:
            extractor = detector.extractor
            assert isinstance(extractor, SppWindows)
            pooled = extractor.pool(extractor.prepare(image), windows).float().numpy()
            for label in range(len(detector.class_names)):
                moved[:, label] = detector.bbox(pooled, windows, label, image.shape[:2])
        return _difference(found[0], detector.score(windows)), _difference(found[1], moved)
    ours = detector.detect(windows)
    labels, scores, boxes = found
    if len(ours) != len(labels):
        return np.inf, np.inf
    score = shift = 0.0
    for detection in ours:
        apart = np.abs(boxes - np.array(detection.box)).max(axis=1, initial=0)
        same = np.flatnonzero((labels == detection.label) & (apart < _SAME_BOX))
        if not len(same):
            return np.inf, np.inf
        nearest = same[np.abs(scores[same] - detection.score).argmin()]
        score = max(score, abs(float(scores[nearest]) - detection.score))
        shift = max(shift, float(apart[nearest]))
    return score, shift


def _photos() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A wide and a tall one."""
    wide, other = load_sample_images().images  # which scikit-learn brings along
    return wide.copy(), other[:, 100:420].copy()  # theirs are not writable


def open_session(path: Path) -> Any:
    """The file in ONNX Runtime, on the CPU.  Raises `DataError` where it is not installed."""
    onnxruntime = _packages()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _packages() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"export needs a package that is not installed ({error.name}); get it with: "
            "pip install onnx onnxruntime onnxscript"
        ) from None
    return onnxruntime


@contextlib.contextmanager
def _written(
    graph: NetworkGraph | DetectorGraph,
    inputs: dict[str, tuple[torch.Tensor, dict[int, str]]],
    outputs: tuple[str, ...],
    out: Path,
    class_names: Sequence[str],
) -> Iterator[Any]:
    """Write the graph; gives a session with the file, which gets its name where nothing is raised in the block."""
    _packages()
    import onnx_ir

    with atomic_path(out) as temporary:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                tuple(example for example, _ in inputs.values()),
                dynamo=True,
                dynamic_shapes=tuple(axes for _, axes in inputs.values()),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                custom_translation_table=_translations(),
                verbose=False,
            )
            assert program is not None
            for value in program.model.graph.outputs:  # a number of detections is u2, or so, to the exporter
                value.shape = onnx_ir.Shape(
                    ["detections" if str(n).startswith("u") else n for n in value.shape or ()]
                )
            program.model.producer_name, program.model.producer_version = "sppnet", __version__
            program.model.metadata_props["class_names"] = json.dumps(list(class_names))
            program.save(temporary, external_data=False)
        yield open_session(temporary)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings about its own inner life are of no use to anybody here."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _translations() -> dict[Any, Any]:
    """Operators of torch that its exporter cannot write, by standard operators of ONNX."""
    from onnxscript import opset18 as op

    integers = {"to": 7}  # int64

    def adaptive_max_pool2d(maps: Any, output_size: Sequence[int]) -> Any:
        # ONNX has no adaptive pooling: the maxima of rows, then of columns, by the bins of `bin_edges`.
        shape = op.Shape(maps)
        for axis, n in zip((2, 3), output_size, strict=True):
            extent = op.Slice(shape, [axis], [axis + 1])
            bins = []
            for i in range(n):
                first = op.Div(op.Mul(extent, [i]), [n])
                last = op.Div(op.Add(op.Mul(extent, [i + 1]), [n - 1]), [n])
                bins.append(op.ReduceMax(op.Slice(maps, first, last, [axis]), [axis], keepdims=1))
            maps = op.Concat(*bins, axis=axis)
        return maps, op.Cast(maps, **integers)  # the places of the maxima, which nobody asks for

    def roi_pool(maps: Any, rois: Any, spatial_scale: float, height: int, width: int) -> Any:
        pooled = op.MaxRoiPool(maps, rois, pooled_shape=(height, width), spatial_scale=spatial_scale)
        return pooled, op.Cast(pooled, **integers)

    def sort(x: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
        return op.TopK(x, op.Shape(x), axis=dim, largest=int(descending))  # of equals the first comes first

    def select(edges: Any, scores: Any, most: int, iou: float, threshold: float) -> Any:
        return op.NonMaxSuppression(
            edges,
            scores,
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou]),
            op.Constant(value_floats=[threshold]),
        )

    return {
        torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool2d,
        torch.ops.aten.sort.stable: sort,
        torch.ops.torchvision.roi_pool.default: roi_pool,
        torch.ops.sppnet.select.default: select,
    }


def _interface(session: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs by name: type and shape."""
    kinds = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}
    inputs, outputs = (
        {each.name: f"{kinds[each.type]} ({', '.join(map(str, each.shape))})" for each in group}
        for group in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


def _difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    if a.shape != b.shape:
        return np.inf
    apart = np.zeros(a.shape)
    np.subtract(a, b, out=apart, where=a != b)  # minus infinity is a score, too
    return float(np.nan_to_num(np.abs(apart), nan=np.inf).max(initial=0))


def _require_close(result: Exported, out: Path) -> None:
    if not (result.largest_difference <= TOLERANCE and (result.largest_shift or 0) <= _SAME_BOX):
        raise SppnetError(
            f"{out}: not written: ONNX Runtime and the toolkit differ by {result.largest_difference:.2g}; try other "
            "versions of onnx and onnxruntime"
        )
