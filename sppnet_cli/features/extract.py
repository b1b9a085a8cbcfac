"""Features of whole images: conv maps pooled over the full image or a crop, or the fc layers on them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.console import track
from sppnet_cli.data.images import read_image
from sppnet_cli.errors import UsageError
from sppnet_cli.features.layers import Layer
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.network.sppnet import SPPNet

LAYERS = ("pool5", "SPP pool5", "fc6", "fc7")
CROP = 224


def whole_image(image: NDArray[np.uint8], size: int, view: str) -> NDArray[np.uint8]:
    """An RGB image with its short side resized to `size`: all of it (`full`), or its 224x224 centre (`crop`)."""
    height, width = resized_size(image.shape[:2], size)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if view == "full":
        return resized
    top, left = (height - CROP) // 2, (width - CROP) // 2
    return resized[top : top + CROP, left : left + CROP]


@torch.inference_mode()
def image_feature(network: SPPNet, image: NDArray[np.uint8], layer: str) -> Tensor:
    """Feature `(D,)` of a view; `pool5` is the finest level of the pyramid (the plain net's whole pool5)."""
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    pooled = network.pool(network.trunk(network.preprocessing(batch)))
    if layer == "SPP pool5":
        return pooled[0]
    if layer == "pool5":
        finest = 36 if network.spec.levels is None else max(network.spec.levels) ** 2
        return pooled[0, -finest * network.channels :]
    return Layer(layer, network.require_head())(pooled)[0]


def extract_features(
    network: SPPNet, paths: Sequence[Path], layer: str, view: str, size: int, out: Path
) -> tuple[int, int]:
    """Write `features.npy` (N, D) float32, to be memory-mapped, row n for `paths[n]`; returns its shape."""
    if view == "crop" and size < CROP:
        raise UsageError(f"--size {size}: a crop of {CROP} px does not fit; take {CROP} or more")
    if layer == "SPP pool5" and network.spec.levels is None:
        raise UsageError("the plain net has no SPP pool5; its pool5 is `pool5`")
    if network.spec.levels is None and view == "full":
        raise UsageError("the plain net takes a crop only; give --view crop")
    network.eval()
    features: np.memmap | None = None
    for row, path in enumerate(track(paths, f"extracting {layer}")):
        feature = image_feature(network, whole_image(read_image(path), size, view), layer).numpy()
        if features is None:
            features = open_memmap(out / "features.npy", "w+", np.float32, (len(paths), len(feature)))
        features[row] = feature
    if features is None:
        raise UsageError("no images to extract features from")
    features.flush()
    return features.shape[0], features.shape[1]
