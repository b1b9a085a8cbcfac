"""A batch in parts, each on a thread of its own, forward and back: training that fills more than one core.

Torch's own threads meet after every operation, so one that waits for a busy core holds up all of them each time; these
meet twice in a step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sppnet_cli.threads import side_by_side


def in_parts(module: nn.Module, images: Tensor, parts: int) -> Tensor:
    """`module(images)` for a batch on the CPU that is cut into `parts`; gradients reach the parameters alone.

    They are the sums over the parts in their order, so they do not depend on which thread was quicker.  For modules
    that give each image its own result and draw no random numbers: a trunk.
    """
    if parts == 1 or images.device.type != "cpu":
        return module(images)
    return _InParts.apply(module, parts, images, *(p for p in module.parameters() if p.requires_grad))


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, module: Callable[[Tensor], Tensor], parts: int, images: Tensor, *parameters: Tensor
    ) -> Tensor:
        # Threads begin without the caller's mixed precision.
        enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def with_graph(part: Tensor) -> Tensor:
            with torch.enable_grad(), torch.autocast("cpu", dtype, enabled):
                return module(part)

        ctx.parameters = parameters
        ctx.results = side_by_side(with_graph, images.chunk(parts))
        return torch.cat([result.detach() for result in ctx.results])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        def of_part(part: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            result, its_gradient = part
            return torch.autograd.grad(result, ctx.parameters, its_gradient)

        lengths = [len(result) for result in ctx.results]
        found = side_by_side(of_part, list(zip(ctx.results, gradient.split(lengths), strict=True)))
        del ctx.results
        return None, None, None, *(sum(column[1:], column[0]) for column in zip(*found, strict=True))
