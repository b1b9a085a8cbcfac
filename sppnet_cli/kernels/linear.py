"""Fully connected layers in float32 on a CPU, by the quicker of two libraries: MKL (torch's own) and oneDNN.

Both compute in float32 throughout, with errors of the same size; their last bits differ.  The library follows from the
kind of processor, never from a timing, so that the same machine always gives the same bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sppnet_cli.libraries import Library, has_onednn, linear_library


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, with gradients: `(N, outputs)` of `(N, inputs)`, `(outputs, inputs)`, `(outputs,)`.

    Float32 on a CPU goes through `linear_library()`; all else through torch's `linear`, and so does what `torch.compile`
    or `torch.export` traces.
    """
    if torch.compiler.is_compiling() or not _fits(x, weight) or linear_library() == "mkl":
        return F.linear(x, weight, bias)
    result: Tensor = _OneDnnLinear.apply(x, weight, bias)
    return result


def products() -> dict[Library, Callable[[Tensor, Tensor], Tensor]]:
    """`x @ weight.T` by each library that is there, for float32 on the CPU, without gradients."""
    return {"mkl": F.linear, **({"onednn": _product} if has_onednn() else {})}


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(N, outputs)` of `(N, inputs)`."""
        return linear(x, self.weight, self.bias)


class _OneDnnLinear(Function):
    """oneDNN's operator has no backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if of_x else None,
            _product(gradient.T, x.T) if of_weight else None,
            gradient.sum(dim=0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`.

    oneDNN reads any strides of `x`, takes `weight` or its transpose only where one of them is contiguous (for others it
    runs its reference code, a thousand times slower), and takes the bias for contiguous.
    """
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() == 2
        and 0 not in (*x.shape, *weight.shape)
        and not torch.is_autocast_enabled("cpu")
    )
