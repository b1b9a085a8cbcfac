"""Networks from Caffe models of the ZF kind: that of the SPP-net authors and that of py-faster-rcnn."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.kernels.pyramid import SPP4, SPP6, bin_count
from sppnet_cli.names import DROPOUT_SCALINGS
from sppnet_cli.network.caffemodel import Blob
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.zf5 import scaled_width

Layers = Mapping[str, Sequence[Blob]]


class Kind(NamedTuple):
    """A published net: shapes of weights do not tell the two apart."""

    arch: str
    levels: tuple[int, ...]  # of its own pooling


KINDS = {
    # SPP_net's Zeiler_conv5.prototxt; 0..255 BGR minus 128 (its caffe_anysize_test.m).
    "zeiler-conv5": Kind("zf5", SPP6),
    # py-faster-rcnn's models/pascal_voc/ZF: RoI pooling to 6x6 bins.
    "py-faster-rcnn-zf": Kind("zf5-frcnn", (6,)),
}
_PYRAMIDS = {bin_count(levels): levels for levels in (SPP6, SPP4, (6,))}
_FILTERS = {"conv1": 96, "conv2": 256, "conv3": 384, "conv4": 384, "conv5": 256}
_WIDEST = 4


def find_kind(layers: Layers) -> str:
    """`py-faster-rcnn-zf` where the layers' names are those of Fast or Faster R-CNN, else `zeiler-conv5`."""
    detects = any(name.startswith("rpn_") or name in ("cls_score", "bbox_pred") for name in layers)
    return "py-faster-rcnn-zf" if detects else "zeiler-conv5"


def network_of_layers(
    layers: Layers, kind: str, source: Path, *, dropout_scaling: str = "training"
) -> tuple[SPPNet, list[str]]:
    """The network with the weights of conv1 to conv5, fc6, fc7 and fc8, and the names of the layers left out.

    The width is that of the file's filters, the pyramid that of fc6's inputs: 50 bins are {6,3,2,1}, 30 are
    {4,3,2,1}, 36 are 6x6 alone.  A file without fc6 and fc7 gives a trunk, one without fc8 a head of no
    classes: a layer of another name, such as cls_score or fc8_pascal, is no fc8.

    fc6's inputs need no reordering.  Zeiler_conv5.prototxt concatenates the flattened levels 1, 2, 3, 6, and
    py-faster-rcnn flattens 6x6 bins; Caffe flattens `(C, n, n)`, channel first: this is the layout of
    `SpatialPyramidPooling`.  (On whole images of 224 px that prototxt starts the second bins of its 2x2 level a
    cell later than the paper and the released window pooling, `spm_pool_caffe_mex.cpp`, whose bins are ours.)

    `dropout_scaling` says when the Caffe that trained the net made up for dropout.  `training` leaves the weights
    alone: right for BVLC's Caffe, and what the released SPP-net test code computes.  Both published nets were
    trained by forks that halve the outputs of dropout at test time instead (`scale_train: false`; SPP_net's
    issue 51, which puts the difference at half a point of mAP): with `testing` the halves go into the weights of
    fc7 and fc8.

    `layers` is what `read_caffemodel` gives, `source` the file to name in errors.  Raises `DataError` with all
    differences where the shapes do not fit, `UsageError` for another kind or scaling.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r}: {' or '.join(KINDS)}")
    if dropout_scaling not in DROPOUT_SCALINGS:
        raise UsageError(f"unknown dropout scaling {dropout_scaling!r}: {' or '.join(DROPOUT_SCALINGS)}")
    spec = _spec_of(layers, KINDS[kind])
    with torch.device("meta"):
        wanted = _layers_of(SPPNet(spec))
    if not spec.classes:
        wanted.pop("fc8", None)
    if differences := _differences(layers, wanted):
        raise DataError(f"{source}: not of kind {kind}, width {spec.width:g}: {'; '.join(differences)}")
    network = SPPNet(spec)
    own = _layers_of(network)
    with torch.no_grad():
        for name in wanted:
            factor = 0.5 if name in ("fc7", "fc8") and dropout_scaling == "testing" else 1.0
            weight, bias = _parameters(own[name])
            weight.copy_(torch.from_numpy(factor * layers[name][0]).view(weight.shape))
            bias.copy_(torch.from_numpy(1.0 * layers[name][1]).view(bias.shape))
    return network.eval(), [name for name in layers if name not in wanted]


def _spec_of(layers: Layers, kind: Kind) -> NetworkSpec:
    """The network that fits most of the file's shapes."""
    width = _width({name: _outputs(layers[name][0]) for name in _FILTERS if name in layers})
    present = [name for name in ("fc6", "fc7") if name in layers]
    if not present:
        return NetworkSpec(kind.arch, width, kind.levels)
    levels = kind.levels
    if "fc6" in layers:
        inputs = layers["fc6"][0].size // _outputs(layers["fc6"][0])
        bins, rest = divmod(inputs, scaled_width(_FILTERS["conv5"], width))
        levels = levels if rest else _PYRAMIDS.get(bins, levels)
    hidden = _outputs(layers[present[0]][0])
    return NetworkSpec(kind.arch, width, levels, hidden, _outputs(layers["fc8"][0]) if "fc8" in layers else 0)


def _outputs(weight: Blob) -> int:
    """Filters or outputs of a layer, of its weight in any shape."""
    return math.prod(_plain(weight, 2)[:1])


def _width(filters: Mapping[str, int]) -> float:
    """The width that gives these filter numbers, or else most of them."""
    pairs = sorted(((number, _FILTERS[name]) for name, number in filters.items()), key=lambda pair: -pair[1])
    # Widths between these give the layer's number, a multiple of eight and at least eight.
    lowest = max((Fraction(number - 4, full) for number, full in pairs if number > 8), default=Fraction(0))
    highest = min((Fraction(number + 4, full) for number, full in pairs), default=Fraction(2))
    widths = [*(Fraction(number, full) for number, full in pairs), (lowest + highest) / 2]
    return max(
        (float(width) for width in widths if 0 < width <= _WIDEST),
        key=lambda width: sum(scaled_width(full, width) == number for number, full in pairs),
        default=1.0,
    )


def _layers_of(network: SPPNet) -> dict[str, nn.Conv2d | nn.Linear]:
    return {
        name.split(".")[-1]: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def _parameters(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    return layer.weight, layer.bias


def _differences(layers: Layers, wanted: Mapping[str, nn.Conv2d | nn.Linear]) -> list[str]:
    found = []
    for name, layer in wanted.items():
        if name not in layers:
            found.append(f"{name} is missing")
        elif len(layers[name]) != 2:
            found.append(f"{name} has {len(layers[name])} blobs, not weight and bias")
        else:
            for blob, parameter, label in zip(layers[name], _parameters(layer), ("", " bias"), strict=True):
                if _plain(blob, parameter.ndim) != tuple(parameter.shape):
                    found.append(f"{name}{label} is {blob.shape}, not {tuple(parameter.shape)}")
    return found


def _plain(blob: Blob, dimensions: int) -> tuple[int, ...]:
    """A blob's shape without the leading ones by which old files fill up four dimensions."""
    shape = blob.shape
    while len(shape) > dimensions and shape[0] == 1:
        shape = shape[1:]
    return shape
