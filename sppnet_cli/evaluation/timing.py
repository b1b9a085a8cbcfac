"""Time of window features per image, stage by stage (paper section 4.3, Table 6), and of calls in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.evaluation.limits import wait_for
from sppnet_cli.features.distinct import pool_distinct
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.features.windows import Extractor


@dataclass(frozen=True)
class FeatureTime:
    """Seconds per image."""

    conv: float  # the convolutional layers alone
    pool: float  # from maps to the windows' pyramid vectors
    layers: float  # fc6 and fc7, and what spares them
    preparation: float  # resizing (SPP-net) or warping every window (R-CNN); in none of the others

    @property
    def fc(self) -> float:
        """What follows the conv5 maps, which is what the paper counts here."""
        return self.pool + self.layers

    @property
    def total(self) -> float:
        """conv + fc, as the paper counts."""
        return self.conv + self.fc


class _Clock:
    """Adds up the seconds between laps, waiting for the device at each."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.lap()

    def lap(self) -> float:
        wait_for(self._device)
        now = time.perf_counter()
        elapsed, self._last = now - getattr(self, "_last", now), now
        return elapsed


@torch.inference_mode()
def time_image(
    extractor: Extractor,
    layers: Callable[[Tensor], Tensor],
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    sample: NDArray[np.intp] | None = None,
) -> FeatureTime:
    """The features that `layers` makes of pooled vectors, of windows `(N, 4)` of one RGB image `(H, W, 3)`, timed.

    SPP-net pools windows of the same cells once, and their vector goes through the layers once.  Of R-CNN's windows,
    whose cost is each one's own, only the rows `sample` may be warped, convolved and pooled: the seconds are then
    those of all, in proportion; the layers take N vectors whatever the sample.
    """
    clock = _Clock(extractor.device)
    if isinstance(extractor, SppWindows):
        conv = preparation = 0.0
        maps = []
        for scale in extractor.scales:
            network_input = extractor.network_input(image, scale)
            preparation += clock.lap()
            maps.append(extractor.conv5(network_input))
            conv += clock.lap()
        pooled = pool_distinct(extractor, FeatureMaps(image.shape[:2], tuple(maps)), boxes).vectors
        pool = clock.lap()
    else:
        prepared = extractor.prepare(image)
        whole = clock.lap()
        warp = conv = pool = 0.0
        vectors = []
        chosen = boxes if sample is None else boxes[sample]
        for crops in extractor.warp(prepared, chosen):
            warp += clock.lap()
            conv5 = extractor.conv5(crops)
            conv += clock.lap()
            vectors.append(extractor.network.pool(conv5))
            pool += clock.lap()
        pooled = torch.cat(vectors)
        pool += clock.lap()
        share = len(boxes) / len(chosen)
        conv, pool, preparation = share * conv, share * pool, whole + share * warp
        pooled = pooled[torch.arange(len(boxes), device=pooled.device) % len(chosen)]
    clock.lap()
    layers(pooled)
    return FeatureTime(conv, pool, clock.lap(), preparation)


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
    """The median seconds of a call of each side: they take turns, after a call each to warm up.

    With `warm` a call precedes every one that counts, so that no side pays for what another left in the caches.
    """
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    clock = _Clock(device)
    for _ in range(repeats):
        for name, call in sides.items():
            if warm:
                call()
            clock.lap()
            result = call()
            seconds[name].append(clock.lap())
            del result  # freeing it is no part of the call
    return {name: float(np.median(laps)) for name, laps in seconds.items()}
