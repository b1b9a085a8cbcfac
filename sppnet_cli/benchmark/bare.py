"""What a side's convolutions and fully connected layers cost alone: the rest of its time is ours to save."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.features.method import Extractor
from sppnet_cli.network.precision import converted
from sppnet_cli.network.sppnet import Head


@torch.inference_mode()
def bare_seconds(
    extractor: Extractor, head: Head, image: NDArray[np.uint8], vectors: int, repeats: int
) -> float:
    """Seconds of the convolutions of an image's maps, and of fc6 and fc7 of so many vectors, and of nothing else.

    Each convolution gets the input that it has in the network, again and again; the median of the repeats counts.
    """
    inputs: list[tuple[nn.Conv2d, Tensor]] = []

    def note(conv: nn.Conv2d, given: tuple[Any, ...]) -> None:
        inputs.append((conv, given[0].clone()))  # an activation may be changed in place

    convolutions = [layer for layer in extractor.trunk.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convolutions]
    extractor.prepare(image)
    for hook in hooks:
        hook.remove()
    calls: list[Callable[[], object]] = [partial(conv, given) for conv, given in inputs]
    for layer in (head.fc6, head.fc7):
        linear = converted(layer, extractor.dtype).to(extractor.device)
        given = torch.rand(vectors, linear.in_features, dtype=extractor.dtype, device=extractor.device)
        calls.append(partial(F.linear, given, linear.weight, linear.bias))

    def run() -> None:
        for call in calls:
            call()

    return take_turns({"bare": run}, repeats, extractor.device, warm=True)["bare"]
