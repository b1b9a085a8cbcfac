"""What the filters of conv5 respond to in whole images, and where each responds most strongly (Figure 2)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.data.boxes import clip_boxes
from sppnet_cli.features.extract import whole_image
from sppnet_cli.network.geometry import coordinate_scale
from sppnet_cli.network.sppnet import SPPNet


@dataclass(frozen=True)
class Responses:
    """conv5 of one image, in the pixels of that image."""

    maps: NDArray[np.float32]  # (C, h, w), after ReLU
    extent: tuple[float, float, float, float]  # of the maps over the image: left, right, bottom, top edges
    strongest: NDArray[np.float32]  # (C,) the strongest response of each filter
    centres: NDArray[np.float64]  # (C, 2) x, y of the cell that has it, the first of equals
    fields: NDArray[np.float64]  # (C, 4) that cell's receptive field, a box, cut at the image's edges


class FilterResponses:
    """Responses of conv5's filters to whole images, whose short side is resized to `size` pixels."""

    def __init__(self, network: SPPNet, size: int, device: str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.size = size
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Responses:
        """Responses of an RGB image `(H, W, 3)`."""
        pixels = torch.from_numpy(whole_image(image, self.size, "full")).to(self.device)
        maps = self.network.maps(pixels.permute(2, 0, 1)[None], "conv5")[0].cpu().numpy()
        channels, height, width = maps.shape
        place = maps.reshape(channels, -1).argmax(axis=1)
        stride, offset, field = self.network.geometry
        scale = coordinate_scale(image.shape[:2], self.size)
        centres = (np.stack([place % width, place // width], axis=1) * stride + offset) / scale
        reach = (field - 1) / 2 / scale
        fields = clip_boxes(np.concatenate([centres - reach, centres + reach], axis=1), image.shape[:2])
        # Each cell covers a stride around its centre.
        first = (offset - stride / 2) / scale
        extent = (first, first + stride * width / scale, first + stride * height / scale, first)
        return Responses(maps, extent, maps.max(axis=(1, 2)), centres, fields)
