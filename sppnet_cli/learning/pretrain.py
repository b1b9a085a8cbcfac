"""Pre-training of a network on an ImageNet-layout folder, single-size or multi-size (paper sections 2.3, 3.1)."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from sppnet_cli.atomic import write_text
from sppnet_cli.console import status, track, warn
from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.distributed import from_first, gather, told, world
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.learning.checkpoint import (
    load_checkpoint,
    require_like,
    restore_optimizer,
    restoring,
    save_checkpoint,
)
from sppnet_cli.learning.crops import UNREADABLE, Centres, Crops, Epoch, batches
from sppnet_cli.learning.optimizer import parameter_groups
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.network.weights import load_mean_image, save_mean_image
from sppnet_cli.protocols import PAPER, Lighting
from sppnet_cli.records import read_lines_as
from sppnet_cli.runs import CHECKPOINT

METRICS = "metrics.jsonl"
_DROPS = (4 / 7, 29 / 35)  # when `steps` divides the rate, as a fraction of the epochs: 40 and 58 of 70
_AGAIN = "start over with --no-resume"
# Images on which an epoch's error is measured: so many, or so many for each training image.
_VALIDATED = 500, 0.1
_CHECKED_EVERY = 20  # batches between checks of the loss, each of which waits for the device
# The rate drops when the training error, per round of all sizes, has not fallen by a 500th for this many rounds.
_PATIENCE = 4
_THRESHOLD = 2e-3


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    sizes: tuple[int, ...]  # input sizes in pixels, one epoch at each in turn
    epochs: int
    batch: int  # images, over all processes
    rate: float  # learning rate: the first one of `plateau` and `steps`, the highest of `one-cycle`
    schedule: str  # of names.SCHEDULES: "plateau", "steps" (both divide the rate by 10, twice) or "one-cycle"
    init: str  # "paper" or "he"
    clip: float | None  # largest norm of the gradient
    optimizer: str = "sgd"  # "sgd" with momentum, or "adam"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    draw_size: bool = False  # draw each epoch's size from the range that `sizes` spans (journal edition)
    lighting: Lighting = PAPER.lighting  # how strongly colours are altered
    amp: bool = False  # bfloat16 where torch's autocast has it
    parts: int = 1  # of a batch, side by side on the CPU; bits follow from it, not from the number of cores


@dataclass(frozen=True)
class EpochMetrics:
    """A line of `metrics.jsonl`; errors are fractions."""

    epoch: int  # from 1
    size: int  # of the input, in pixels
    loss: float
    train_top1_error: float
    rate: float
    val_top1_error: float | None = None  # None: there are no validation images
    seconds: float = 0.0
    images_per_second: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """The epochs of a training, done or cut off.  Raises `DataError` for a broken file."""
    return read_lines_as(EpochMetrics, folder / METRICS, remedy=_AGAIN)


@dataclass
class Tally:
    """Sums over the images that a process has trained on."""

    loss: Tensor  # float32 on the device
    wrong: Tensor  # int64 on the device
    images: int = 0


def epoch_size(recipe: Recipe, seed: int, epoch: int) -> int:
    """Input size of an epoch: the sizes in turn, or one drawn from the closed range that they span."""
    if recipe.draw_size:
        low, high = min(recipe.sizes), max(recipe.sizes)
        return int(np.random.default_rng([seed, epoch, low, high]).integers(low, high, endpoint=True))
    return recipe.sizes[epoch % len(recipe.sizes)]


def learning_rate(recipe: Recipe, batch: int, batches_per_epoch: int) -> float:
    """Learning rate of the `batch`-th batch since the start, for the schedules `steps` and `one-cycle`."""
    if recipe.schedule == "steps":
        return recipe.rate * 0.1 ** sum(
            batch // batches_per_epoch >= round(part * recipe.epochs) for part in _DROPS
        )
    total = recipe.epochs * batches_per_epoch
    warm = 0.3 * total
    if batch < warm:
        return recipe.rate * (0.04 + 0.96 * batch / warm)
    return recipe.rate * (1e-3 + 0.999 * 0.5 * (1 + math.cos(math.pi * (batch - warm) / (total - warm))))


class Trainer:
    """A network with its optimizer and schedule, whose state a checkpoint holds.

    Everything random is drawn from (seed, epoch, process), so an epoch depends only on the state at its beginning.
    """

    def __init__(self, network: SPPNet, recipe: Recipe, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        network.initialise(recipe.init)
        network.parts = recipe.parts
        self.network = network.to(device).train()
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.unreadable: set[int] = set()  # images that others were shown for
        self.optimizer = _optimizer(network, recipe)
        self.plateau = None
        if recipe.schedule == "plateau":
            lowest = [group["lr"] / 100 for group in self.optimizer.param_groups]
            self.plateau = ReduceLROnPlateau(
                self.optimizer, patience=_PATIENCE, threshold=_THRESHOLD, min_lr=lowest
            )
        self.model: nn.Module = network
        if world().size > 1:
            with told():
                self.model = nn.parallel.DistributedDataParallel(network)

    def state(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        plateau = self.plateau.state_dict() if self.plateau else None
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": plateau,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state.  Raises anything where it does not fit (`checkpoint.restoring`)."""
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.plateau is not None:
            require_like(state["plateau"], self.plateau.state_dict())
            self.plateau.load_state_dict(state["plateau"])

    @property
    def rate(self) -> float:
        """Learning rate of the weights; biases learn twice as fast."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self, crops: Crops, epoch: int, workers: int) -> tuple[float, float]:
        """Train on every image once; returns the mean loss and error of the training batches, over all processes."""
        size = epoch_size(self.recipe, self.seed, epoch)
        order = Epoch(len(crops), self.recipe.batch, self.seed, epoch)
        loader = DataLoader(
            crops,
            batch_sampler=order,
            num_workers=0 if crops.in_memory else workers,
            pin_memory=self.device.startswith("cuda"),
        )
        torch.manual_seed(_derived_seed(self.seed, epoch, world().rank))
        tally = Tally(
            torch.zeros((), device=self.device), torch.zeros((), dtype=torch.int64, device=self.device)
        )
        label = f"epoch {epoch + 1}/{self.recipe.epochs} at {size}"
        for number, (images, shifts, labels, shown) in enumerate(track(batches(loader), label, len(order))):
            wanted = order.of_process(number)
            self.unreadable.update(wanted[wanted != shown.numpy()].tolist())
            if self.plateau is None:
                rate = learning_rate(self.recipe, epoch * len(order) + number, len(order))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
            pixels = images.to(self.device, non_blocking=True).float()
            pixels += shifts.to(self.device, non_blocking=True)[:, :, None, None]
            training_step(
                self.model,
                self.optimizer,
                at_size(pixels, size),
                labels.to(self.device, non_blocking=True),
                clip=self.recipe.clip,
                amp=self.recipe.amp,
                tally=tally,
            )
            if number % _CHECKED_EVERY == 0:
                _require_finite(tally)
        _require_finite(tally)
        sums = gather((float(tally.loss), int(tally.wrong), tally.images))
        loss, wrong, seen = (sum(column) for column in zip(*sums, strict=True))
        return loss / seen, wrong / seen


def pretrain(
    network: SPPNet,
    folder: ImageFolder,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    workers: int,
    out: Path,
    validation: ImageFolder | None = None,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train `network` in place; one line per epoch is added to `out/metrics.jsonl` and passed to `log`.

    Multi-size training runs one full epoch at each size in turn, on the same 224x224 crops, resized.  After each epoch
    the state is saved in `out`, and a later call continues from it; on the CPU the result then has the same bits as
    that of an uninterrupted call.  A network that takes
    a mean image gets that of the training set.  The error on the centre crops of `validation` is recorded but never
    used; of a large set some images, spread over it, suffice (`_VALIDATED`).

    Raises `SppnetError` if the loss is not finite, `UsageError` if the batch cannot be divided by the number of
    processes or is larger than the set.
    """
    here = world()
    if recipe.batch % here.size:
        raise UsageError(
            f"a batch of {recipe.batch} cannot be divided by {here.size} processes; change --batch"
        )
    if len(folder) < recipe.batch:
        raise UsageError(
            f"{len(folder)} training images are less than a batch of {recipe.batch}; take more (--limit) or a smaller "
            "--batch of `sppnet pretrain`"
        )
    trainer = Trainer(network, recipe, seed, device)
    enough = max(_VALIDATED[0], int(_VALIDATED[1] * len(folder)))
    step = 1 if validation is None else max(1, len(validation) // enough)
    lines: list[str] = []
    errors: list[float] = []
    checkpoint = load_checkpoint(out / CHECKPOINT, "epoch", recipe.epochs)
    if checkpoint is not None:
        with restoring(out / CHECKPOINT):
            trainer.restore(checkpoint)
        found = read_metrics(out)[: checkpoint["epoch"]]
        if [each.epoch for each in found] != list(range(1, checkpoint["epoch"] + 1)):
            raise DataError(f"{out / METRICS}: lacks epochs that {CHECKPOINT} has; {_AGAIN}")
        lines = [json.dumps(each.as_dict()) for each in found]
        errors = [each.train_top1_error for each in found]
        status(f"continuing after epoch {len(lines)} of {recipe.epochs}")
    crops = Crops(folder, seed, recipe.lighting)
    if network.takes_mean_image:
        mean = from_first(load_mean_image(out) if here.first else None)
        network.mean_image = (crops.mean_image(workers) if mean is None else mean).to(device)
        if here.first and mean is None:
            save_mean_image(network.mean_image, out)  # before the first epoch: a later call continues with it
    for epoch in range(len(lines), recipe.epochs):
        start = time.perf_counter()
        loss, error = trainer.epoch(crops, epoch, workers)
        seconds = time.perf_counter() - start
        errors.append(error)
        record = EpochMetrics(
            epoch + 1,
            epoch_size(recipe, seed, epoch),
            loss,
            error,
            trainer.rate,
            None
            if validation is None
            else centre_error(network, validation, recipe.batch, device, workers, step),
            round(seconds, 3),
            round(len(folder) // recipe.batch * recipe.batch / seconds, 1),
        ).as_dict()
        turn = 1 if recipe.draw_size else len(recipe.sizes)
        if trainer.plateau is not None and len(errors) % turn == 0:
            trainer.plateau.step(float(np.mean(errors[-turn:])))
        lines.append(json.dumps(record))
        if here.first:
            write_text(out / METRICS, "".join(f"{line}\n" for line in lines))
            save_checkpoint(out / CHECKPOINT, {"epoch": epoch + 1, **trainer.state()})
            if log is not None:
                log(record)
        status(_summary(record, recipe.epochs))
    network.eval()
    _warn_of_unreadable(folder, set().union(*gather(trainer.unreadable)))


def _warn_of_unreadable(folder: ImageFolder, unreadable: set[int]) -> None:
    if unreadable and world().first:
        names = ", ".join(str(folder.paths[index]) for index in sorted(unreadable)[:3])
        more = ", ..." if len(unreadable) > 3 else ""
        warn(
            f"{len(unreadable)} of {len(folder)} training images could not be read and others were taken in their "
            f"place: {names}{more}; `sppnet data check --full` says why"
        )


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    labels: Tensor,
    *,
    clip: float | None,
    amp: bool,
    tally: Tally,
) -> None:
    """Train on one batch of images `(B, 3, H, W)` in 0..255, and add its loss and errors to `tally`."""
    with autocast(pixels.device.type, amp):
        scores = model(pixels)
    loss = F.cross_entropy(scores.float(), labels)
    optimizer.zero_grad()
    with told() if world().size > 1 else contextlib.nullcontext():
        loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    with torch.no_grad():
        tally.loss += loss.detach() * len(labels)
        tally.wrong += (scores.argmax(dim=1) != labels).sum()
        tally.images += len(labels)


def at_size(pixels: Tensor, size: int) -> Tensor:
    """224x224 crops `(B, 3, 224, 224)` resized to `size`, channels-last."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    if size == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)


def autocast(device_type: str, amp: bool) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision in bfloat16, which needs no loss scaling; raises `UsageError` if the GPU does not have it."""
    if not amp:
        return contextlib.nullcontext()
    if device_type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError("--amp: this GPU has no bfloat16; leave the option out")
    return torch.autocast(device_type, dtype=torch.bfloat16)


@torch.inference_mode()
def centre_error(
    network: SPPNet, images: ImageFolder, batch: int, device: str, workers: int, step: int = 1
) -> float:
    """Top-1 error on the centre crops of every `step`-th image, of those that can be read; the processes share them."""
    here = world()
    mine = range(0, len(images), step)[here.rank :: here.size]
    loader = DataLoader(
        Centres(images), batch_size=max(1, batch // here.size), sampler=mine, num_workers=workers
    )
    network.eval()
    wrong = readable = 0
    for pixels, labels in batches(loader):
        known = labels != UNREADABLE
        found = network(pixels.to(device)).argmax(dim=1).cpu()
        wrong += int((found != labels)[known].sum())
        readable += int(known.sum())
    network.train()
    sums = gather((wrong, readable))
    return sum(wrong for wrong, _ in sums) / max(1, sum(readable for _, readable in sums))


def _require_finite(tally: Tally) -> None:
    if not torch.isfinite(tally.loss):
        raise SppnetError("pre-training diverged: the loss is not finite; lower the learning rate")


def _derived_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _summary(record: dict[str, Any], epochs: int) -> str:
    line = (
        f"epoch {record['epoch']}/{epochs} at {record['size']}: loss {record['loss']:.3f}, "
        f"error {100 * record['train_top1_error']:.1f}%"
    )
    if "val_top1_error" in record:
        line += f", on validation {100 * record['val_top1_error']:.1f}%"
    return f"{line}, {record['images_per_second']:.0f} images/s"


def _optimizer(network: SPPNet, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(network, recipe.weight_decay)
    for group in groups:
        group["lr"] = recipe.rate * group["factor"]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=recipe.momentum, fused=True)
