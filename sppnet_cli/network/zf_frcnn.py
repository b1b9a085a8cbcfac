"""The ZF net of py-faster-rcnn (its `models/pascal_voc/ZF`): the weights' shapes are those of ZF-5, the pads are not."""

from collections import OrderedDict

from torch import nn

from sppnet_cli.network.lrn import WithinChannelLRN
from sppnet_cli.network.zf5 import scaled_width


def zf_frcnn_trunk(width: float = 1.0) -> nn.Sequential:
    """conv1 to conv5 with ReLU, padded so that cell k is centred at pixel 16k: 224 px -> 15 cells, 600 -> 39."""
    c1, c2, c3, c5 = (scaled_width(c, width) for c in (96, 256, 384, 256))
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, c1, 7, stride=2, padding=3),
        "relu1": nn.ReLU(inplace=True),
        "lrn1": WithinChannelLRN(),
        "pool1": nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        "conv2": nn.Conv2d(c1, c2, 5, stride=2, padding=2),
        "relu2": nn.ReLU(inplace=True),
        "lrn2": WithinChannelLRN(),
        "pool2": nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        "conv3": nn.Conv2d(c2, c3, 3, padding=1),
        "relu3": nn.ReLU(inplace=True),
        "conv4": nn.Conv2d(c3, c3, 3, padding=1),
        "relu4": nn.ReLU(inplace=True),
        "conv5": nn.Conv2d(c3, c5, 3, padding=1),
        "relu5": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))
