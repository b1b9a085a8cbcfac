"""Numbers of py-faster-rcnn's models/pascal_voc/ZF, whose pads give other cells than ZF-5's."""

import pytest
import torch
from torch import nn
from torchvision.ops import roi_pool

from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.zf5 import zf5_trunk
from sppnet_cli.network.zf_frcnn import zf_frcnn_trunk

# By hand: Caffe pools ceil((n + 2 - 3) / 2) + 1 cells, one less where the last would start in the pad.
# 224: (224 + 6 - 7) // 2 + 1 = 112, ceil(111 / 2) + 1 = 57, (57 + 4 - 5) // 2 + 1 = 29, ceil(28 / 2) + 1 = 15.
# 600: 300, ceil(299 / 2) + 1 = 151, 76, ceil(75 / 2) + 1 = 39.  227: 114, 58, 29, 15.
SIZES = {
    224: {"conv1": 112, "pool1": 57, "conv2": 29, "pool2": 15, "relu5": 15},
    227: {"conv1": 114, "pool1": 58, "conv2": 29, "pool2": 15, "relu5": 15},
    600: {"conv1": 300, "pool1": 151, "conv2": 76, "pool2": 39, "relu5": 39},
}


@pytest.mark.parametrize("pixels", SIZES)
def test_sizes_of_every_layer(pixels):
    x = torch.zeros(1, 3, pixels, pixels)
    found = {}
    with torch.inference_mode():
        for name, layer in zf_frcnn_trunk(0.0625).named_children():
            x = layer(x)
            found[name] = x.shape[2]
    assert {name: found[name] for name in SIZES[pixels]} == SIZES[pixels]


def test_layers_of_the_prototxt():
    convolutions = {
        name: (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        for name, layer in zf_frcnn_trunk().named_children()
        if isinstance(layer, nn.Conv2d)
    }
    assert convolutions == {
        "conv1": (3, 96, (7, 7), (2, 2), (3, 3)),
        "conv2": (96, 256, (5, 5), (2, 2), (2, 2)),
        "conv3": (256, 384, (3, 3), (1, 1), (1, 1)),
        "conv4": (384, 384, (3, 3), (1, 1), (1, 1)),
        "conv5": (384, 256, (3, 3), (1, 1), (1, 1)),
    }


def test_weights_do_not_tell_it_from_zf5():
    shapes = [
        {name: value.shape for name, value in trunk(0.25).state_dict().items()}
        for trunk in (zf_frcnn_trunk, zf5_trunk)
    ]
    assert shapes[0] == shapes[1]


def test_geometry_by_hand():
    # Every layer is padded to its middle, so that cell 0 stays centred at pixel 0: half fields of 3, + 2,
    # + 2 * 4, + 8, + 16 three times = 69.
    assert geometry_of(zf_frcnn_trunk(0.0625)) == (16, 0, 139)


def test_it_is_fed_with_a_mean_of_its_own():
    _, preprocessing = build_trunk("zf5-frcnn", 0.0625)
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)  # R, G, B
    found = preprocessing(pixel).flatten().tolist()
    assert found == pytest.approx([30 - 102.9801, 20 - 115.9465, 10 - 122.7717])


def test_it_pools_as_roi_pooling_does():
    maps = torch.randn(1, 16, 15, 20)
    expected = roi_pool(maps, [torch.tensor([[0.0, 0.0, 19.0, 14.0]])], 6, 1.0).flatten(1)
    for levels in ((6,), None):
        network = SPPNet(NetworkSpec("zf5-frcnn", 0.0625, levels, fc=16, classes=2))
        assert torch.equal(network.pool(maps), expected)
        with torch.inference_mode():
            assert network.eval()(torch.zeros(1, 3, 224, 180)).shape == (1, 2)
