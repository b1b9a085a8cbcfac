"""Images, windows and a network for benchmarks."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from sppnet_cli.data.images import find_images, read_image
from sppnet_cli.data.layouts import layout_of
from sppnet_cli.data.proposals import can_propose, image_seed, propose, top_up
from sppnet_cli.data.voc import load_voc
from sppnet_cli.network.preprocessing import bilinear
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network

SIZE = (375, 500)  # height and width, the most common in VOC
FC = 4096  # outputs of fc6 and fc7
METHOD = "ss-paper"  # of proposals: about 2,000 windows


def drawn_image(seed: int, index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Part of a photograph with clutter in front of it, RGB `(*size, 3)`; equal arguments give equal images.

    Without OpenCV there is no clutter.
    """
    try:
        from sppnet_cli.data.mini_drawing import draw_background, stream
    except ImportError:
        rng = np.random.default_rng([seed, index])
        photo = load_sample_images().images[rng.integers(2)]
        top, left = rng.integers(photo.shape[0] // 2), rng.integers(photo.shape[1] // 2)
        part = photo[top : top + photo.shape[0] // 2, left : left + photo.shape[1] // 2]
        return bilinear(np.ascontiguousarray(part), size)
    bgr = draw_background(stream(seed, "benchmark", index), *size)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def window_source() -> str:
    """Where `benchmark_windows` come from, for the record."""
    return METHOD if can_propose() else "random"


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
    """`count` windows of an image: selective search's, and random ones if it finds fewer or OpenCV lacks it."""
    drawn = image_seed(seed, "benchmark")
    found = propose(image, METHOD, drawn) if can_propose() else np.empty((0, 4), np.float32)
    return top_up(found, count, image.shape[:2], drawn)


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
