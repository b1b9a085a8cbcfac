import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.caffe_zf import KINDS, find_kind, network_of_layers
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

SOURCE = Path("net.caffemodel")
# A head without fc8 has an empty layer, of which torch warns.


def random_network(arch="zf5", width=0.0625, levels=SPP6, fc=16, classes=5):
    """Random weights large enough for the scores to depend on every layer."""
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec(arch, width, levels, fc, classes))
    network.initialise("he")
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)
    return network.eval()


def layers_of(network, old=False):
    """The blobs of its layers, as Caffe writes them; of old in four dimensions."""
    layers = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            blobs = [parameter.detach().contiguous().numpy() for parameter in (module.weight, module.bias)]
            if old:
                blobs = [blob.reshape((1,) * (4 - blob.ndim) + blob.shape) for blob in blobs]
            layers[name.split(".")[-1]] = tuple(blobs)
    return layers


def blob(*shape):
    return np.zeros(shape, np.float32)


def random_images(*size):
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("kind", "arch", "width", "levels"),
    [
        ("zeiler-conv5", "zf5", 0.0625, SPP6),
        ("zeiler-conv5", "zf5", 0.25, SPP4),
        ("zeiler-conv5", "zf5", 0.0625, (6,)),
        ("py-faster-rcnn-zf", "zf5-frcnn", 0.0625, (6,)),
        ("py-faster-rcnn-zf", "zf5-frcnn", 0.125, SPP6),
    ],
)
def test_the_network_comes_back(kind, arch, width, levels, old):
    network = random_network(arch, width, levels)
    found, left_out = network_of_layers(layers_of(network, old), kind, SOURCE, dropout_scaling="training")
    assert left_out == []
    assert found.spec == network.spec
    for size in ((224, 224), (180, 260)):
        with torch.inference_mode():
            scores = found(random_images(*size))
            assert torch.equal(scores, network(random_images(*size)))
            assert scores.std() > 0.01


def test_halves_of_dropout_go_into_the_weights():
    """The forks' nets in their own terms: dropout halves its input at test time."""
    network = random_network()
    found, _ = network_of_layers(layers_of(network), "zeiler-conv5", SOURCE, dropout_scaling="testing")
    pooled = torch.rand(4, network.pooled_size)
    head = network.head
    with torch.inference_mode():
        fc6 = F.relu(head.fc6(pooled))
        fc7 = F.relu(head.fc7(0.5 * fc6))
        scores = head.fc8(0.5 * fc7)
        torch.testing.assert_close(found.head.features(pooled, "fc6"), fc6)
        torch.testing.assert_close(found.head.features(pooled, "fc7"), fc7)
        torch.testing.assert_close(found.head(pooled), scores)
    assert torch.equal(found.head.fc8.bias, head.fc8.bias)


def test_fc6_reads_the_levels_of_the_prototxt():
    """Zeiler_conv5.prototxt's pools at 224 px, flattened by Caffe (C, row, column), levels 1, 2, 3, 6.

    The stride of the 2x2 level is the paper's 6 there: with the prototxt's 7 the second bins lose a row or column.
    """
    network = random_network()
    layers = layers_of(network)
    found, _ = network_of_layers(layers, "zeiler-conv5", SOURCE)
    maps = torch.rand(3, 16, 13, 13)
    windows = [(13, 13), (7, 6), (5, 4), (3, 2)]
    pooled = torch.cat([F.max_pool2d(maps, kernel, stride).flatten(1) for kernel, stride in windows], dim=1)
    assert pooled.shape == (3, 16 * 50)
    weight, bias = map(torch.from_numpy, layers["fc6"])
    with torch.inference_mode():
        torch.testing.assert_close(found.head.fc6(found.pool(maps)), F.linear(pooled, weight, bias))


