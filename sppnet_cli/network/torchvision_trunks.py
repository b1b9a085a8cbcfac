"""Trunks of torchvision's classifiers; importing it imports torchvision."""

import warnings
from typing import Any

from torch import Tensor, nn
from torchvision import models

from sppnet_cli.errors import UsageError
from sppnet_cli.network.preprocessing import Preprocessing

_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def is_classifier(arch: str) -> bool:
    """Whether torchvision has a classifier of this name."""
    return arch in models.list_models(module=models)


def untrained(arch: str, **settings: int) -> Any:
    """A classifier with random weights; `settings` are torchvision's."""
    # GoogLeNet-like nets warn about their own initialisation, and only those take init_weights.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return models.get_model(arch, weights=None, **settings)


def torchvision_trunk(arch: str) -> tuple[nn.Sequential, Preprocessing]:
    """The trunk of a torchvision classifier with random weights, and its own preprocessing."""
    model = untrained(arch)
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
    return trunk, torchvision_preprocessing(arch)


def published_torchvision(arch: str) -> dict[str, Tensor]:
    """The state dict that torchvision publishes for a classifier, downloaded; raises whatever the download does."""
    # Through the model, which knows the names that older files use.
    return dict(models.get_model(arch, weights="DEFAULT", progress=False).state_dict())


def torchvision_preprocessing(arch: str) -> Preprocessing:
    """What a torchvision classifier expects: the mean and deviation of the transforms of its published weights."""
    transforms = models.get_model_weights(arch).DEFAULT.transforms()
    return Preprocessing("RGB", 255.0, tuple(transforms.mean), tuple(transforms.std))
