"""The ZF net of py-faster-rcnn (its `models/pascal_voc/ZF`): the weights' shapes are those of ZF-5, the pads are not."""

from torch import nn

from sppnet_cli.network.zf5 import padded_trunk


def zf_frcnn_trunk(width: float = 1.0) -> nn.Sequential:
    """conv1 to conv5 with ReLU, padded so that cell k is centred at pixel 16k: 224 px -> 15 cells, 600 -> 39."""
    return padded_trunk(width, conv1=3, pools=1, conv2=2)
