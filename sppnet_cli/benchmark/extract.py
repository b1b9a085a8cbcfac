"""Benchmark of whole-image features: image by image, as they are extracted, against batches of equal crops."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from sppnet_cli.benchmark.images import benchmark_images, benchmark_network
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.evaluation.limits import float32_everywhere, gemm_gflops, machine
from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.features.extract import ImageFeatures, whole_image
from sppnet_cli.names import FC_LAYERS
from sppnet_cli.network.flops import flops
from sppnet_cli.network.sppnet import SPPNet

SIDES = {"crop_224": ("crop", 224), "full_224": ("full", 224), "full_392": ("full", 392)}
"""View and short side in pixels, as in the transfer experiments (paper section 3.2)."""
BATCHED = "batched_crop_224"


@dataclass(frozen=True)
class ExtractSpeed:
    """Settings."""

    images: int = 16  # all in one batch on the other side
    repeats: int = 3
    seed: int = 0


def benchmark_extract(
    config: ExtractSpeed, *, data: Path | None = None, network: Path | None = None, device: str = "cpu"
) -> Benchmark:
    """Images per second to SPP pool5 and, if the network has them, fc6 and fc7.

    Images of different shapes cannot share a batch.  The other side is a network of fixed input: all centre crops in a
    batch.

    Args:
        config: how much is measured.
        data: VOC or a folder of images; without it, drawn photographs of 375x500.
        network: a run of `sppnet pretrain`; without it, a full-width ZF-5 with random weights.
        device: where all sides run.
    """
    images = benchmark_images(data, config.images, config.seed)
    net, _ = benchmark_network(network, config.seed, device)
    layers = ("SPP pool5", *(FC_LAYERS if net.head else ()))
    views = {
        name: [whole_image(image, size, kind) for image in images] for name, (kind, size) in SIDES.items()
    }
    crops = torch.from_numpy(np.stack(views["crop_224"])).permute(0, 3, 1, 2)
    sides: dict[str, Callable[[], object]] = {
        name: partial(_one_by_one, ImageFeatures(net, layers, *SIDES[name], device), of_side)
        for name, of_side in views.items()
    }
    sides[BATCHED] = lambda: _batch(net, crops.to(device))
    with float32_everywhere():
        gemm = gemm_gflops(device)
        seconds = take_turns(sides, config.repeats, device)
    shapes = {name: [view.shape[:2] for view in of_side] for name, of_side in views.items()}
    shapes[BATCHED] = shapes["crop_224"]
    columns = {}
    for name, of_all in seconds.items():
        speed = sum(_work(net, *shape) for shape in shapes[name]) / of_all / 1e9
        columns[name] = {
            "seconds": of_all / len(images),
            "images_per_second": len(images) / of_all,
            "gflops_per_second": speed,
            "share_of_gemm": speed / gemm,
        }
    batched = columns[BATCHED]["images_per_second"]
    record = columns | {
        "share_of_batched": columns["crop_224"]["images_per_second"] / batched,
        "layers": list(layers),
        "gemm_gflops": gemm,
        "precision": "float32",
        "threads": torch.get_num_threads(),
        "device": device,
        "images": len(images),
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": machine(device),
    }
    table = pd.DataFrame([{"side": name, **column} for name, column in columns.items()])
    note = f"{', '.join(layers)} of {len(images)} images, decoded beforehand; {BATCHED}: in one batch."
    return Benchmark("extract", record, table, note)


def _one_by_one(features: ImageFeatures, views: list[NDArray[np.uint8]]) -> None:
    for view in views:
        features(view)


@torch.inference_mode()
def _batch(network: SPPNet, crops: torch.Tensor) -> object:
    pooled = network.pool(network.maps(crops, "conv5"))
    if network.head is None:
        return pooled.cpu()
    fc6 = network.head.features(pooled, "fc6")
    return pooled.cpu(), fc6.cpu(), network.head.relu(network.head.fc7(fc6)).cpu()


def _work(network: SPPNet, height: int, width: int) -> int:
    """Operations for one image."""
    work = flops(network.trunk, (1, 3, height, width))
    if network.head is not None:
        work += flops(nn.Sequential(network.head.fc6, network.head.fc7), (1, network.pooled_size))
    return work
