"""Time of window features per image, stage by stage (paper section 4.3, Table 6)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.features.windows import Extractor
from sppnet_cli.network.sppnet import Head


@dataclass(frozen=True)
class FeatureTime:
    """Seconds per image."""

    conv: float  # the convolutional layers alone
    fc: float  # window pooling, fc6 and fc7
    preparation: float  # resizing (SPP-net) or warping every window (R-CNN); in neither of the above

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
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        elapsed, self._last = now - getattr(self, "_last", now), now
        return elapsed


@torch.inference_mode()
def time_image(
    extractor: Extractor, head: Head, image: NDArray[np.uint8], boxes: NDArray[np.floating]
) -> FeatureTime:
    """fc7 features of windows `(N, 4)` of one RGB image `(H, W, 3)`, timed."""
    head = head.to(extractor.device).eval()
    conv = fc = preparation = 0.0
    clock = _Clock(extractor.device)
    if isinstance(extractor, SppWindows):
        maps = []
        for scale in extractor.scales:
            network_input = extractor.network_input(image, scale)
            preparation += clock.lap()
            maps.append(extractor.conv5(network_input))
            conv += clock.lap()
        pooled = extractor.pool(FeatureMaps(image.shape[:2], tuple(maps)), boxes)
    else:
        vectors = []
        prepared = extractor.prepare(image)
        for crops in extractor.warp(prepared, boxes):
            preparation += clock.lap()
            conv5 = extractor.conv5(crops)
            conv += clock.lap()
            vectors.append(extractor.network.pool(conv5))
            fc += clock.lap()
        pooled = torch.cat(vectors)
    head.features(pooled, "fc7")
    return FeatureTime(conv, fc + clock.lap(), preparation)


def time_extractors(
    extractors: dict[str, tuple[Extractor, Head]],
    images: Sequence[NDArray[np.uint8]],
    boxes: Sequence[NDArray[np.floating]],
) -> dict[str, list[FeatureTime]]:
    """Times of every image after a warm-up on the first; the extractors take turns on every image."""
    for extractor, head in extractors.values():
        time_image(extractor, head, images[0], boxes[0])
    times: dict[str, list[FeatureTime]] = {name: [] for name in extractors}
    for image, windows in zip(images, boxes, strict=True):
        for name, (extractor, head) in extractors.items():
            times[name].append(time_image(extractor, head, image, windows))
    return times
