"""Pre-training of a network on an ImageNet-layout folder, single-size or multi-size (paper section 2.3)."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from sppnet_cli.console import status, track
from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import read_image
from sppnet_cli.errors import SppnetError
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.network.sppnet import SPPNet

SHORT_SIDE = 256
CROP = 224
_IN_MEMORY_PIXELS = 600_000_000  # training sets up to this size (1.8 GB) are decoded once


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    sizes: tuple[int, ...]  # input sizes in pixels, an epoch each in turn
    epochs: int
    batch: int
    rate: float  # learning rate: the first of `steps`, the peak of `one-cycle`
    schedule: str  # "steps" (divided by 10 at `drops`) or "one-cycle"
    drops: tuple[int, ...]  # epochs
    init: str  # "paper" or "he"
    clip: float | None  # gradient norm
    optimizer: str = "sgd"  # with momentum, or "adam"
    momentum: float = 0.9
    weight_decay: float = 5e-4


def load_short_side(path: Path, short_side: int = SHORT_SIDE) -> NDArray[np.uint8]:
    """The image resized so that its short side is `short_side`, bilinear, uint8 RGB (H, W, 3)."""
    image = read_image(path)
    height, width = resized_size(image.shape[:2], short_side)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


class Crops(Dataset[tuple[Tensor, int]]):
    """224x224 crops from the centre or a corner of the entire image, flipped half of the time.

    Item (epoch, index) is drawn from (seed, epoch, index) alone: the same whoever loads it and in which order.
    """

    def __init__(self, folder: ImageFolder, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self._decoded: list[NDArray[np.uint8]] | None = None
        if len(folder.paths) * SHORT_SIDE * SHORT_SIDE * 4 // 3 <= _IN_MEMORY_PIXELS:
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:
                images = threads.map(load_short_side, folder.paths)
                self._decoded = list(track(images, "decoding", len(folder.paths)))

    @property
    def in_memory(self) -> bool:
        """Whether all images are decoded already."""
        return self._decoded is not None

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = item
        image = self._decoded[index] if self._decoded else load_short_side(self.folder.paths[index])
        rng = np.random.default_rng([self.seed, epoch, index])
        down, right = image.shape[0] - CROP, image.shape[1] - CROP
        corners = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))
        top, left = corners[rng.integers(5)]
        crop = image[top : top + CROP, left : left + CROP]
        if rng.integers(2):
            crop = crop[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1), int(self.folder.labels[index])


def learning_rate(recipe: Recipe, batch: int, batches_per_epoch: int) -> float:
    """Learning rate of the `batch`-th batch since the start."""
    if recipe.schedule == "steps":
        return recipe.rate * 0.1 ** sum(batch // batches_per_epoch >= drop for drop in recipe.drops)
    total = recipe.epochs * batches_per_epoch
    warm = 0.3 * total
    if batch < warm:
        return recipe.rate * (0.04 + 0.96 * batch / warm)
    return recipe.rate * (1e-3 + 0.999 * 0.5 * (1 + np.cos(np.pi * (batch - warm) / (total - warm))))


def pretrain(
    network: SPPNet, folder: ImageFolder, recipe: Recipe, *, seed: int, device: str, workers: int, out: Path
) -> None:
    """Train `network` in place; the loss of every epoch goes to `out/metrics.jsonl`.

    In multi-size training a full epoch runs at each size in turn, on the same 224 crops resized.  Raises
    `SppnetError` when the loss is not finite.
    """
    torch.manual_seed(seed)
    network.initialise(recipe.init)
    network.to(device).train()
    crops = Crops(folder, seed)
    optimizer = _optimizer(network, recipe)
    per_epoch = len(folder.paths) // recipe.batch
    if per_epoch == 0:
        raise SppnetError(f"{len(folder.paths)} training images are less than a batch of {recipe.batch}")
    (out / "metrics.jsonl").unlink(missing_ok=True)
    for epoch in range(recipe.epochs):
        size = recipe.sizes[epoch % len(recipe.sizes)]
        order = np.random.default_rng([seed, epoch]).permutation(len(folder.paths))[
            : per_epoch * recipe.batch
        ]
        batches = DataLoader(
            crops,
            batch_size=recipe.batch,
            sampler=[(epoch, int(index)) for index in order],
            num_workers=0 if crops.in_memory else workers,
        )
        losses = []
        label = f"epoch {epoch + 1}/{recipe.epochs} at {size}"
        for number, (images, labels) in enumerate(track(batches, label, per_epoch)):
            rate = learning_rate(recipe, epoch * per_epoch + number, per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            pixels = images.to(device).float().contiguous(memory_format=torch.channels_last)
            if size != CROP:
                pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
            losses.append(training_step(network, optimizer, pixels, labels.to(device), recipe.clip))
        record = {"epoch": epoch + 1, "size": size, "loss": float(np.mean(losses)), "rate": rate}
        with (out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        status(f"{label}: loss {record['loss']:.3f}")
    network.eval()


def training_step(
    network: SPPNet, optimizer: torch.optim.Optimizer, pixels: Tensor, labels: Tensor, clip: float | None
) -> float:
    """One step on images `(B, 3, H, W)` in 0..255; returns the loss.  Raises `SppnetError` if it is not finite."""
    loss = F.cross_entropy(network(pixels), labels)
    value = float(loss.detach())
    if not np.isfinite(value):
        raise SppnetError("pre-training diverged: the loss is not finite; lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
    return value


def _optimizer(network: SPPNet, recipe: Recipe) -> torch.optim.Optimizer:
    # Biases learn twice as fast and do not decay, as in the authors' prototxt.
    groups = [
        {
            "params": [p for name, p in network.named_parameters() if name.endswith(ending)],
            "factor": factor,
            "lr": recipe.rate,
            "weight_decay": decay,
        }
        for ending, factor, decay in (("weight", 1.0, recipe.weight_decay), ("bias", 2.0, 0.0))
    ]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=recipe.momentum, fused=True)
