"""What a network expects of its input; the network carries it, so that no stage has to know."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sppnet_cli.network.geometry import resized_size


@dataclass(frozen=True)
class Preprocessing:
    """`(x / divisor - mean) / deviation` per channel, in the network's channel order."""

    order: str  # "RGB" or "BGR"
    divisor: float
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """From RGB images `(B, 3, H, W)` in 0..255, any dtype, to the network's float32 input, channels-last."""
        x = images.to(torch.float32)
        if self.order == "BGR":
            x = x.flip(1)
        mean = torch.tensor(self.mean, device=x.device).view(1, 3, 1, 1)
        scale = 1 / (self.divisor * torch.tensor(self.deviation, device=x.device).view(1, 3, 1, 1))
        return ((x - mean * self.divisor) * scale).contiguous(memory_format=torch.channels_last)


class MinusMeanImage:
    """BGR pixels minus a mean image, which is warped to the input's size (journal edition)."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean  # (3, 224, 224) float32, BGR in 0..255

    def __call__(self, images: Tensor) -> Tensor:
        """From RGB images `(B, 3, H, W)` in 0..255, any dtype, to the network's float32 input, channels-last."""
        warped = F.interpolate(self.mean[None], images.shape[2:], mode="bilinear", align_corners=False)
        x = images.contiguous(memory_format=torch.channels_last).to(torch.float32)
        return x.flip(1) - warped.contiguous(memory_format=torch.channels_last)


CAFFE = Preprocessing("BGR", 1.0, (128.0, 128.0, 128.0), (1.0, 1.0, 1.0))
FAST_RCNN = Preprocessing("BGR", 1.0, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))  # its PIXEL_MEANS


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Image `(3, H, W)` uint8 to float32 `(1, 3, *size)` in 0..255: bilinear, half-pixel centres, no antialias."""
    x = image.to(torch.float32)[None].contiguous(memory_format=torch.channels_last)
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


def resize_short(image: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """RGB image `(H, W, 3)` with its short side resized to `short_side`, bilinear, no antialias."""
    return bilinear(image, resized_size(image.shape[:2], short_side))


def bilinear(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Pixels `(H, W, 3)` uint8 or float32 at `size` (h, w): bilinear, half-pixel centres, no antialias.

    By OpenCV; on a machine without it by torch, which gives the same but for the rounding.
    """
    try:
        import cv2
    except ImportError:
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        resized = F.interpolate(planes, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        found = (resized.round() if pixels.dtype == np.uint8 else resized).numpy()
        return np.ascontiguousarray(found, dtype=pixels.dtype)
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR))
