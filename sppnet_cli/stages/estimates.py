"""Seconds that networks take on this machine, measured untrained, on a black or random image."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.clock import Clock
from sppnet_cli.evaluation.timing import FeatureTime, time_image
from sppnet_cli.features.extract import ImageFeatures
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.learning.pretrain import Tally, training_step
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.protocols import Protocol


@cache
def view_seconds(spec: NetworkSpec, device: str) -> float:
    """Of a crop of 224 pixels through the whole network."""
    network = SPPNet(spec).to(device).eval()
    crop = torch.zeros(1, 3, CROP, CROP, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        network(crop)
        clock = Clock(device)
        network(crop)
    return clock.lap()


def image_seconds(features: ImageFeatures, image: NDArray[np.uint8]) -> float:
    """Of the features of a whole image `(H, W, 3)`."""
    clock = Clock(features.device)
    features(image)
    return clock.lap()


@cache
def feature_seconds(
    spec: NetworkSpec,
    fc: int,
    method: str,
    protocol: Protocol,
    scales: tuple[int, ...],
    device: str,
    windows: int,
    size: tuple[int, int],
) -> tuple[FeatureTime, int]:
    """Of `windows` windows of an image of `size` (height, width), and the length of a pooled vector."""
    network = SPPNet(spec)
    extractor = make_extractor(method, network, protocol, scales, device)
    layer = Layer("fc7", Head(network.pooled_size, fc, 21))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    corners = rng.integers(0, 150, (windows, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, 100, (windows, 2))], axis=1).astype(
        np.float32
    )
    time_image(extractor, layer, image, boxes[:2])
    return time_image(extractor, layer, image, boxes), network.pooled_size


@cache
def batch_seconds(spec: NetworkSpec, size: int, batch: int, device: str, amp: bool) -> float:
    """Of a training step on `batch` images of `size`."""
    network = SPPNet(spec).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    pixels = torch.zeros(batch, 3, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    tally = Tally(torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device))
    training_step(network, optimizer, pixels, labels, clip=None, amp=amp, tally=tally)
    clock = Clock(device)
    training_step(network, optimizer, pixels, labels, clip=None, amp=amp, tally=tally)
    return clock.lap()
