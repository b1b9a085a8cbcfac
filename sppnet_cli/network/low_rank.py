"""fc layers cut to a low rank: two thin products in place of a large one (Girshick, Fast R-CNN, section 3.1)."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.linear import Linear
from sppnet_cli.names import FC_LAYERS
from sppnet_cli.network.sppnet import Head


class Axes(NamedTuple):
    """Directions in which the outputs of an fc layer, before its ReLU, vary, the leading ones first."""

    axes: Tensor  # (outputs, A), orthonormal
    mean: Tensor  # (outputs,) of the outputs


def axes_kept(outputs: int) -> int:
    """How many axes of so many outputs are kept: half, since a rank above that would hardly save anything."""
    return max(1, outputs // 2)


def principal_axes(outputs: Tensor) -> Axes:
    """The first half of the principal axes of outputs `(N, outputs)`."""
    count = outputs.shape[1]
    mean = outputs.mean(dim=0)
    centred = outputs - mean
    kept = (count - axes_kept(count), count - 1)
    vectors = eigh((centred.T @ centred).numpy(), subset_by_index=kept, check_finite=False, overwrite_a=True)[
        1
    ]
    return Axes(torch.from_numpy(vectors[:, ::-1].copy()), mean)


def low_rank(linear: nn.Linear, axes: Axes, rank: int) -> nn.Sequential:
    """Two layers in place of `linear`, to `rank` numbers and from there to its outputs.

    The outputs are projected on their first axes.  Of all layers of that rank none has outputs closer to `linear`'s, in
    the least squares, on the inputs that `axes` was measured on; the truncated SVD of the weights is closest on inputs
    that are all equally likely, which pooled features are not.
    """
    basis = axes.axes[:, :rank]
    first = Linear(linear.in_features, rank, bias=False)
    second = Linear(rank, linear.out_features)
    with torch.no_grad():
        first.weight.copy_(basis.T @ linear.weight.cpu())
        second.weight.copy_(basis)
        shift = linear.bias.cpu() - axes.mean
        second.bias.copy_(axes.mean + basis @ (basis.T @ shift))
    return nn.Sequential(first, second)


def most_of_use(linear: nn.Linear) -> int:
    """The highest rank at which `low_rank` is fewer numbers than `linear`."""
    inputs, outputs = linear.in_features, linear.out_features
    return min((inputs * outputs - 1) // (inputs + outputs), axes_kept(outputs))


def low_rank_head(head: Head, axes: Mapping[str, Axes], ranks: tuple[int, ...]) -> Head:
    """The head with fc6, and fc7 where there are two `ranks`, cut to them; shares the other layers with `head`.

    Raises `UsageError` for ranks that are too large to save anything.
    """
    replaced: dict[int, nn.Module] = {id(layer): layer for layer in head.children()}
    if not 1 <= len(ranks) <= len(FC_LAYERS):
        raise UsageError(f"{len(ranks)} ranks: give that of fc6, or those of fc6 and fc7")
    for name, rank in zip(FC_LAYERS, ranks, strict=False):
        linear: nn.Linear = getattr(head, name)
        most = most_of_use(linear)
        if not 1 <= rank <= most:
            shape = f"{linear.in_features} x {linear.out_features}"
            raise UsageError(f"rank {rank} of {name}: of {shape} numbers a rank of 1 to {most} spares some")
        replaced[id(linear)] = low_rank(linear, axes[name], rank)
    return copy.deepcopy(head, replaced)  # its memo: what stands for the copies of these
