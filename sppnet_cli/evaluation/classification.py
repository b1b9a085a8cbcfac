"""Top-1 and top-5 error of a network over views of each image (paper section 3.1)."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.console import track
from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import read_image
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.network.sppnet import SPPNet

SHORT_SIDE = 256
CROP = 224


@dataclass(frozen=True)
class ClassificationError:
    """Fractions of the images."""

    top1: float
    top5: float
    images: int

    def as_dict(self) -> dict[str, float | int]:
        """`top1_error`, `top5_error` and `n`."""
        return {"top1_error": self.top1, "top5_error": self.top5, "n": self.images}


def views_of(image: NDArray[np.uint8], views: str) -> list[NDArray[np.uint8]]:
    """Views of an RGB image: `10` (centre and corners of the entire image at short side 256, with flips),
    `1crop` (the centre), `1full` (the whole image) or `8+2full` (the corners, and the whole image, with flips).
    """
    height, width = resized_size(image.shape[:2], SHORT_SIDE)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    down, right = height - CROP, width - CROP
    corners = [resized[y : y + CROP, x : x + CROP] for y in (0, down) for x in (0, right)]
    centre = resized[down // 2 : down // 2 + CROP, right // 2 : right // 2 + CROP]
    unflipped = {
        "10": [centre, *corners],
        "1crop": [centre],
        "1full": [resized],
        "8+2full": [*corners, resized],
    }
    chosen = unflipped[views]
    return chosen + [view[:, ::-1] for view in chosen] if views in ("10", "8+2full") else chosen


@torch.inference_mode()
def classification_error(
    network: SPPNet, images: ImageFolder, views: str, device: str = "cpu"
) -> ClassificationError:
    """Errors with the class probabilities averaged over the views."""
    network.to(device).eval()
    ranks = []
    for path, label in zip(track(images.paths, f"classifying, {views} views"), images.labels, strict=True):
        probabilities = _mean_probabilities(network, views_of(read_image(path), views), device)
        ranks.append(int((probabilities > probabilities[label]).sum()))
    rank = np.array(ranks)
    return ClassificationError(float((rank >= 1).mean()), float((rank >= 5).mean()), len(rank))


def _mean_probabilities(network: SPPNet, views: list[NDArray[np.uint8]], device: str) -> Tensor:
    by_shape: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
    for view in views:
        by_shape.setdefault(view.shape, []).append(view)
    batches = [torch.from_numpy(np.stack(same)).permute(0, 3, 1, 2).to(device) for same in by_shape.values()]
    return torch.cat([network(batch).softmax(dim=1) for batch in batches]).mean(dim=0)
