"""Trunks of timm's models, by names such as `timm/resnet50`; timm is imported when one is asked for."""

from typing import Any

from torch import Tensor, nn

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.network.preprocessing import Preprocessing

PREFIX = "timm/"


class _Features(nn.Module):
    """A model up to its last map."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.net = model

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net.forward_features(images)
        return maps


def require_timm_model(arch: str) -> None:
    """Raise `DataError` where timm is not installed, `UsageError` where it has no model of this name."""
    if not _timm().is_model(arch.removeprefix(PREFIX)):
        raise UsageError(f"{arch}: timm has no such model; its names are those of timm.list_models()")


def timm_trunk(arch: str) -> tuple[nn.Sequential, Preprocessing]:
    """The trunk of a timm model with random weights, and its own preprocessing."""
    model = _timm().create_model(arch.removeprefix(PREFIX), pretrained=False)
    if not hasattr(model, "forward_features"):
        raise UsageError(f"{arch} has no trunk that SPP-net can use: take another of timm's models")
    _drop_classifier(model)
    trunk = nn.Sequential(_Features(model))
    trunk.weights_prefix = ""  # type: ignore[assignment]
    trunk.own_prefix = "0.net."  # type: ignore[assignment]
    config = model.pretrained_cfg
    return trunk, Preprocessing("RGB", 255.0, tuple(config["mean"]), tuple(config["std"]))


def published_timm(arch: str) -> dict[str, Tensor]:
    """The state dict that timm publishes for a model, downloaded; raises whatever the download does."""
    return dict(_timm().create_model(arch.removeprefix(PREFIX), pretrained=True).state_dict())


def _drop_classifier(model: Any) -> None:
    """Take out the layers that `forward_features` does not use: their weights would have to be found in every file."""
    used: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda *_, name=name: used.add(name))
        for name, child in model.named_children()
    ]
    import torch

    with torch.inference_mode():
        model.eval().forward_features(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    for name, child in list(model.named_children()):
        inside = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)  # may be used part by part
        if name not in used and not inside:
            setattr(model, name, nn.Identity())


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise DataError(
            "architectures timm/NAME need timm, which is not installed: pip install timm"
        ) from None
    return timm
