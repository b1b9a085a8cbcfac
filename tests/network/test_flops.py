import pytest
import torch
from torch import nn

from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.flops import flops
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.zf5 import zf5_trunk

# Multiply-adds of ZF-5 at 224: cells of the map x filters x weights of a filter.
ZF5_AT_224 = (
    110 * 110 * 96 * (3 * 7 * 7)
    + 26 * 26 * 256 * (96 * 5 * 5)
    + 13 * 13 * 384 * (256 * 3 * 3)
    + 13 * 13 * 384 * (384 * 3 * 3)
    + 13 * 13 * 256 * (384 * 3 * 3)
)


def test_zf5_by_hand():
    assert ZF5_AT_224 == 1_109_410_944
    assert flops(zf5_trunk(), (1, 3, 224, 224)) == 2 * ZF5_AT_224
    assert flops(zf5_trunk(), (7, 3, 224, 224)) == 7 * 2 * ZF5_AT_224


def test_an_oblong_image_by_hand():
    # 180x224: conv1 88x110, pool1 44x55, conv2 20x26, pool2 10x13.
    maps = ((88 * 110, 96 * 147), (20 * 26, 256 * 2400), (10 * 13, 384 * (2304 + 3456) + 256 * 3456))
    assert flops(zf5_trunk(), (1, 3, 180, 224)) == 2 * sum(cells * weights for cells, weights in maps)


def test_the_fully_connected_layers_by_hand():
    head = Head(12_800, 4096, 21)
    assert flops(head, (2000, 12_800)) == 2 * 2000 * (12_800 * 4096 + 4096 * 4096 + 4096 * 21)


def test_groups_and_strides():
    assert flops(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4), (1, 8, 9, 7)) == 2 * 5 * 4 * 16 * 2 * 9


def test_a_whole_network_is_its_trunk_and_its_head():
    net = SPPNet(NetworkSpec("zf5", 0.25, fc=64, classes=10))
    expected = flops(net.trunk, (1, 3, 224, 224)) + flops(net.require_head(), (1, 64 * 50))
    assert flops(net, (1, 3, 224, 224)) == expected


def test_a_trunk_of_torchvision_against_its_documentation():
    # torchvision gives 0.349 G multiply-adds for the whole classifier; its last convolution is not in the trunk.
    trunk, _ = build_trunk("squeezenet1_1")
    classifier = 13 * 13 * 1000 * 512
    assert flops(trunk, (1, 3, 224, 224)) / 2 + classifier == pytest.approx(0.349e9, rel=2e-3)


def test_the_module_stays_as_it_was():
    head = Head(50, 8, 3).train()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    flops(head, (2, 50))
    assert head.training
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert head(torch.zeros(2, 50)).shape == (2, 3)


def test_another_input_than_the_module_takes():
    with pytest.raises(RuntimeError):
        flops(Head(50, 8, 3), (2, 51))
