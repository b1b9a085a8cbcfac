"""Convolution, ReLU, within-channel LRN and max pool in one go, for trunks that are used on the CPU."""

import torch
from torch import Tensor, nn

from sppnet_cli.kernels.lrn import WithinChannelLRN
from sppnet_cli.kernels.lrn_pool import SIDE, STRIDE, pool_rows

_BAND = 16 << 20  # bytes of the convolution's output at once, which the caches keep until they are pooled


def fused(trunk: nn.Sequential) -> nn.Sequential:
    """The same layers, sharing their weights, each run of Conv2d, ReLU, LRN and 3x3 max pool of stride 2 in one.

    Such a run gives what its layers give, but for the last bits.  Around a number that is not finite, or whose square
    is not, more numbers may become infinite or NaN, never fewer.  A trunk without a run comes back as it is.
    """
    layers = list(trunk.named_children())
    parts = nn.Sequential()
    k = 0
    while k < len(layers):
        run = [layer for _, layer in layers[k : k + 4]]
        length = len(run) if _fits(run) else 1
        name, layer = layers[k + length - 1]
        parts.add_module(name, _Run(*run) if length > 1 else layer)
        k += length
    return parts if len(parts) < len(layers) else trunk


def _fits(run: list[nn.Module]) -> bool:
    match run:
        case [nn.Conv2d() as conv, nn.ReLU(), WithinChannelLRN(), nn.MaxPool2d() as pool]:
            plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
            small = (pool.kernel_size, pool.stride, pool.dilation) == (SIDE, STRIDE, 1)
            return plain and conv.dilation == (1, 1) and small and isinstance(pool.padding, int)
    return False


class _Run(nn.Sequential):
    """The four layers; one by one where gradients are kept, on a GPU, in other dtypes and under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
        if not known or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        conv, _, lrn, pool = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(lrn, WithinChannelLRN)
        assert isinstance(pool, nn.MaxPool2d)
        pad = int(pool.padding)  # type: ignore[arg-type]  # `_fits` lets no other pass
        height, width = (_cells(conv, x.shape[2 + axis], axis) for axis in (0, 1))
        shape = (len(x), conv.out_channels, *(_pooled(pool, size) for size in (height, width)))
        if min(shape[2:]) < 1:
            return super().forward(x)  # which refuses maps that are too small
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        fitting = _BAND // (width * conv.out_channels * x.element_size())  # rows of the convolution's output
        images = max(1, fitting // height)
        rows = shape[2] if fitting >= height else max(1, (fitting - SIDE) // STRIDE)
        for image in range(0, shape[0], images):
            for row in range(0, shape[2], rows):
                band = out[image : image + images, :, row : row + rows]
                first = STRIDE * row - pad
                last = first + STRIDE * (band.shape[2] - 1) + SIDE
                maps, top = _convolved(conv, x[image : image + images], first - 1, last + 1, height)
                pool_rows(_by_cells(maps), _by_cells(band), first - top, (-top, height - top), pad, lrn.alpha)
        return out


def _cells(conv: nn.Conv2d, size: int, axis: int) -> int:
    return (size + 2 * int(conv.padding[axis]) - conv.kernel_size[axis]) // conv.stride[axis] + 1


def _pooled(pool: nn.MaxPool2d, size: int) -> int:
    """Cells of a pool; with `ceil_mode` the last window may reach over the end, but must begin before it."""
    pad = int(pool.padding)  # type: ignore[arg-type]
    cells, rest = divmod(size + 2 * pad - SIDE, STRIDE)
    over = bool(pool.ceil_mode) and rest > 0 and (cells + 1) * STRIDE < size + pad
    return cells + 1 + over


def _convolved(conv: nn.Conv2d, x: Tensor, first: int, last: int, height: int) -> tuple[Tensor, int]:
    """Convolve so much of `x` that the result holds its rows `first` to `last`; also the row that it starts with.

    Rows at the result's ends that reach outside of what was convolved are wrong, and lie beyond these.
    """
    pad, stride = int(conv.padding[0]), conv.stride[0]
    top = max(first - -(-pad // stride), 0)
    bottom = stride * (last - 1) - pad + conv.kernel_size[0] if last < height else x.shape[2]
    maps = conv(x[:, :, stride * top : bottom])
    return maps.contiguous(memory_format=torch.channels_last), top


def _by_cells(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)
