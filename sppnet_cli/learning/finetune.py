"""Fine-tuning of the fully connected layers on pooled windows, with the trunk frozen (paper section 4.1)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sppnet_cli.console import status, track
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.checkpoint import (
    load_checkpoint,
    restore_optimizer,
    restoring,
    save_checkpoint,
)
from sppnet_cli.learning.optimizer import parameter_groups
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import FinetuneRules
from sppnet_cli.runs import CHECKPOINT

_SAVED_EVERY = 300.0  # seconds
_INIT_STD = 0.01
_INPUT_NORM = 1 / _INIT_STD  # with inputs of this mean norm, the outputs of a new fc6 have unit variance


@dataclass(frozen=True)
class Schedule:
    """How fine-tuning learns: SGD with momentum and weight decay, at one learning rate after the other."""

    steps: tuple[tuple[float, int], ...]  # (learning rate, batches)
    fc8_rate: float = 1.0  # factor of fc8's learning rate
    momentum: float = 0.9
    weight_decay: float = 5e-4

    @property
    def batches(self) -> int:
        """The number of batches."""
        return sum(count for _, count in self.steps)

    def rate(self, batch: int) -> float:
        """Learning rate of the `batch`-th batch."""
        for rate, count in self.steps:
            if batch < count:
                return rate
            batch -= count
        return self.steps[-1][0]


@dataclass(frozen=True)
class Windows:
    """Windows of all images to draw batches from."""

    image: NDArray[np.int64]
    row: NDArray[np.int64]  # among the windows of the image
    flip: NDArray[np.bool_]  # the image and the window are mirrored
    label: NDArray[np.int64]  # 0: background, k + 1: class k

    def __len__(self) -> int:
        return len(self.image)


def head_for_detection(
    pretrained: Head | None, inputs: int, hidden: int, classes: int, mean_norm: float
) -> Head:
    """fc6 and fc7 of the pre-trained head, and a new fc8 of `classes` + 1 outputs.

    Without a pre-trained head all three layers are new, fc6 and fc7 with `hidden` outputs, and inputs of the mean norm
    `mean_norm` are scaled so that the outputs of fc6 start with unit variance.  New weights are drawn from N(0, .01);
    new biases are zero.
    """
    if pretrained is not None:
        head = Head(inputs, pretrained.fc6.out_features, classes + 1, float(pretrained.input_scale))
        head.fc6.load_state_dict(pretrained.fc6.state_dict())
        head.fc7.load_state_dict(pretrained.fc7.state_dict())
        fresh = [head.fc8]
    else:
        head = Head(inputs, hidden, classes + 1, _INPUT_NORM / mean_norm)
        fresh = [head.fc6, head.fc7, head.fc8]
    for layer in fresh:
        torch.nn.init.normal_(layer.weight, std=_INIT_STD)
        torch.nn.init.zeros_(layer.bias)
    return head


def candidates(source: WindowSource, rules: FinetuneRules, flip: bool) -> tuple[Windows, Windows]:
    """(positives, negatives) by IoU with the best ground-truth box: SPP-net's are [.5, 1] and [.1, .5).

    R-CNN's negatives are [0, .5).  Difficult boxes count like all others: the paper says nothing about them, and the
    released `roidb_from_voc` leaves them out only if `with_hard_samples` is set, which its experiments never do.
    """
    parts: tuple[list[tuple[NDArray[np.int64], ...]], ...] = ([], [])
    for index in range(len(source)):
        positive, negative, labels = _choice(source, index, rules)
        for part, mask in zip(parts, (positive, negative), strict=True):
            rows = np.flatnonzero(mask)
            label = labels[rows] if mask is positive else np.zeros(len(rows), np.int64)
            part.append((np.full(len(rows), index), rows, label))
    return _join(parts[0], flip), _join(parts[1], flip)


def keep_features(source: WindowSource, rules: FinetuneRules, *, flip: bool) -> None:
    """Cache the features that `finetune` will draw from: this process's share of the images, while there is room."""
    here = world()
    share = range(here.rank, len(source), here.size)
    for index in track(share, "pooled features of training windows"):
        positive, negative, _ = _choice(source, index, rules)
        if (positive | negative).any():
            for mirrored in (False, True)[: 1 + flip]:
                if not source.keep(index, flip=mirrored):
                    return


def finetune(
    head: Head,
    source: WindowSource,
    rules: FinetuneRules,
    schedule: Schedule,
    *,
    flip: bool,
    seed: int,
    max_gib: float,
    folder: Path,
) -> Head:
    """Train `head` and return it.  A quarter of each batch is positive; both parts are drawn uniformly over windows.

    Many batches are drawn at a time, as many as `max_gib` holds the windows of, and each image is visited once for all of
    them.  After each such chunk, and every five minutes, the state is saved in `folder` as `CHECKPOINT`; a later call
    continues from there, to the same bits on a CPU.
    """
    positives, negatives = candidates(source, rules, flip)
    if not len(positives) or not len(negatives):
        raise DataError(
            f"{source.dataset.root}: no window overlaps an object enough to fine-tune on; check --proposals"
        )
    device = source.extractor.device
    head = head.to(device).train()
    groups = parameter_groups(head, schedule.weight_decay, schedule.fc8_rate)
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=schedule.momentum, fused=True)
    room = int(max_gib * 2**30 / (2 * source.extractor.network.pooled_size))
    done = _resume(folder, head, optimizer, schedule.batches)

    def steps() -> Iterator[int]:
        saved, losses, clock = done, [], time.monotonic()
        while saved < schedule.batches:
            chunk = _draw(source, positives, negatives, rules, seed, range(saved, schedule.batches), room)
            start, stop = saved, saved + len(chunk.rows)
            for batch in range(start, stop):
                _seed(device, seed, batch)
                rows = chunk.rows[batch - start]
                losses.append(
                    _step(
                        head, optimizer, schedule.rate(batch), chunk.pooled[rows], chunk.label[rows], device
                    )
                )
                yield batch
                if batch + 1 == stop or time.monotonic() - clock >= _SAVED_EVERY:
                    mean = np.mean(losses)
                    status(f"fine-tuning: mean loss {mean:.3f} in batches {saved + 1} to {batch + 1}")
                    _save(folder, head, optimizer, batch + 1)
                    saved, losses, clock = batch + 1, [], time.monotonic()

    for _ in track(steps(), "fine-tuning", schedule.batches - done):
        pass
    return head.eval()


