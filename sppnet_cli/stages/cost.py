"""Estimates of what stages cost: their arithmetic over the speed of this machine, measured by a short convolution.

The factors on that speed come from two kinds of processor (AMD EPYC, Intel Xeon); an estimate may be off by half.
"""

import functools
import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from sppnet_cli.console import warn
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import CROP, resized_size
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

SEARCH_SECONDS = 4.5e-6  # selective search, per pixel
READ_SECONDS = 5e-9  # decoding and resizing an image, per pixel of the result
_CONV, _FC, _TRAIN = 0.7, 0.75, 0.5  # shares of the speed that forward passes and training steps reach
_SMALL = 5e8  # operations on a 224x224 image, below which bfloat16 costs a CPU more than it saves
_PROCESS = 0.5  # GiB of a process without data


@dataclass(frozen=True)
class Work:
    """Arithmetic, and about how long it takes with what goes with it."""

    flops: float  # floating-point operations, two for every multiply-add
    seconds: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.seconds + other.seconds)

    def __mul__(self, times: float) -> "Work":
        return Work(times * self.flops, times * self.seconds)


@dataclass(frozen=True)
class Walk:
    """One pass over the windows of a set of images."""

    images: int
    windows: int  # of an image
    size: tuple[int, int]  # height and width of a typical image
    crops: int | None  # R-CNN: windows that are warped to crops; None: whole images at `scales`
    scales: tuple[int, ...]


@functools.cache
def rate(device: str = "cpu") -> float:
    """Floating-point operations per second of a convolution, on a CPU in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        maps = torch.rand(1, 128, 48, 64, device=device)
        weights = torch.rand(128, 128, 3, 3, device=device)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            F.conv2d(maps, weights, padding=1).sum().item()
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * 128 * 128 * 9 * 48 * 64 / min(seconds)


@functools.cache
def conv_flops(spec: NetworkSpec, height: int, width: int) -> int:
    """Floating-point operations of the trunk on one image."""
    return flops(SPPNet(spec).trunk, (1, 3, height, width))


@functools.cache
def sizes_of(spec: NetworkSpec) -> tuple[int, int]:
    """Length of a pooled vector, and bytes of all parameters."""
    with torch.device("meta"):
        network = SPPNet(spec)
    return network.pooled_size, sum(4 * p.numel() for p in network.parameters())


def warn_of_bf16(option: str, spec: NetworkSpec, device: str) -> None:
    """Warn that a processor takes longer in bfloat16 where a network is so small that conversions take most time."""
    work = conv_flops(spec, 224, 224)
    if device == "cpu" and work < _SMALL:
        warn(f"{option}: on a CPU and a network as small as this ({work / 1e9:.2g} GFLOP) fp32 is quicker")


def training_work(spec: NetworkSpec, images: int, sizes: tuple[int, ...], device: str) -> Work:
    """To train on so many images, the sizes in turn."""
    pooled, _ = sizes_of(spec)
    conv = sum(conv_flops(spec, side, side) for side in sizes) / len(sizes)
    head = 2 * (pooled + spec.fc) * spec.fc
    work = 3 * images * (conv + head)
    return Work(work, work / (_TRAIN * rate(device)))


def forward_work(spec: NetworkSpec, images: int, height: int, width: int, device: str) -> Work:
    """To read images and send them through the network at this size."""
    work = conv_flops(spec, height, width)
    return Work(work, work / (_CONV * rate(device)) + READ_SECONDS * height * width * 3) * images


def feature_work(spec: NetworkSpec, walk: Walk, device: str) -> Work:
    """To compute the conv5 maps of all images, or R-CNN's vectors."""
    if walk.crops is not None:
        work, pixels = walk.crops * conv_flops(spec, CROP, CROP), walk.crops * CROP**2
    else:
        shapes = [resized_size(walk.size, scale) for scale in walk.scales]
        work = sum(conv_flops(spec, *shape) for shape in shapes)
        pixels = sum(height * width for height, width in shapes)
    return Work(work, work / (_CONV * rate(device)) + READ_SECONDS * pixels) * walk.images


def layer_work(spec: NetworkSpec, fc: int, layer: str, walk: Walk, device: str) -> Work:
    """To pool the windows of all images and to compute the fc layers up to `layer`."""
    pooled, _ = sizes_of(spec)
    work = 2 * {"pool5": 0, "fc6": pooled * fc}.get(layer, pooled * fc + fc * fc)
    pooling = 2e-9 * pooled  # seconds a window, bound by memory
    return Work(work, work / (_FC * rate(device)) + pooling) * (walk.images * walk.windows)


def finetuning_work(inputs: int, fc: int, batches: int, batch: int, device: str) -> Work:
    """To train fc layers on pooled vectors."""
    work = 6 * batches * batch * (inputs + fc) * fc
    return Work(work, work / (_TRAIN * rate(device)))


def memory(gigabytes: float) -> float:
    """GiB of a process with so many GB of data."""
    return _PROCESS + gigabytes
