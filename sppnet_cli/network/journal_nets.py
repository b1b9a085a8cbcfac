"""Convnet*-5, Overfeat-5 and Overfeat-7, the larger networks of the journal edition (its Table 1).

As in ZF-5, a ReLU follows every convolution, the LRN is the within-channel one, and the input is Caffe's.
"""

from collections import OrderedDict

from torch import nn

from sppnet_cli.kernels.lrn import WithinChannelLRN
from sppnet_cli.network.zf5 import scaled_width


def convnet5_trunk(width: float = 1.0) -> nn.Sequential:
    """Convnet*-5: AlexNet with its pools after conv2 and conv3, so that 224 px -> 13 cells, 180 -> 10."""
    c1, c2, c3, c5 = (scaled_width(c, width) for c in (96, 256, 384, 256))
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, c1, 11, stride=4, padding=2),
        "relu1": nn.ReLU(inplace=True),
        "lrn1": WithinChannelLRN(),
        "conv2": nn.Conv2d(c1, c2, 5, padding=2),
        "relu2": nn.ReLU(inplace=True),
        "lrn2": WithinChannelLRN(),
        "pool2": nn.MaxPool2d(3, stride=2),
        "conv3": nn.Conv2d(c2, c3, 3, padding=1),
        "relu3": nn.ReLU(inplace=True),
        "pool3": nn.MaxPool2d(3, stride=2),
        "conv4": nn.Conv2d(c3, c3, 3, padding=1),
        "relu4": nn.ReLU(inplace=True),
        "conv5": nn.Conv2d(c3, c5, 3, padding=1),
        "relu5": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))


def overfeat5_trunk(width: float = 1.0) -> nn.Sequential:
    """Overfeat-5: five convolutions of stride 12 in all, 224 px -> 18 cells, 180 -> 14."""
    return _overfeat_trunk(5, width)


def overfeat7_trunk(width: float = 1.0) -> nn.Sequential:
    """Overfeat-7: Overfeat-5 and two more convolutions like its last."""
    return _overfeat_trunk(7, width)


def _overfeat_trunk(convolutions: int, width: float) -> nn.Sequential:
    c1, c2, c3 = (scaled_width(c, width) for c in (96, 256, 512))
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, c1, 7, stride=2),
        "relu1": nn.ReLU(inplace=True),
        "pool1": nn.MaxPool2d(3, stride=3),
        "lrn1": WithinChannelLRN(),
        "conv2": nn.Conv2d(c1, c2, 5, padding=2),
        "relu2": nn.ReLU(inplace=True),
        "pool2": nn.MaxPool2d(2, stride=2),
    }
    inputs = c2
    for k in range(3, convolutions + 1):
        layers[f"conv{k}"] = nn.Conv2d(inputs, c3, 3, padding=1)
        layers[f"relu{k}"] = nn.ReLU(inplace=True)
        inputs = c3
    return nn.Sequential(OrderedDict(layers))
