"""Convolutional trunks by name: ZF-5 and its kin, and the feature trunks of torchvision's and timm's classifiers.

torchvision takes nearly as long to import as torch; only what needs its networks imports it.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.network.journal_nets import convnet5_trunk, overfeat5_trunk, overfeat7_trunk
from sppnet_cli.network.preprocessing import CAFFE, FAST_RCNN, Preprocessing
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.timm_trunks import PREFIX as TIMM
from sppnet_cli.network.timm_trunks import require_timm_model, timm_trunk
from sppnet_cli.network.zf5 import zf5_trunk
from sppnet_cli.network.zf_frcnn import zf_frcnn_trunk


class OwnNet(NamedTuple):
    """A network that this toolkit defines itself, and trains."""

    trunk: Callable[[float], nn.Sequential]  # of a width
    last_pool: Callable[[], nn.Module]  # of the plain net: 6x6 cells of the map at 224 px
    preprocessing: Preprocessing = CAFFE


OWN = {
    "zf5": OwnNet(zf5_trunk, lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True)),
    "convnet5": OwnNet(convnet5_trunk, lambda: nn.MaxPool2d(3, stride=2)),
    "overfeat5": OwnNet(overfeat5_trunk, lambda: nn.MaxPool2d(3, stride=3)),
    "overfeat7": OwnNet(overfeat7_trunk, lambda: nn.MaxPool2d(3, stride=3)),
    "zf5-frcnn": OwnNet(zf_frcnn_trunk, lambda: nn.AdaptiveMaxPool2d(6), FAST_RCNN),
}


def is_own(arch: str) -> bool:
    """Whether `arch` is one of the paper's and the journal edition's networks, not torchvision's."""
    return arch in OWN


def build_trunk(arch: str, width: float = 1.0) -> tuple[nn.Sequential, Preprocessing]:
    """The trunk of `arch` with random weights, ending after the ReLU of its last map, and its preprocessing.

    `arch` is one of `OWN`, `timm/` and the name of a timm model whose layers are convolutional, or the name of a torchvision classifier whose trunk is its `features` (AlexNet, VGG,
    SqueezeNet, DenseNet, MobileNet, EfficientNet, ConvNeXt, ...) or the stages of a ResNet.  A pool that ends
    the trunk is left out: the pyramid takes its place.  Raises `UsageError` for other names and for trunks whose
    geometry is not known.
    """
    require_known(arch)
    if is_own(arch):
        return OWN[arch].trunk(width), OWN[arch].preprocessing
    if width != 1:
        raise UsageError(f"--width goes with {', '.join(OWN)}, not with {arch}")
    if arch.startswith(TIMM):
        trunk, preprocessing = timm_trunk(arch)
    else:
        from sppnet_cli.network.torchvision_trunks import torchvision_trunk

        trunk, preprocessing = torchvision_trunk(arch)
    try:
        geometry_of(trunk)
    except UsageError as error:
        raise UsageError(f"{arch} cannot be used: {error}; take a convolutional net") from None
    return trunk, preprocessing


def plain_pool(arch: str) -> nn.Module:
    """The pool that ends the plain net in place of a pyramid, `(B, C, h, w)` -> `(B, C * 36)` at 224 px.

    For a trunk of torchvision it is that of ZF-5.
    """
    net = OWN.get(arch, OWN["zf5"])
    return nn.Sequential(net.last_pool(), nn.Flatten(1))


def require_known(arch: str) -> None:
    """Raise `UsageError` unless `arch` is one of `OWN`, a timm model's or a torchvision classifier's name.

    Raises `DataError` for a timm model where timm is not installed.
    """
    if arch.startswith(TIMM):
        require_timm_model(arch)
    elif not is_own(arch):
        from sppnet_cli.network.torchvision_trunks import is_classifier

        if not is_classifier(arch):
            raise UsageError(
                f"unknown architecture {arch!r}: {', '.join(OWN)}, a torchvision classifier such as squeezenet1_1, or "
                "timm/NAME"
            )


def weights_prefix(trunk: nn.Sequential) -> str:
    """Prefix of the trunk's parameters in a state dict of the whole torchvision classifier."""
    prefix = getattr(trunk, "weights_prefix", "")
    return f"{prefix}." if prefix else ""


def feature_channels(trunk: nn.Module) -> int:
    """Channels of the trunk's last map."""
    import torch

    with torch.inference_mode():
        return int(trunk.eval()(torch.zeros(1, 3, 224, 224)).shape[1])


def conv4_part(trunk: nn.Sequential) -> nn.Sequential:
    """The layers of a trunk up to its conv4 map, shared with it.

    conv4 is what the last convolution, or the last block that convolves, is applied to: relu4 in ZF-5, relu6 in
    Overfeat-7, the last Fire module but one in SqueezeNet, the last residual block but one in a ResNet.  Raises
    `UsageError` where that is a map of another stride than the trunk's last.
    """
    steps = list(_steps(trunk))
    last = max(
        k for k, step in enumerate(steps) if any(isinstance(part, nn.Conv2d) for part in step.modules())
    )
    part = nn.Sequential(*steps[:last])
    if geometry_of(part).stride != geometry_of(trunk).stride:
        raise UsageError(
            "the trunk has no conv4: no layer before its last map has the same stride; use conv5"
        )
    return part


def _steps(trunk: nn.Sequential) -> Iterator[nn.Module]:
    """The layers and blocks of a trunk in their order, nested sequences opened."""
    for child in trunk.children():
        if isinstance(child, nn.Sequential):
            yield from _steps(child)
        else:
            yield child
