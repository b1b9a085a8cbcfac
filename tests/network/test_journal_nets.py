"""The journal edition's networks; numbers of its Table 1 and its section on multi-size training."""

import pytest
import torch
from torch import nn

from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.backbones import OWN, build_trunk
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

ARCHS = ("convnet5", "overfeat5", "overfeat7")
WIDTH = 0.0625
# The sides after the last layer of each stage of the table's row, at 224 px.
TABLE = {
    "convnet5": {"lrn1": 55, "pool2": 27, "pool3": 13, "relu4": 13, "relu5": 13},
    "overfeat5": {"lrn1": 36, "pool2": 18, "relu3": 18, "relu4": 18, "relu5": 18},
    "overfeat7": {"lrn1": 36, "pool2": 18, "relu3": 18, "relu5": 18, "relu6": 18, "relu7": 18},
}
# Worked by hand at 180 px: (180 + 4 - 11) // 4 + 1 = 44, (44 - 3) // 2 + 1 = 21, (21 - 3) // 2 + 1 = 10;
# (180 - 7) // 2 + 1 = 87, 87 / 3 = 29, 29 // 2 = 14.
SMALL = {
    "convnet5": {"lrn1": 44, "pool2": 21, "pool3": 10, "relu5": 10},
    "overfeat5": {"conv1": 87, "lrn1": 29, "pool2": 14, "relu5": 14},
    "overfeat7": {"conv1": 87, "lrn1": 29, "pool2": 14, "relu7": 14},
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("pixels", "expected"), [(224, TABLE), (180, SMALL)])
def test_sizes_of_every_layer(arch, pixels, expected):
    x = torch.zeros(1, 3, pixels, pixels)
    found = {}
    with torch.inference_mode():
        for name, layer in build_trunk(arch, WIDTH)[0].named_children():
            x = layer(x)
            found[name] = x.shape[2]
    assert {name: found[name] for name in expected[arch]} == expected[arch]


def convolutions(arch):
    rows = {}
    for name, layer in build_trunk(arch)[0].named_children():
        if isinstance(layer, nn.Conv2d):
            (kernel, _), (stride, _), (pad, _) = layer.kernel_size, layer.stride, layer.padding
            rows[name] = (layer.in_channels, layer.out_channels, kernel, stride, pad)
    return rows


def test_layers_of_the_table():
    # inputs, filters, kernel, stride, pad
    assert convolutions("convnet5") == {
        "conv1": (3, 96, 11, 4, 2),
        "conv2": (96, 256, 5, 1, 2),
        "conv3": (256, 384, 3, 1, 1),
        "conv4": (384, 384, 3, 1, 1),
        "conv5": (384, 256, 3, 1, 1),
    }
    overfeat = {
        "conv1": (3, 96, 7, 2, 0),
        "conv2": (96, 256, 5, 1, 2),
        "conv3": (256, 512, 3, 1, 1),
        "conv4": (512, 512, 3, 1, 1),
        "conv5": (512, 512, 3, 1, 1),
    }
    assert convolutions("overfeat5") == overfeat
    more = (512, 512, 3, 1, 1)
    assert convolutions("overfeat7") == overfeat | {"conv6": more, "conv7": more}


@pytest.mark.parametrize(
    ("arch", "order"),
    [
        (
            "convnet5",
            "conv1 relu1 lrn1 conv2 relu2 lrn2 pool2 conv3 relu3 pool3 conv4 relu4 conv5 relu5",
        ),
        ("overfeat5", "conv1 relu1 pool1 lrn1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5"),
    ],
)
def test_order_of_the_layers(arch, order):
    assert " ".join(name for name, _ in build_trunk(arch, WIDTH)[0].named_children()) == order


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        # Weights and biases: inputs * filters * kernel^2 + filters.
        ("convnet5", 34944 + 614656 + 885120 + 1327488 + 884992),
        ("overfeat5", 14208 + 614656 + 1180160 + 2359808 + 2359808),
        ("overfeat7", 14208 + 614656 + 1180160 + 4 * 2359808),
    ],
)
def test_parameter_counts(arch, count):
    assert sum(p.numel() for p in build_trunk(arch)[0].parameters()) == count


@pytest.mark.parametrize(
    ("arch", "geometry"),
    [
        # Convnet*-5, lowest and highest pixel of cell 0: conv1 -2..8; conv2 (stride 4) -10..16; pool2 -10..24;
        # conv3 (stride 8) -18..32; pool3 -18..48; conv4 (stride 16) -34..64; conv5 -50..80.
        ("convnet5", (16, 15, 131)),
        # Overfeat: conv1 0..6; pool1 (stride 2) 0..10; conv2 (stride 6) -12..22; pool2 -12..28; conv3 (stride 12)
        # -24..40; conv4 -36..52; conv5 -48..64; conv6 -60..76; conv7 -72..88.
        ("overfeat5", (12, 8, 113)),
        ("overfeat7", (12, 8, 161)),
    ],
)
def test_geometry_by_hand(arch, geometry):
    assert geometry_of(build_trunk(arch, WIDTH)[0]) == geometry


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("levels", "sizes"),
    [(SPP6, [(224, 224), (180, 180), (150, 260)]), (SPP4, [(224, 180)]), (None, [(224, 224)])],
)
def test_both_nets_of_each(arch, levels, sizes):
    network = SPPNet(NetworkSpec(arch, WIDTH, levels, fc=16, classes=5)).eval()
    for height, width in sizes:
        images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        with torch.inference_mode():
            assert network(images).shape == (2, 5)


@pytest.mark.parametrize(
    ("arch", "cells"), [("zf5", 13), ("convnet5", 13), ("overfeat5", 18), ("overfeat7", 18)]
)
def test_the_plain_nets_pool_to_6_by_6(arch, cells):
    assert arch in OWN
    network = SPPNet(NetworkSpec(arch, WIDTH, None, fc=16, classes=5))
    maps = torch.randn(1, network.channels, cells, cells)
    pooled = network.pool(maps)
    assert pooled.shape == (1, network.channels * 36)
    # Channel 0, row 5, column 0: the last three rows and the first three columns in every one of them.
    assert pooled[0, 30] == maps[0, 0, cells - 3 :, :3].max()


@pytest.mark.parametrize("arch", ARCHS)
def test_biases_of_the_paper(arch):
    network = SPPNet(NetworkSpec(arch, WIDTH, SPP6, fc=16, classes=5))
    network.initialise("paper")
    ones = {
        name.split(".")[-1]
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and set(layer.bias.tolist()) == {1.0}
    }
    deep = {"conv6", "conv7"} if arch == "overfeat7" else set()
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"} | deep
