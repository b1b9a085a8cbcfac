"""ZF-5, the network of the paper's experiments (section 3.1; sizes from the released prototxt)."""

from collections import OrderedDict

from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.lrn import WithinChannelLRN

_PIXEL_DEVIATION = 64.0
_BIASED = frozenset({"conv2", "conv4", "conv5", "conv6", "conv7", "fc6", "fc7"})


def scaled_width(channels: int, width: float) -> int:
    """`channels * width`, in whole eights so that kernels stay aligned."""
    return max(8, round(channels * width / 8) * 8)


def zf5_trunk(width: float = 1.0) -> nn.Sequential:
    """conv1 to conv5 with ReLU: 224 px -> 13 cells, 180 -> 10; `width` multiplies the filter numbers."""
    return padded_trunk(width, conv1=1, pools=0, conv2=0)


def padded_trunk(width: float, *, conv1: int, pools: int, conv2: int) -> nn.Sequential:
    """ZF-5's layers with these pads in cells: of conv1, of both pools and of conv2, in which its kin differ."""
    c1, c2, c3, c5 = (scaled_width(c, width) for c in (96, 256, 384, 256))
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, c1, 7, stride=2, padding=conv1),
        "relu1": nn.ReLU(inplace=True),
        "lrn1": WithinChannelLRN(),
        "pool1": nn.MaxPool2d(3, stride=2, padding=pools, ceil_mode=True),
        "conv2": nn.Conv2d(c1, c2, 5, stride=2, padding=conv2),
        "relu2": nn.ReLU(inplace=True),
        "lrn2": WithinChannelLRN(),
        "pool2": nn.MaxPool2d(3, stride=2, padding=pools, ceil_mode=True),
        "conv3": nn.Conv2d(c2, c3, 3, padding=1),
        "relu3": nn.ReLU(inplace=True),
        "conv4": nn.Conv2d(c3, c3, 3, padding=1),
        "relu4": nn.ReLU(inplace=True),
        "conv5": nn.Conv2d(c3, c5, 3, padding=1),
        "relu5": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))


def initialise(module: nn.Module, rule: str) -> None:
    """Initialise ZF-5, or a net of the journal edition, and its head in place.

    `paper`: weights N(0, .01), bias 1 for conv2, conv4, conv5 and the hidden fc layers, else 0 (released prototxt);
    conv6 and conv7 of Overfeat-7, on which nothing was published, are taken to go with conv5.
    `he`: weights N(0, sqrt(2 / fan_in)), those of conv1 divided by the pixels' typical deviation and those of fc8
    N(0, .01), biases 0, for narrow nets and short schedules.
    """
    if rule not in ("paper", "he"):
        raise UsageError(f"unknown initialisation {rule!r}: paper or he")
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        last = name.split(".")[-1]
        if rule == "he" and last != "fc8":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if last == "conv1":
                layer.weight.data /= _PIXEL_DEVIATION
            bias = 0.0
        else:
            nn.init.normal_(layer.weight, std=0.01)
            bias = float(rule == "paper" and last in _BIASED)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias)
