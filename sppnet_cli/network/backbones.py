"""Convolutional trunks by name: ZF-5 and the feature trunks of torchvision's classifiers."""

import warnings

from torch import nn
from torchvision import models

from sppnet_cli.errors import UsageError
from sppnet_cli.network.preprocessing import CAFFE, TORCHVISION, Preprocessing
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.zf5 import zf5_trunk

_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def build_trunk(arch: str, width: float = 1.0) -> tuple[nn.Sequential, Preprocessing]:
    """The trunk of `arch` with random weights, ending after the ReLU of its last map, and its preprocessing.

    `arch` is `zf5` or the name of a torchvision classifier whose trunk is its `features` (AlexNet, VGG,
    SqueezeNet, DenseNet, MobileNet, EfficientNet, ConvNeXt, ...) or the stages of a ResNet.  A pool that ends
    the trunk is left out: the pyramid takes its place.  Raises `UsageError` for other names and strides.
    """
    if arch == "zf5":
        return zf5_trunk(width), CAFFE
    if width != 1:
        raise UsageError(f"--width goes with zf5, not with {arch}")
    require_known(arch)
    trunk = _torchvision_trunk(arch)
    try:
        stride = geometry_of(trunk).stride
    except UsageError as error:
        raise UsageError(f"{arch} cannot be used: {error}; take a convolutional net") from None
    if stride not in (16, 32):
        raise UsageError(f"{arch} has a trunk of stride {stride}; 16 or 32 is needed")
    return trunk, TORCHVISION


def require_known(arch: str) -> None:
    """Raise `UsageError` unless `arch` is zf5 or the name of a torchvision classifier."""
    if arch != "zf5" and arch not in models.list_models(module=models):
        raise UsageError(
            f"unknown architecture {arch!r}: zf5 or a torchvision classifier such as squeezenet1_1"
        )


def _torchvision_trunk(arch: str) -> nn.Sequential:
    # GoogLeNet-like nets warn about their own initialisation, and only those take init_weights.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        model = models.get_model(arch, weights=None)
    if hasattr(model, "features"):
        layers = list(model.features.named_children())
        while isinstance(layers[-1][1], nn.MaxPool2d | nn.Dropout):
            layers.pop()
        if arch.startswith("densenet"):
            layers.append(("relu", nn.ReLU()))  # its forward applies it as a function
        prefix = "features"
    elif all(hasattr(model, name) for name in _RESNET):
        layers = [(name, getattr(model, name)) for name in _RESNET]
        prefix = ""
    else:
        raise UsageError(f"{arch} has no trunk that SPP-net can use: take a net with `features` or a ResNet")
    trunk = nn.Sequential()
    for name, layer in layers:
        trunk.add_module(name, layer)
    trunk.weights_prefix = prefix  # type: ignore[assignment]
    return trunk


def weights_prefix(trunk: nn.Sequential) -> str:
    """Prefix of the trunk's parameters in a state dict of the whole torchvision classifier."""
    prefix = getattr(trunk, "weights_prefix", "")
    return f"{prefix}." if prefix else ""


def feature_channels(trunk: nn.Module) -> int:
    """Channels of the trunk's last map."""
    import torch

    with torch.inference_mode():
        return int(trunk.eval()(torch.zeros(1, 3, 224, 224)).shape[1])
