"""torchvision's Faster R-CNN on one feature map of a trunk, trained for given processor times on a VOC set."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from sppnet_cli.console import status, track
from sppnet_cli.data.voc import VocDetection
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_trunk_weights
from sppnet_cli.stages.detection_rows import COLUMNS

_SIZES, _RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)  # of anchors: pixels, height by width
_WARM_UP = 50  # steps


@dataclass(frozen=True)
class Recipe:
    """How it is trained: the published Faster R-CNN's numbers (Ren et al. 2015), torchvision's where the paper has none."""

    short_side: int = 600  # pixels
    long_side: int = 1000  # at most
    batch: int = 2  # images
    windows: int = 128  # of an image, that the box head learns from
    proposals: int = 300  # of an image when tested
    rate: float = 0.005  # torchvision's 0.02 for 16 images, with more courage for few steps
    momentum: float = 0.9
    decay: float = 0.0005
    settle: float = 0.3  # share of the time, the last, in which the rate falls to 0


@dataclass(frozen=True)
class Trained:
    """A model after its time."""

    model: FasterRCNN
    processor_seconds: float  # of training alone
    wall_seconds: float
    steps: int


def faster_rcnn(arch: str, weights: str, classes: int, recipe: Recipe) -> FasterRCNN:
    """A detector of `classes` classes beside the background on the trunk of `arch` with `weights` (`load_trunk_weights`).

    All else is random.
    """
    network = SPPNet(NetworkSpec(arch))
    load_trunk_weights(network, weights)
    trunk = network.trunk
    trunk.out_channels = network.channels  # type: ignore[assignment]  # where FasterRCNN looks for it
    return FasterRCNN(
        trunk,
        classes + 1,
        min_size=recipe.short_side,
        max_size=recipe.long_side,
        image_mean=network.preprocessing.mean,
        image_std=network.preprocessing.deviation,
        rpn_anchor_generator=AnchorGenerator((_SIZES,), (_RATIOS,)),
        rpn_post_nms_top_n_test=recipe.proposals,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_batch_size_per_image=recipe.windows,
    )


def train_for(
    model: FasterRCNN, dataset: VocDetection, budgets: Sequence[float], recipe: Recipe, seed: int
) -> Iterator[Trained]:
    """Train `model` for each of the ascending budgets, in processor seconds, and yield what each gives.

    One training at a constant rate serves all: at the last `settle` of a budget a copy leaves it, whose rate falls to 0
    as the budget runs out.  So each has what a training of its own, of that length, would give.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, recipe.rate, momentum=recipe.momentum, weight_decay=recipe.decay)
    batches = _batches(dataset, recipe.batch, seed)
    start = _Spent(0.0, 0.0, 0)
    for budget in budgets:
        steady = (1 - recipe.settle) * budget
        start = _train(model, optimizer, batches, start, steady, lambda _: 1.0, recipe)
        settled, own = copy.deepcopy((model, optimizer))
        falling = _falling(steady, budget)
        spent = _train(settled, own, batches, start, budget, falling, recipe)
        status(f"Faster R-CNN: {spent.steps} steps in {spent.processor:.0f} s of processor time")
        yield Trained(settled.eval(), spent.processor, spent.wall, spent.steps)


@torch.inference_mode()
def detections(model: FasterRCNN, dataset: VocDetection) -> pd.DataFrame:
    """What a trained model finds in a split: a frame of `stages.detection_rows.COLUMNS`."""
    rows = []
    for image_id in track(dataset.ids, "Faster R-CNN detects"):
        (found,) = model.eval()([_tensor(dataset.image(image_id))])
        boxes = found["boxes"].numpy() - [0, 0, 1, 1]  # theirs end where the last pixel ends
        for box, label, score in zip(boxes, found["labels"].tolist(), found["scores"].tolist(), strict=True):
            rows.append((image_id, dataset.class_names[label - 1], score, *box))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"image": str, "class": str, **dict.fromkeys(COLUMNS[2:], float)})


@dataclass(frozen=True)
class _Spent:
    processor: float  # seconds
    wall: float
    steps: int


def _train(
    model: FasterRCNN,
    optimizer: torch.optim.SGD,
    batches: "Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]",
    spent: _Spent,
    until: float,
    factor: Callable[[float], float],
    recipe: Recipe,
) -> _Spent:
    """Train on, from what is spent `until` a processor time; `factor` gives the rate's share by the time spent."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # two images tell no mean
    while spent.processor < until:
        processor, wall = time.process_time(), time.perf_counter()
        optimizer.param_groups[0]["lr"] = (
            recipe.rate * factor(spent.processor) * min(1, (spent.steps + 1) / _WARM_UP)
        )
        optimizer.zero_grad()
        loss = sum(model(*next(batches)).values(), torch.zeros(()))
        if not loss.isfinite():
            raise FloatingPointError("the loss is not finite")
        loss.backward()
        optimizer.step()
        spent = _Spent(
            spent.processor + time.process_time() - processor,
            spent.wall + time.perf_counter() - wall,
            spent.steps + 1,
        )
    return spent


def _falling(start: float, end: float) -> Callable[[float], float]:
    return lambda spent: max(0.0, (end - spent) / (end - start))


def _batches(
    dataset: VocDetection, count: int, seed: int
) -> "Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]":
    """Images `(3, H, W)` in [0, 1] and their objects, without end, in a new order each epoch, half of them mirrored."""
    rng = np.random.default_rng(seed)
    images: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    while True:
        for index in rng.permutation(len(dataset)).tolist():
            image, truth = dataset.image(dataset.ids[index]), dataset.annotation(dataset.ids[index])
            boxes = truth.boxes[~truth.difficult] + np.array([0, 0, 1, 1], np.float32)
            if rng.random() < 0.5:
                image = image[:, ::-1].copy()
                boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
            images.append(_tensor(image))
            labels = torch.from_numpy(truth.labels[~truth.difficult]) + 1
            targets.append({"boxes": torch.from_numpy(boxes), "labels": labels})
            if len(images) == count:
                yield images, targets
                images, targets = [], []


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255