def _choice(
    source: WindowSource, index: int, rules: FinetuneRules
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Masks `(N,)` of an image's positives and negatives, and each window's label: that of the box it overlaps most."""
    windows = source.windows(index)
    if not len(windows.truth.boxes):
        overlap, labels = np.zeros(len(windows.boxes)), np.zeros(len(windows.boxes), np.int64)
    else:
        overlap = windows.iou.max(axis=1)
        labels = windows.truth.labels[windows.iou.argmax(axis=1)] + 1
    positive = overlap >= rules.finetune_positive_iou
    return positive, ~positive & (overlap >= rules.finetune_negative_iou), labels


def _step(
    head: Head, optimizer: torch.optim.Optimizer, rate: float, pooled: Tensor, labels: Tensor, device: str
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    loss = F.cross_entropy(head(pooled.to(device).float()), labels.to(device))
    value = float(loss.detach())
    if not np.isfinite(value):
        raise SppnetError("fine-tuning diverged: the loss is not finite; lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def _seed(device: str, seed: int, batch: int) -> None:
    """Let what dropout draws for a batch follow from the seed and the batch's number alone."""
    state = int(np.random.SeedSequence([seed, batch]).generate_state(1)[0])
    if device == "cpu":
        torch.default_generator.manual_seed(state)  # `torch.manual_seed` also looks for GPUs: 0.3 ms
    else:
        torch.manual_seed(state)


class _Chunk(NamedTuple):
    """Batches drawn together, and their distinct windows, U in all."""

    pooled: Tensor  # (U, D) float16
    label: Tensor  # (U,)
    rows: Tensor  # (batches, B) into both


def _draw(
    source: WindowSource,
    positives: Windows,
    negatives: Windows,
    rules: FinetuneRules,
    seed: int,
    batches: range,
    room: int,
) -> _Chunk:
    """Draw the first of `batches`, as many as have `room` distinct windows, but one at least, and pool these windows.

    The windows of a batch, and their scales if the protocol draws them, depend only on the seed and its number.
    """
    n_positive = round(rules.finetune_batch * rules.finetune_positive_fraction)
    sizes = ((positives, n_positive), (negatives, rules.finetune_batch - n_positive))
    n_scales = len(source.extractor.scales) if rules.finetune_scale == "random" else 1
    row_of = np.full((len(positives) + len(negatives)) * n_scales, -1, np.int32)  # of a window at a scale
    distinct: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int32]] = []
    count = 0
    for batch in batches:
        rng = np.random.default_rng([seed, batch])
        picks = [rng.integers(len(pool), size=size) for pool, size in sizes]
        window = np.concatenate([picks[0], picks[1] + len(positives)])
        codes = window * n_scales + rng.integers(n_scales, size=rules.finetune_batch)
        fresh = np.unique(codes[row_of[codes] < 0])
        if rows and count + len(fresh) > room:
            break
        row_of[fresh] = np.arange(count, count + len(fresh))
        count += len(fresh)
        distinct.append(fresh)
        rows.append(row_of[codes])
    window, scale = np.divmod(np.concatenate(distinct), n_scales)
    image, row, flip, label = (
        np.concatenate([getattr(positives, name), getattr(negatives, name)])[window]
        for name in ("image", "row", "flip", "label")
    )
    pooled = torch.empty(count, source.extractor.network.pooled_size, dtype=torch.float16)
    place = np.lexsort((flip, image))
    visits = np.flatnonzero(np.diff(image[place] * 2 + flip[place])) + 1
    for visit in np.split(place, visits):
        first = visit[0]
        chosen = scale[visit] if rules.finetune_scale == "random" else None
        vectors = source.pooled(int(image[first]), row[visit], flip=bool(flip[first]), scales=chosen)
        pooled[torch.from_numpy(visit)] = vectors.cpu().half()
    return _Chunk(pooled, torch.from_numpy(label), torch.from_numpy(np.stack(rows)))


def _join(parts: list[tuple[NDArray[np.int64], ...]], flip: bool) -> Windows:
    image, row, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not flip:
        return Windows(image, row, np.zeros(len(image), bool), label)
    flips = np.repeat([False, True], len(image))
    return Windows(np.tile(image, 2), np.tile(row, 2), flips, np.tile(label, 2))


def _resume(folder: Path, head: Head, optimizer: torch.optim.Optimizer, batches: int) -> int:
    state = load_checkpoint(folder / CHECKPOINT, "batches", batches)
    if state is None:
        return 0
    with restoring(folder / CHECKPOINT):
        head.load_state_dict(state["head"])
        restore_optimizer(optimizer, state["optimizer"])
    return int(state["batches"])


def _save(folder: Path, head: Head, optimizer: torch.optim.Optimizer, batches: int) -> None:
    state = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "batches": batches}
    save_checkpoint(folder / CHECKPOINT, state)
