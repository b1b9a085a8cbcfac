import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import models

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.network import torchvision_trunks
from sppnet_cli.network.backbones import (
    OWN,
    build_trunk,
    conv4_part,
    feature_channels,
    is_own,
    weights_prefix,
)
from sppnet_cli.network.preprocessing import CAFFE, Preprocessing
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.torchvision_trunks import torchvision_preprocessing

IMAGENET = Preprocessing("RGB", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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
    assert preprocessing == IMAGENET
    assert weights_prefix(trunk) == prefix
    assert feature_channels(trunk) == channels
    with torch.inference_mode():
        maps = trunk.eval()(torch.randn(1, 3, 224, 224))
    assert maps.shape == (1, channels, cells, cells)
    if arch != "mobilenet_v3_small":
        assert maps.min() == 0  # the trunk ends after a ReLU


def test_classifiers_of_torchvision_bring_their_own_mean():
    assert torchvision_preprocessing("resnet18") == IMAGENET
    half = (0.5, 0.5, 0.5)
    assert torchvision_preprocessing("efficientnet_v2_l") == Preprocessing("RGB", 255.0, half, half)
    for arch in models.list_models(module=models):
        assert torchvision_preprocessing(arch).order == "RGB"


@pytest.mark.parametrize(
    ("arch", "channels", "cells", "mean"),
    [
        ("timm/resnet10t", 512, 7, 0.485),
        ("timm/convnext_atto", 320, 7, 0.485),
        ("timm/mobilenetv3_small_050", 288, 7, 0.485),
        ("timm/resnetv2_50", 2048, 7, 0.5),
    ],
)
def test_trunks_of_timm(arch, channels, cells, mean):
    timm = pytest.importorskip("timm")
    trunk, preprocessing = build_trunk(arch)
    assert (preprocessing.order, preprocessing.divisor, preprocessing.mean[0]) == ("RGB", 255, mean)
    assert feature_channels(trunk) == channels
    model = timm.create_model(arch.removeprefix("timm/")).eval()
    model.load_state_dict(
        {name.removeprefix("0.net."): value for name, value in trunk.state_dict().items()}, strict=False
    )
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        maps = trunk.eval()(image)
        assert maps.shape == (1, channels, cells, cells)
        torch.testing.assert_close(maps, model.forward_features(image))
    assert not [name for name in trunk.state_dict() if name.startswith(("0.net.fc", "0.net.head"))]


def test_timm_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DataError, match=r"timm, which is not installed: pip install timm"):
        build_trunk("timm/resnet10t")


def test_timm_is_loaded_when_it_is_asked_for():
    program = "import sys, sppnet_cli.network.weights\nassert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_zf5_is_fed_as_in_caffe():
    trunk, preprocessing = build_trunk("zf5", 0.25)
    assert preprocessing == CAFFE
    assert feature_channels(trunk) == 64


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "zf6",
            "unknown architecture 'zf6': zf5, convnet5, overfeat5, overfeat7, zf5-frcnn, a torchvision classifier",
        ),
        ("timm/zf6", "timm/zf6: timm has no such model"),
        ("timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_224 cannot be used.*take a convolutional net"),
        ("fasterrcnn_resnet50_fpn", "unknown architecture"),
        ("mnasnet0_5", "mnasnet0_5 has no trunk"),
        ("googlenet", "googlenet has no trunk"),
        ("swin_t", "swin_t cannot be used"),
    ],
)
def test_other_architectures_are_errors_of_one_line(arch, message):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match=message) as caught:
        build_trunk(arch)
    assert "\n" not in str(caught.value)


def test_a_width_is_for_our_own_nets_alone():
    with pytest.raises(
        UsageError, match=r"--width goes with zf5, .*overfeat7, zf5-frcnn, not with squeezenet1_1"
    ):
        build_trunk("squeezenet1_1", 0.5)


def test_a_trunk_of_another_stride_will_do(monkeypatch):
    features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
    monkeypatch.setattr(
        torchvision_trunks.models, "get_model", lambda arch, weights: SimpleNamespace(features=features)
    )
    assert geometry_of(build_trunk("squeezenet1_1")[0]).stride == 8


def test_our_own_nets_are_known_by_name():
    names = ("zf5", "convnet5", "overfeat5", "overfeat7", "zf5-frcnn")
    assert [arch for arch in names if is_own(arch)] == list(OWN)
    assert not is_own("squeezenet1_1")
    assert not is_own("zf6")


@pytest.mark.parametrize(
    ("arch", "after"),
    [
        ("zf5", "relu4"),
        ("convnet5", "relu4"),
        ("overfeat7", "relu6"),
        ("squeezenet1_1", "11"),  # the Fire module before the last
        ("alexnet", "9"),  # the ReLU of its conv4
        ("resnet18", "layer4.0"),
    ],
)
def test_conv4_is_what_the_last_convolution_is_applied_to(arch, after):
    trunk = build_trunk(arch, 0.0625 if is_own(arch) else 1.0)[0].eval()
    part, seen = conv4_part(trunk), []
    trunk.get_submodule(after).register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        conv4 = part(image)
        assert trunk(image).shape[2:] == conv4.shape[2:]
    assert len(seen) == 2  # both paths run through it
    assert torch.equal(conv4, seen[0])


def test_a_trunk_that_ends_with_a_stride_has_no_conv4():
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
    with pytest.raises(UsageError, match=r"no conv4.*use conv5"):
        conv4_part(trunk)
