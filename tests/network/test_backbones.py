from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.network import backbones
from sppnet_cli.network.backbones import build_trunk, feature_channels, weights_prefix
from sppnet_cli.network.preprocessing import CAFFE, TORCHVISION


@pytest.mark.parametrize(
    ("arch", "prefix", "channels", "cells"),
    [
        ("alexnet", "features.", 256, 13),
        ("squeezenet1_1", "features.", 512, 13),
        ("resnet18", "", 512, 7),
        ("mobilenet_v3_small", "features.", 576, 7),
    ],
)
def test_trunks_of_torchvision(arch, prefix, channels, cells):
    trunk, preprocessing = build_trunk(arch)
    assert preprocessing == TORCHVISION
    assert weights_prefix(trunk) == prefix
    assert feature_channels(trunk) == channels
    with torch.inference_mode():
        maps = trunk.eval()(torch.randn(1, 3, 224, 224))
    assert maps.shape == (1, channels, cells, cells)
    if arch != "mobilenet_v3_small":
        assert maps.min() == 0  # the trunk ends after a ReLU


def test_zf5_is_fed_as_in_caffe():
    trunk, preprocessing = build_trunk("zf5", 0.25)
    assert preprocessing == CAFFE
    assert feature_channels(trunk) == 64


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("zf6", "unknown architecture 'zf6'"),
        ("fasterrcnn_resnet50_fpn", "unknown architecture"),
        ("mnasnet0_5", "mnasnet0_5 has no trunk"),
        ("googlenet", "googlenet has no trunk"),
        ("swin_t", "swin_t cannot be used"),
    ],
)
def test_other_architectures_are_errors_of_one_line(arch, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_trunk(arch)
    assert "\n" not in str(caught.value)


def test_a_width_is_for_zf5_alone():
    with pytest.raises(UsageError, match="--width goes with zf5, not with squeezenet1_1"):
        build_trunk("squeezenet1_1", 0.5)


def test_a_trunk_of_another_stride(monkeypatch):
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
    monkeypatch.setattr(
        backbones.models, "get_model", lambda arch, weights: SimpleNamespace(features=features)
    )
    with pytest.raises(UsageError, match="squeezenet1_1 has a trunk of stride 8; 16 or 32 is needed"):
        build_trunk("squeezenet1_1")
