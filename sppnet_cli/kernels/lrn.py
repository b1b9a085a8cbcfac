"""Within-channel local response normalisation, fused into one pass over channels-last maps on the CPU."""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sppnet_cli.kernels.jit import kernel
from sppnet_cli.threads import share_out


class WithinChannelLRN(nn.Module):
    """`y = x * (1 + alpha * mean3x3(x^2))^-0.75` with a zero-padded mean (released prototxt).

    Not `nn.LocalResponseNorm`, which sums over neighbouring channels.
    """

    def __init__(self, alpha: float = 5e-5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps (B, C, H, W); of 16-bit maps only the result is rounded to 16 bits."""
        if torch.compiler.is_compiling():  # traced, by torch.export for one
            return within_channel_lrn(x, self.alpha)
        if x.is_meta:  # only the shape is wanted, and torch takes milliseconds to follow the definition
            return torch.empty_like(x)
        fused = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)
        if fused and x.dtype == torch.bfloat16 and not (x.requires_grad and torch.is_grad_enabled()):
            y = torch.empty_like(x)
            bits = tuple(_rows(maps.view(torch.uint16)) for maps in (x, y))
            in_bands(_forward_bf16, bits, x.shape[1], self.alpha)
            return y
        if x.dtype in (torch.bfloat16, torch.float16):
            return self.forward(x.float()).to(x.dtype)
        if fused and x.dtype == torch.float32:
            return _FusedLRN.apply(x, self.alpha)
        return within_channel_lrn(x, self.alpha)


def within_channel_lrn(x: Tensor, alpha: float) -> Tensor:
    """The definition, in torch's operators."""
    mean = F.avg_pool2d(x.square(), 3, stride=1, padding=1, count_include_pad=True)
    root = torch.rsqrt(1 + alpha * mean)
    return x * root * root.sqrt()  # y^-0.75 = y^-0.5 * y^-0.25, far cheaper than pow


class _FusedLRN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        y = torch.empty_like(x)
        in_bands(_forward, (_rows(x), _rows(y)), x.shape[1], alpha)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        result = torch.empty_like(x)
        in_bands(_backward, (_rows(x), _rows(gradient), _rows(result)), x.shape[1], ctx.alpha)
        return result, None


def _rows(maps: Tensor) -> Any:
    """Channels-last maps as (B, H, W * C)."""
    batch, channels, height, width = maps.shape
    return maps.detach().permute(0, 2, 3, 1).reshape(batch, height, width * channels).numpy()


def in_bands(compute: Any, arrays: tuple[Any, ...], channels: int, alpha: float) -> None:
    """Call the kernel `compute` on bands of rows, in as many threads as torch uses."""
    batch, height = arrays[0].shape[:2]
    threads = torch.get_num_threads()
    bands = math.ceil(threads / batch) if batch else 0
    step = math.ceil(height / bands) if bands else 1
    jobs = [(b, y, min(y + step, height)) for b in range(batch) for y in range(0, height, step)]
    share_out(lambda job: compute(*arrays, channels, alpha, *job), jobs)


# No fastmath: LLVM chooses between a loop's scalar and vector version by the arrays' addresses, and the two would differ.
@kernel
def _scale_row(x, y, channels, alpha, padded, scale):  # type: ignore[no-untyped-def]
    """`1 + alpha * mean3x3(x^2)` of row `y` of one image's (H, W * C) into `scale`."""
    height, length = x.shape
    inner = padded[channels : channels + length]
    middle = x[y]
    for i in range(length):
        inner[i] = middle[i] * middle[i]
    if y > 0:
        above = x[y - 1]
        for i in range(length):
            inner[i] += above[i] * above[i]
    if y + 1 < height:
        below = x[y + 1]
        for i in range(length):
            inner[i] += below[i] * below[i]
    left, right = padded[:length], padded[2 * channels :]
    factor = np.float32(alpha / 9)
    for i in range(length):
        scale[i] = np.float32(1) + factor * (left[i] + inner[i] + right[i])


@kernel
def _forward(x, out, channels, alpha, image, first, last):  # type: ignore[no-untyped-def]
    length = x.shape[2]
    padded = np.zeros(length + 2 * channels, np.float32)
    scale = np.empty(length, np.float32)
    for y in range(first, last):
        _scale_row(x[image], y, channels, alpha, padded, scale)
        source, target = x[image, y], out[image, y]
        for i in range(length):
            root = np.sqrt(scale[i])
            target[i] = source[i] / (root * np.sqrt(root))


@kernel
def _forward_bf16(x, out, channels, alpha, image, first, last):  # type: ignore[no-untyped-def]
    """As `_forward`, on the bits of bfloat16, which are the upper half of float32's."""
    height, length = x.shape[1], x.shape[2]
    maps, outside = x[image], np.zeros(length, x.dtype)
    squares = np.zeros(length + 2 * channels, np.float32)
    inner, left, right = squares[channels : channels + length], squares[:length], squares[2 * channels :]
    factor = np.float32(alpha / 9)
    for y in range(first, last):
        source, target = maps[y], out[image, y]
        above, below = maps[y - 1] if y > 0 else outside, maps[y + 1] if y + 1 < height else outside
        for i in range(length):
            a, b, c = widen(above[i]), widen(source[i]), widen(below[i])
            inner[i] = b * b + a * a + c * c
        for i in range(length):
            root = np.sqrt(np.float32(1) + factor * (left[i] + inner[i] + right[i]))
            target[i] = narrow(widen(source[i]) / (root * np.sqrt(root)))


@numba.njit(inline="always")
def widen(bits):  # type: ignore[no-untyped-def]
    """The float32 number of a bfloat16's 16 bits."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@numba.njit(inline="always")
def narrow(number):  # type: ignore[no-untyped-def]
    """The 16 bits of the bfloat16 nearest to a float32 number; halfway between two, of the even one."""
    bits = np.float32(number).view(np.uint32)
    return np.uint16(
        np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    )


@kernel
def _backward(x, gradient, out, channels, alpha, image, first, last):  # type: ignore[no-untyped-def]
    # dx = g * s^-.75 - x * (1.5 * alpha / 9) * sum3x3(g * x * s^-1.75)
    height, length = x.shape[1], x.shape[2]
    padded = np.zeros(length + 2 * channels, np.float32)
    scale = np.empty(length, np.float32)
    terms = np.zeros((3, length), np.float32)  # rows y - 1, y, y + 1, by y modulo 3
    power = np.empty((3, length), np.float32)
    summed = np.zeros(length + 2 * channels, np.float32)
    inner = summed[channels : channels + length]
    left, right = summed[:length], summed[2 * channels :]
    factor = np.float32(1.5 * alpha / 9)
    for y in range(first - 1, last + 1):
        ring = y % 3
        if 0 <= y < height:
            _scale_row(x[image], y, channels, alpha, padded, scale)
            source, incoming = x[image, y], gradient[image, y]
            term, root34 = terms[ring], power[ring]
            for i in range(length):
                root = np.sqrt(scale[i])
                inverse = np.float32(1) / (root * np.sqrt(root))
                root34[i] = inverse
                term[i] = incoming[i] * source[i] * inverse / scale[i]
        else:
            terms[ring, :] = 0
        row = y - 1
        if row < first:
            continue
        one, two, three = terms[0], terms[1], terms[2]
        for i in range(length):
            inner[i] = one[i] + two[i] + three[i]
        source, incoming, target = x[image, row], gradient[image, row], out[image, row]
        root34 = power[row % 3]
        for i in range(length):
            target[i] = incoming[i] * root34[i] - factor * source[i] * (left[i] + inner[i] + right[i])
