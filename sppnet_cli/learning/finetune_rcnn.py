"""R-CNN's fine-tuning of all layers, on warped windows (the baseline of Table 6)."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from sppnet_cli.console import status, track
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.rcnn import warp_window
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.checkpoint import (
    load_checkpoint,
    restore_optimizer,
    restoring,
    save_checkpoint,
)
from sppnet_cli.learning.crops import batches
from sppnet_cli.learning.finetune import Schedule, Windows, candidates
from sppnet_cli.learning.optimizer import parameter_groups
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import FinetuneRules
from sppnet_cli.runs import CHECKPOINT

_SAVED_EVERY = 300.0  # seconds, about
_CHECKED_EVERY = 20  # batches between checks of the loss, each of which waits for the device


class WarpedBatches(Dataset[tuple[Tensor, Tensor]]):
    """Item k is the k-th batch: preprocessed crops `(B, 3, 224, 224)` float16, and labels `(B,)`.

    A batch depends only on (seed, k), not on the process that loads it or on the order.  If the images fit into
    `max_gib` (VOC 2007 needs 2.6) they are decoded once, for all workers.
    """

    def __init__(
        self,
        source: WindowSource,
        positives: Windows,
        negatives: Windows,
        rules: FinetuneRules,
        *,
        flip: bool,
        seed: int,
        max_gib: float,
    ) -> None:
        self.preprocessing = source.extractor.network.preprocessing
        self.dataset = source.dataset
        self.pools = (positives, negatives)
        self.rules = rules
        self.flip = flip
        self.seed = seed
        self._boxes = []
        pixels = 0
        for index in range(len(source)):
            windows = source.windows(index)
            self._boxes.append(windows.boxes)
            pixels += windows.size[0] * windows.size[1]
        self._decoded: list[NDArray[np.uint8]] | None = None
        if 3 * pixels <= max_gib * 2**30:
            self._decoded = [
                self._read(index) for index in track(range(len(source)), "decoding training images")
            ]

    def draw(self, batch: int) -> Windows:
        """The windows of a batch, drawn uniformly: a quarter are positive and, with `flip`, half are mirrored."""
        rng = np.random.default_rng([self.seed, batch])
        size = self.rules.finetune_batch
        n_positive = round(size * self.rules.finetune_positive_fraction)
        picks = [
            rng.integers(len(pool), size=count)
            for pool, count in zip(self.pools, (n_positive, size - n_positive), strict=True)
        ]
        image, row, label = (
            np.concatenate([getattr(pool, name)[pick] for pool, pick in zip(self.pools, picks, strict=True)])
            for name in ("image", "row", "label")
        )
        mirrored = rng.integers(2, size=size) == 1
        return Windows(image, row, mirrored & self.flip, label)

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        drawn = self.draw(batch)
        crops = torch.empty(len(drawn), CROP, CROP, 3, dtype=torch.float16)
        for index in np.unique(drawn.image):
            image = self._decoded[index] if self._decoded else self._read(index)
            for k in np.flatnonzero(drawn.image == index):
                crop = warp_window(image, self._boxes[index][drawn.row[k]], self._preprocess)
                pixels = torch.from_numpy(crop)
                crops[k] = pixels.flip(1) if drawn.flip[k] else pixels  # as Caffe mirrors: after the warp
        return crops.permute(0, 3, 1, 2), torch.from_numpy(drawn.label)

    def _read(self, index: int) -> NDArray[np.uint8]:
        return self.dataset.image(self.dataset.ids[index])

    def _preprocess(self, region: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self.preprocessing(torch.from_numpy(region).permute(2, 0, 1)[None])
        return pixels[0].permute(1, 2, 0).contiguous().numpy()


def finetune_all(
    head: Head,
    source: WindowSource,
    rules: FinetuneRules,
    schedule: Schedule,
    *,
    flip: bool,
    seed: int,
    workers: int,
    max_gib: float,
    folder: Path,
) -> Head:
    """Train the trunk of the source's network, in place, together with `head`, which is returned.

    Positives overlap a box by IoU [.5, 1], negatives by [0, .5) (R-CNN).  Batch normalisation in the trunk keeps its
    statistics, as in a test.  The state is saved in `folder` about every five minutes, and a later call continues from
    it; on the CPU the result then has the same bits as that of an uninterrupted call.

    Raises `DataError` if there is nothing to train on, `SppnetError` if the loss is not finite.
    """
    network, device = source.extractor.network, source.extractor.device
    positives, negatives = candidates(source, rules, flip=False)
    if not len(positives) or not len(negatives):
        raise DataError(
            f"{source.dataset.root}: no window overlaps an object enough to fine-tune on; check --proposals"
        )
    model = nn.Sequential(network.trunk.eval(), network.pool, head.to(device).train())
    groups = parameter_groups(model, schedule.weight_decay, schedule.fc8_rate)
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=schedule.momentum, fused=True)
    done = 0
    checkpoint = load_checkpoint(folder / CHECKPOINT, "batches", schedule.batches)
    if checkpoint is not None:
        with restoring(folder / CHECKPOINT):
            model.load_state_dict(checkpoint["model"])
            restore_optimizer(optimizer, checkpoint["optimizer"])
        done = int(checkpoint["batches"])
        status(f"continuing after batch {done} of {schedule.batches}")
    loader = DataLoader(
        WarpedBatches(source, positives, negatives, rules, flip=flip, seed=seed, max_gib=max_gib),
        batch_size=None,
        sampler=range(done, schedule.batches),
        num_workers=workers,
        pin_memory=device.startswith("cuda"),
    )
    total, saved, clock = torch.zeros((), device=device), done, time.monotonic()
    progress = track(batches(loader), "fine-tuning all layers", schedule.batches - done)
    for batch, (pixels, labels) in enumerate(progress, start=done):
        torch.manual_seed(int(np.random.SeedSequence([seed, batch]).generate_state(1)[0]))
        total += _step(model, optimizer, schedule.rate(batch), pixels, labels, device)
        stop = batch + 1
        if stop % _CHECKED_EVERY and stop < schedule.batches:
            continue
        if not torch.isfinite(total):
            raise SppnetError("fine-tuning diverged: the loss is not finite; lower the learning rate")
        if time.monotonic() - clock >= _SAVED_EVERY or stop == schedule.batches:
            mean = float(total) / (stop - saved)
            status(f"fine-tuning: mean loss {mean:.3f} in batches {saved + 1} to {stop}")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "batches": stop}
            save_checkpoint(folder / CHECKPOINT, state)
            total, saved, clock = torch.zeros_like(total), stop, time.monotonic()
    return head.eval()


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rate: float,
    pixels: Tensor,
    labels: Tensor,
    device: str,
) -> Tensor:
    """One step; returns the loss, on the device."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    crops = pixels.to(device, non_blocking=True).float().contiguous(memory_format=torch.channels_last)
    loss = F.cross_entropy(model(crops), labels.to(device, non_blocking=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
