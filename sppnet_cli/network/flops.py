"""How much arithmetic a network does, from the shapes of its layers."""

import copy

import torch
from torch import nn


def flops(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of the convolutions and fully connected layers of `module` on an input of `shape`.

    Two for every multiply-add, all of `shape` counted: `(1, 3, H, W)` is one image, `(2000, D)` as many vectors.
    Biases, activations, normalisation and pooling are left out.  Nothing is computed, so that any size takes
    milliseconds, and `module` is left as it is.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    shapes_only = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes_only(torch.empty(shape, device="meta"))
    return counter.get_total_flops()