@pytest.mark.parametrize(
    ("column", "channel", "cells"),
    [
        # Of 16 channels: level 1 has columns 0..15, level 2 16..79, level 3 80..223, level 6 224..799.
        (9, 9, (0, 12, 0, 12)),
        (16 + 4 * 3 + 1, 3, (0, 6, 6, 12)),  # row 0, column 1 of 2x2
        (80 + 9 * 2 + 3 * 1 + 2, 2, (4, 8, 8, 12)),  # row 1, column 2 of 3x3
        (224 + 36 * 15 + 6 * 5 + 0, 15, (10, 12, 0, 2)),  # row 5, column 0 of 6x6
    ],
)
def test_a_column_of_fc6_sees_one_bin_of_one_channel(column, channel, cells):
    layers = layers_of(random_network())
    layers["fc6"] = (blob(16, 800), blob(16))
    layers["fc6"][0][7, column] = 2
    found, _ = network_of_layers(layers, "zeiler-conv5", SOURCE)
    top, bottom, left, right = cells
    for y in range(13):
        for x in range(13):
            maps = torch.zeros(1, 16, 13, 13)
            maps[0, channel, y, x] = 3
            with torch.inference_mode():
                output = found.head.fc6(found.pool(maps))[0]
            inside = top <= y <= bottom and left <= x <= right
            assert output.tolist() == [6.0 * inside if k == 7 else 0 for k in range(16)]


def test_last_layers_of_detection_are_left_out():
    network = random_network("zf5-frcnn", levels=(6,))
    layers = layers_of(network)
    layers["cls_score"] = layers.pop("fc8")
    layers |= {"rpn_conv1": (blob(16, 16, 3, 3), blob(16)), "bbox_pred": (blob(20, 16), blob(20))}
    kind = find_kind(layers)
    assert kind == "py-faster-rcnn-zf"
    found, left_out = network_of_layers(layers, kind, SOURCE, dropout_scaling="training")
    assert left_out == ["cls_score", "rpn_conv1", "bbox_pred"]
    assert found.spec == NetworkSpec("zf5-frcnn", 0.0625, (6,), 16, 0)
    pooled = torch.rand(4, network.pooled_size)
    with torch.inference_mode():
        assert torch.equal(found.head.features(pooled, "fc7"), network.head.features(pooled, "fc7"))
        assert found(random_images(224, 224)).shape == (2, 0)


@pytest.mark.parametrize(("kind", "levels"), [("zeiler-conv5", SPP6), ("py-faster-rcnn-zf", (6,))])
def test_a_model_without_fc_layers_is_a_trunk(kind, levels):
    network = random_network(KINDS[kind].arch)
    layers = {name: blobs for name, blobs in layers_of(network).items() if name not in ("fc6", "fc7")}
    found, left_out = network_of_layers(layers, kind, SOURCE)
    assert left_out == ["fc8"]
    assert found.spec == NetworkSpec(KINDS[kind].arch, 0.0625, levels)
    assert found.head is None
    assert torch.equal(found.trunk.conv5.weight, network.trunk.conv5.weight)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["conv1", "fc8"], "zeiler-conv5"),
        (["fc8_pascal"], "zeiler-conv5"),
        (["conv1", "rpn_conv/3x3"], "py-faster-rcnn-zf"),
        (["rpn_cls_score"], "py-faster-rcnn-zf"),
        (["cls_score"], "py-faster-rcnn-zf"),
        (["bbox_pred"], "py-faster-rcnn-zf"),
        ([], "zeiler-conv5"),
    ],
)
def test_names_betray_a_kind(names, kind):
    assert find_kind(dict.fromkeys(names, ())) == kind


@pytest.mark.parametrize("width", [0.01, 0.0625, 0.1, 0.25, 0.3, 0.3333, 0.5, 0.77, 1.0, 1.5])
def test_any_width_is_found(width):
    network = random_network(width=width, fc=0, classes=0)
    found, _ = network_of_layers(layers_of(network), "zeiler-conv5", SOURCE)
    assert [p.shape for p in found.parameters()] == [p.shape for p in network.parameters()]
    if width in (0.0625, 0.25, 0.5, 1.0, 1.5):
        assert found.spec.width == width


