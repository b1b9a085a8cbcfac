"""R-CNN's window features on SPP-net's weights: every window warped to the crop and sent through the network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.features.method import Extractor, Image, Step
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import CROP, Boxes
from sppnet_cli.network.preprocessing import bilinear
from sppnet_cli.protocols import PAPER, Protocol

CONTEXT = 16  # pixels of context around the window, in the crop
BATCH = 64  # windows per pass


@dataclass(frozen=True)
class PreprocessedImage:
    """An image after the network's preprocessing; zero stands for what lies outside of it."""

    size: tuple[int, int]  # (H, W)
    pixels: NDArray[np.float32]  # (H, W, 3)


class RcnnWindows(Extractor):
    """Warps every window and pools it from its own conv5 map (R-CNN's `rcnn_im_crop`)."""

    method = "rcnn"

    @staticmethod
    def protocol_of(protocol: Protocol) -> Protocol:
        """R-CNN's own rules, under any protocol.

        Its windows have neither a scale nor cells of a shared map: the rules about these are always the paper's, which
        do nothing here, and the released code's rule for near-duplicates drops none of them.
        """
        return replace(
            protocol,
            finetune_negative_iou=protocol.rcnn_background_iou,
            bbox_iou=protocol.rcnn_bbox_iou,
            bbox_iou_inclusive=False,
            bbox_lambda=protocol.rcnn_bbox_lambda,
            finetune_schedule=protocol.rcnn_finetune_schedule,
            finetune_fc8_rate=protocol.rcnn_fc8_rate,
            duplicate_rule="iou" if protocol.duplicate_rule == "iou" else "none",
            scale_rule=PAPER.scale_rule,
            cell_slack=PAPER.cell_slack,
            finetune_scale=PAPER.finetune_scale,
        )

    def prepare(self, image: Image) -> PreprocessedImage:
        """The preprocessed image of an RGB image `(H, W, 3)`."""
        pixels = self.network.preprocessing(torch.from_numpy(image).permute(2, 0, 1)[None])
        return PreprocessedImage(image.shape[:2], pixels[0].permute(1, 2, 0).contiguous().numpy())

    def warp(self, prepared: PreprocessedImage, boxes: Boxes) -> Iterator[Tensor]:
        """Batches `(<=64, 3, 224, 224)` of the warped windows, in their order."""
        for start in range(0, len(boxes), BATCH):
            crops = np.stack([warp_window(prepared.pixels, box) for box in boxes[start : start + BATCH]])
            yield torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def conv5(self, crops: Tensor) -> Tensor:
        """conv5 maps `(B, C, 13, 13)` of a batch of warped windows."""
        return self.trunk(crops.to(self.dtype))

    @torch.inference_mode()
    def pool(
        self, prepared: PreprocessedImage, boxes: Boxes, scales: NDArray[np.int64] | None = None
    ) -> Tensor:
        """Pyramid vectors `(N, D)` of windows `(N, 4)` in the original image; there are no `scales`."""
        batches = [self.network.pool(self.conv5(crops)) for crops in self.warp(prepared, boxes)]
        return (
            torch.cat(batches)
            if batches
            else torch.empty(0, self.network.pooled_size, dtype=self.dtype, device=self.device)
        )

    def pool_in_steps(self, image: Image, boxes: Boxes, lap: Callable[[Step], None]) -> Tensor:
        """Vectors `(N, D)` of windows `(N, 4)`, with a `lap` after each step (see `Extractor`)."""
        prepared = self.prepare(image)
        lap("image")
        batches = []
        for crops in self.warp(prepared, boxes):
            lap("warp")
            maps = self.conv5(crops)
            lap("conv")
            batches.append(self.network.pool(maps))
            lap("pool")
        vectors = torch.cat(batches)
        lap("pool")
        return vectors

    def cached_shapes(self, size: tuple[int, int], windows: int) -> list[tuple[int, ...]]:
        """That of the vectors."""
        return [(windows, self.network.pooled_size)]

    def conv_flops(self, size: tuple[int, int], windows: int) -> int:
        """Operations of the convolutional layers on the crops of so many windows, whatever the image's `size`."""
        return windows * flops(self.network.trunk, (1, 3, CROP, CROP))


def warp_window(
    pixels: NDArray[Any],
    box: NDArray[np.floating],
    preprocess: Callable[[NDArray[Any]], NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Warp one window, with its context, to `(224, 224, 3)`; each axis has its own factor, bilinear.

    `pixels` is the preprocessed image `(H, W, 3)`, or with `preprocess` the image itself, of which only the
    window and its context are then preprocessed.  `box` is x1, y1, x2, y2 inclusive.
    """
    height, width = pixels.shape[:2]
    grow = CROP / (CROP - 2 * CONTEXT)
    half = (box[2:] - box[:2] + 1) / 2
    centre = box[:2] + half
    x1, y1 = _round(centre - half * grow)
    x2, y2 = _round(centre + half * grow)
    scale_x, scale_y = CROP / (x2 - x1 + 1), CROP / (y2 - y1 + 1)
    left, top = round(max(0, -x1) * scale_x), round(max(0, -y1) * scale_y)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width - 1), min(y2, height - 1)
    inside_x = max(1, min(round((x2 - x1 + 1) * scale_x), CROP - left))
    inside_y = max(1, min(round((y2 - y1 + 1) * scale_y), CROP - top))
    region = pixels[y1 : y2 + 1, x1 : x2 + 1]
    if preprocess is not None:
        region = preprocess(region)
    warped = bilinear(region, (inside_y, inside_x))
    if (inside_x, inside_y) == (CROP, CROP):
        return warped
    crop = np.zeros((CROP, CROP, 3), dtype=np.float32)
    crop[top : top + inside_y, left : left + inside_x] = warped
    return crop


def _round(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """MATLAB's round: halves go away from zero."""
    return (np.sign(values) * np.floor(np.abs(values) + 0.5)).astype(np.int64)
