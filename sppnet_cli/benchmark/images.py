"""Images, windows and a network for benchmarks."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.data.images import find_images, read_image
from sppnet_cli.data.layouts import layout_of
from sppnet_cli.data.mini_drawing import draw_background, stream
from sppnet_cli.data.proposals import image_seed, propose, top_up
from sppnet_cli.data.voc import load_voc
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network

SIZE = (375, 500)  # height and width, the most common in VOC
FC = 4096  # outputs of fc6 and fc7
METHOD = "ss-paper"  # of proposals: about 2,000 windows


def drawn_image(seed: int, index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Part of a photograph with clutter in front of it, RGB `(*size, 3)`; equal arguments give equal images."""
    bgr = draw_background(stream(seed, "benchmark", index), *size)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def benchmark_images(data: Path | None, count: int, seed: int) -> list[NDArray[np.uint8]]:
    """The first `count` images of VOC's test split or of a folder; without `data`, drawn ones.

    Raises `DataError` where there are none.
    """
    if data is None:
        return [drawn_image(seed, index) for index in range(count)]
    if layout_of(data) == "VOC":
        voc = load_voc(data, "test", count)
        return [voc.image(image_id) for image_id in voc.ids]
    return [read_image(path) for path in find_images([data])[:count]]


def benchmark_windows(image: NDArray[np.uint8], count: int, seed: int) -> NDArray[np.float32]:
    """`count` windows of an image: selective search's, and random ones if it finds fewer."""
    drawn = image_seed(seed, "benchmark")
    return top_up(propose(image, METHOD, drawn), count, image.shape[:2], drawn)


def benchmark_network(run: Path | None, seed: int, device: str) -> tuple[SPPNet, Head]:
    """The network of a run, or a full-width ZF-5 with random weights; random fc layers if it has none."""
    torch.manual_seed(seed)
    if run is None:
        network = SPPNet(NetworkSpec("zf5", fc=FC, classes=1000))
        network.initialise("he")
    else:
        network = load_network(run)
    head = network.head or Head(network.pooled_size, FC, 1)
    return network.to(device).eval(), head.to(device).eval()