FULL = {
    "conv1": ((96, 3, 7, 7), (96,)),
    "conv2": ((256, 96, 5, 5), (256,)),
    "conv3": ((384, 256, 3, 3), (384,)),
    "conv4": ((384, 384, 3, 3), (384,)),
    "conv5": ((256, 384, 3, 3), (256,)),
    "fc6": ((64, 12800), (64,)),
    "fc7": ((64, 64), (64,)),
    "fc8": ((10, 64), (10,)),
}


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        (
            # CaffeNet's convolutions.
            {
                "conv1": ((96, 3, 11, 11), (96,)),
                "conv2": ((256, 48, 5, 5), (256,)),
                "conv4": ((384, 192, 3, 3), (384,)),
                "fc6": ((4096, 9216), (4096,)),
            },
            (
                "width 1: conv1 is (96, 3, 11, 11), not (96, 3, 7, 7); "
                "conv2 is (256, 48, 5, 5), not (256, 96, 5, 5); "
                "conv4 is (384, 192, 3, 3), not (384, 384, 3, 3); fc7 is (64, 64), not (4096, 4096); "
                "fc7 bias is (64,), not (4096,); fc8 is (10, 64), not (10, 4096)"
            ),
        ),
        ({"conv3": None, "fc7": None}, "width 1: conv3 is missing; fc7 is missing"),
        ({"fc6": None}, "width 1: fc6 is missing"),
        # The width is that of most layers, here a quarter.
        (
            {
                "conv1": ((24, 3, 7, 7), (24,)),
                "conv2": ((64, 24, 5, 5), (64,)),
                "conv3": ((96, 64, 3, 3), (96,)),
                "conv4": ((100, 96, 3, 3), (100,)),
                "conv5": ((64, 100, 3, 3), (64,)),
                "fc6": ((64, 3200), (64,)),
            },
            (
                "width 0.25: conv4 is (100, 96, 3, 3), not (96, 96, 3, 3); conv4 bias is (100,), not (96,); "
                "conv5 is (64, 100, 3, 3), not (64, 96, 3, 3)"
            ),
        ),
        ({"conv1": ((96, 3, 7, 7),)}, "width 1: conv1 has 1 blobs, not weight and bias"),
        ({"fc6": ((64, 12801), (64,))}, "width 1: fc6 is (64, 12801), not (64, 12800)"),
        ({"fc6": ((64, 256, 7, 7), (64,))}, "width 1: fc6 is (64, 256, 7, 7), not (64, 12800)"),
        ({"fc6": ((64, 256, 6, 6), (64,))}, "width 1: fc6 is (64, 256, 6, 6), not (64, 9216)"),
        ({"fc8": ((10, 64), (1, 1, 1, 11))}, "width 1: fc8 bias is (1, 1, 1, 11), not (10,)"),
        ({"conv5": ((256, 384, 3, 3), ())}, "width 1: conv5 bias is (), not (256,)"),
        (
            dict.fromkeys(FULL),
            "width 1: conv1 is missing; conv2 is missing; conv3 is missing; conv4 is missing; conv5 is missing",
        ),
        (
            dict.fromkeys(FULL) | {"conv1": ((), ()), "conv2": ((5000, 1), (1,))},
            "conv1 is (), not (8, 3, 7, 7); ",
        ),
    ],
)
def test_all_that_does_not_fit_is_named(changes, differences):
    shapes = {name: shape for name, shape in (FULL | changes).items() if shape is not None}
    layers = {
        name: tuple(np.broadcast_to(np.float32(0), shape) for shape in pair) for name, pair in shapes.items()
    }
    with pytest.raises(DataError) as caught:
        network_of_layers(layers, "zeiler-conv5", SOURCE)
    message = str(caught.value)
    assert re.match(r"net\.caffemodel: not of kind zeiler-conv5, width ", message)
    assert differences in message
    assert differences.endswith("; ") or message.endswith(differences)
    assert "\n" not in message


def test_unknown_names():
    layers = layers_of(random_network())
    with pytest.raises(UsageError, match="unknown kind 'vgg': zeiler-conv5 or py-faster-rcnn-zf"):
        network_of_layers(layers, "vgg", SOURCE)
    with pytest.raises(UsageError, match="unknown dropout scaling 'never': testing or training"):
        network_of_layers(layers, "zeiler-conv5", SOURCE, dropout_scaling="never")
