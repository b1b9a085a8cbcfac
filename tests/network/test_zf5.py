import math

import pytest
import torch
from torch import nn

from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.zf5 import initialise, scaled_width, zf5_trunk

# Paper, sections 2.3, 3.1 and 4.1, and the released prototxt.
CELLS = {180: 10, 224: 13, 227: 13, 256: 15, 392: 23, 480: 29, 576: 35, 688: 42, 864: 53, 1200: 74}


@pytest.fixture(scope="module")
def narrow():
    return zf5_trunk(0.0625).eval()


@pytest.mark.parametrize(("pixels", "cells"), CELLS.items())
def test_map_sizes_of_the_paper(narrow, pixels, cells):
    with torch.inference_mode():
        assert narrow(torch.zeros(1, 3, pixels, 180)).shape[2:] == (cells, 10)
        assert narrow(torch.zeros(1, 3, 180, pixels)).shape[2:] == (10, cells)


@pytest.mark.parametrize(
    ("pixels", "sides"),
    [
        (224, {"conv1": 110, "pool1": 55, "conv2": 26, "pool2": 13, "conv3": 13, "conv4": 13, "conv5": 13}),
        (180, {"conv1": 88, "pool1": 44, "conv2": 20, "pool2": 10, "conv3": 10, "conv4": 10, "conv5": 10}),
    ],
)
def test_sizes_of_every_layer(narrow, pixels, sides):
    found = {}
    x = torch.zeros(1, 3, pixels, pixels)
    with torch.inference_mode():
        for name, layer in narrow.named_children():
            x = layer(x)
            found[name] = x.shape[2]
    assert {name: found[name] for name in sides} == sides


def test_layers_of_the_prototxt():
    convolutions = {
        name: (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        for name, layer in zf5_trunk().named_children()
        if isinstance(layer, nn.Conv2d)
    }
    assert convolutions == {
        "conv1": (3, 96, (7, 7), (2, 2), (1, 1)),
        "conv2": (96, 256, (5, 5), (2, 2), (0, 0)),
        "conv3": (256, 384, (3, 3), (1, 1), (1, 1)),
        "conv4": (384, 384, (3, 3), (1, 1), (1, 1)),
        "conv5": (384, 256, (3, 3), (1, 1), (1, 1)),
    }
    order = " ".join(name for name, _ in zf5_trunk(0.0625).named_children())
    assert order == ("conv1 relu1 lrn1 pool1 conv2 relu2 lrn2 pool2 conv3 relu3 conv4 relu4 conv5 relu5")


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(96, 0.25, 24), (256, 0.25, 64), (96, 0.0625, 8), (384, 1, 384)]
)
def test_widths_are_whole_eights(channels, width, expected):
    assert scaled_width(channels, width) == expected


@pytest.fixture(scope="module")
def network():
    return SPPNet(NetworkSpec("zf5", 0.25, SPP6, fc=64, classes=7))


def trained_layers(network):
    return {
        name.split(".")[-1]: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def test_initialisation_of_the_paper(network):
    torch.manual_seed(0)
    network.initialise("paper")
    biases = {}
    for name, layer in trained_layers(network).items():
        # Four standard errors of the deviation and of the mean.
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(0.01, rel=4 / math.sqrt(2 * n)), name
        assert abs(layer.weight.mean().item()) < 4 * 0.01 / math.sqrt(n), name
        (biases[name],) = set(layer.bias.tolist())
    assert biases == {
        "conv1": 0, "conv2": 1, "conv3": 0, "conv4": 1, "conv5": 1, "fc6": 1, "fc7": 1, "fc8": 0
    }  # fmt: skip


def test_he_initialisation(network):
    torch.manual_seed(0)
    network.initialise("he")
    fan_in = {
        "conv1": 3 * 49, "conv2": 24 * 25, "conv3": 64 * 9, "conv4": 96 * 9, "conv5": 96 * 9,
        "fc6": 64 * 50, "fc7": 64, "fc8": 64,
    }  # fmt: skip
    layers = trained_layers(network)
    assert layers.keys() == fan_in.keys()
    for name, layer in layers.items():
        n = layer.weight.numel()
        wanted = {"conv1": math.sqrt(2 / fan_in[name]) / 64, "fc8": 0.01}.get(
            name, math.sqrt(2 / fan_in[name])
        )
        assert layer.weight.std().item() == pytest.approx(wanted, rel=4 / math.sqrt(2 * n)), name
        assert not layer.bias.any()


@pytest.mark.parametrize("rule", ["paper", "he"])
def test_convolutions_without_bias_can_be_initialised(rule):
    layers = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.Linear(4, 5))
    initialise(layers, rule)
    assert layers[0].bias is None
    assert layers[1].bias.tolist() == [0] * 5
