"""Classifiers of torchvision as they are, with weights, to be measured like a network of our own."""

from typing import Any

import torch
from torch import Tensor, nn

from sppnet_cli.errors import UsageError
from sppnet_cli.network.preprocessing import Preprocessing
from sppnet_cli.network.weights import fill, find_weights

_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads of GoogLeNet and Inception, for training alone


class Classifier(nn.Module):
    """A classifier of torchvision behind its preprocessing."""

    def __init__(self, arch: str, net: nn.Module, classes: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.arch = arch
        self.net = net
        self.classes = classes
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `(B, classes)` before the softmax, of RGB images `(B, 3, H, W)` in 0..255."""
        return self.net(self.preprocessing(images))

    @torch.inference_mode()
    def takes(self, height: int, width: int) -> bool:
        """Whether the net can be applied to images of this size; found by trying."""
        device = next(self.parameters()).device
        try:
            self(torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device))
        except (AssertionError, RuntimeError):
            return False
        return True


def require_classifier(arch: str) -> None:
    """Raise `UsageError` unless `arch` is the name of a torchvision classifier."""
    from sppnet_cli.network.torchvision_trunks import is_classifier

    if not is_classifier(arch):
        raise UsageError(
            f"{arch} is no torchvision classifier such as squeezenet1_0; a net of ours is a run: give --network RUN"
        )


def load_classifier(arch: str, weights: str) -> Classifier:
    """The torchvision classifier `arch` with `weights`, in evaluation mode.

    `weights` is a file (see `weights.read_state_dict`) or `DEFAULT` for those that torchvision publishes; the
    number of classes is that of the file.  Raises `UsageError` for an arch that is not torchvision's, `DataError`
    for a file of another net.
    """
    from sppnet_cli.network.torchvision_trunks import torchvision_preprocessing

    require_classifier(arch)
    path, state = find_weights(arch, weights)
    state = {name: value for name, value in state.items() if not name.startswith(_AUXILIARY)}
    net, classes = _build(arch, 1000), 1000
    output = next(reversed(net.state_dict()))  # the last layer's bias, or its weight
    if output in state and state[output].ndim and len(state[output]) != classes:
        classes = len(state[output])
        net = _build(arch, classes)
    # Older files lack these counters, which nothing reads after training.
    counters = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    fill(net, counters | state, path)
    return Classifier(arch, net, classes, torchvision_preprocessing(arch)).eval()


def _build(arch: str, classes: int) -> Any:
    from sppnet_cli.network.torchvision_trunks import untrained

    net = untrained(arch, num_classes=classes)
    if hasattr(net, "transform_input"):
        net.transform_input = True  # the published weights of these expect pixels in -1..1
    for name in _AUXILIARY:
        if hasattr(net, name):
            setattr(net, name, None)
    return net
