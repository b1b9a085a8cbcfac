"""Time of window features per image, stage by stage (paper section 4.3, Table 6), and of calls in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.clock import Clock
from sppnet_cli.features.method import Extractor, Step


@dataclass(frozen=True)
class FeatureTime:
    """Seconds per image."""

    conv: float  # the convolutional layers alone
    pool: float  # from maps to the windows' pyramid vectors
    layers: float  # fc6 and fc7, with the cascade before them where there is one
    preparation: float  # resizing the image (SPP-net) or warping the windows (R-CNN); part of no other figure

    @property
    def fc(self) -> float:
        """All that follows the conv5 maps, as the paper counts."""
        return self.pool + self.layers

    @property
    def total(self) -> float:
        """conv + fc, as the paper counts."""
        return self.conv + self.fc


@torch.inference_mode()
def time_image(
    extractor: Extractor,
    layers: Callable[[Tensor], Tensor],
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    sample: NDArray[np.intp] | None = None,
) -> FeatureTime:
    """Time the features that `layers` makes of the pooled windows `(N, 4)` of one RGB image `(H, W, 3)`.

    Windows that share a pooled vector go through the layers once.  Where the method takes every window on its own
    (R-CNN), only the rows `sample` may be warped, convolved and pooled: those seconds are then multiplied by N over
    the sample's size.  The layers always take all N vectors.
    """
    chosen = boxes[sample] if sample is not None and extractor.per_window else boxes
    seconds: dict[Step, float] = dict.fromkeys(("image", "warp", "conv", "pool"), 0.0)
    clock = Clock(extractor.device)

    def lap(step: Step) -> None:
        seconds[step] += clock.lap()

    vectors = extractor.pool_in_steps(image, chosen, lap)
    share = 1.0
    if len(chosen) < len(boxes):
        share = len(boxes) / len(chosen)
        vectors = vectors[torch.arange(len(boxes), device=vectors.device) % len(chosen)]
    clock.lap()
    layers(vectors)
    return FeatureTime(
        conv=share * seconds["conv"],
        pool=share * seconds["pool"],
        layers=clock.lap(),
        preparation=seconds["image"] + share * seconds["warp"],
    )


def time_extractors(
    extractors: Mapping[str, tuple[Extractor, Callable[[Tensor], Tensor]]],
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[NDArray[np.floating]],
) -> dict[str, list[FeatureTime]]:
    """Times of every image after a warm-up on the first; the extractors take turns on every image."""
    for extractor, layers in extractors.values():
        time_image(extractor, layers, images[0], boxes[0])
    times: dict[str, list[FeatureTime]] = {name: [] for name in extractors}
    for image, windows in zip(images, boxes, strict=True):
        for name, (extractor, layers) in extractors.items():
            times[name].append(time_image(extractor, layers, image, windows))
    return times


def take_turns(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", *, warm: bool = False
) -> dict[str, float]:
    """The median seconds of a call of each side; the sides take turns, after one call each to warm up.

    With `warm` each timed call follows an untimed one of the same side, so that no side pays for what another left in
    the processor's caches.
    """
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    clock = Clock(device)
    for _ in range(repeats):
        for name, call in sides.items():
            if warm:
                call()
            clock.lap()
            result = call()
            seconds[name].append(clock.lap())
            del result  # freeing it is not timed
    return {name: float(np.median(laps)) for name, laps in seconds.items()}
