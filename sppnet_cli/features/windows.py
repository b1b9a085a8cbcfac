"""The windows of a detection set: proposals and ground truth per image, and their pooled features on demand."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.boxes import flip_boxes, iou
from sppnet_cli.data.proposals import read_boxes
from sppnet_cli.data.voc import Annotation, VocDetection
from sppnet_cli.errors import DataError
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.runs import return_memory

Extractor = SppWindows | RcnnWindows


@dataclass(frozen=True)
class ImageWindows:
    """The windows of one image: the ground truth first, when asked for, then the proposals in their order."""

    image_id: str
    size: tuple[int, int]
    boxes: NDArray[np.float32]  # (N, 4)
    truth: Annotation
    n_truth: int  # how many of `boxes` are the ground truth
    iou: NDArray[np.float64]  # (N, M) with every ground-truth box


@dataclass(frozen=True)
class WindowSource:
    """The windows of a VOC split and their pooled features.

    Features come from `extractor` and are kept under `cache` in 16 bits: SPP-net's conv5 maps, from which any
    window is pooled in no time, and R-CNN's pooled vectors, which are costly.  What is read back equals what
    was first returned.
    """

    dataset: VocDetection
    proposals: Path  # run directory of `sppnet propose`
    extractor: Extractor
    cache: Path
    max_windows: int  # proposals per image, the first of each list
    with_truth: bool = False
    _memo: dict[tuple[int, bool], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.dataset)

    def windows(self, index: int) -> ImageWindows:
        """Boxes of the `index`-th image.  Raises `DataError` where its proposals are missing or do not fit."""
        image_id = self.dataset.ids[index]
        truth = self.dataset.annotation(image_id)
        path = self.proposals / "boxes" / f"{image_id}.npy"
        if not path.is_file():
            raise DataError(f"{path}: no proposals for this image; run `sppnet propose` on the same --data")
        boxes = read_boxes(path)[: self.max_windows]
        height, width = truth.size
        if len(boxes) and (boxes.min() < 0 or boxes[:, 2].max() >= width or boxes[:, 3].max() >= height):
            raise DataError(f"{path}: proposals reach outside {image_id}: they are of another image set")
        n_truth = len(truth.boxes) if self.with_truth else 0
        if n_truth:
            boxes = np.concatenate([truth.boxes, boxes])
        return ImageWindows(image_id, truth.size, boxes, truth, n_truth, iou(boxes, truth.boxes))

    def pooled(
        self,
        index: int,
        rows: NDArray[np.intp] | None = None,
        *,
        flip: bool = False,
        scales: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Pyramid vectors `(N, D)` of an image's windows, or of some `rows` of them.

        With `flip` the image and the windows are mirrored; `scales` are given to `SppWindows.pool`.
        """
        if isinstance(self.extractor, RcnnWindows):
            vectors = self._cached(index, flip, self._pool_all)
            vectors = vectors if rows is None else vectors[torch.from_numpy(rows)]
            return vectors.to(self.extractor.device, torch.float32)
        maps = self._cached(index, flip, self._conv5_maps)
        windows = self.windows(index)
        boxes = windows.boxes if rows is None else windows.boxes[rows]
        if flip:
            boxes = flip_boxes(boxes, windows.size[1])
        maps = tuple(m.to(self.extractor.device, torch.float32) for m in maps)
        return self.extractor.pool(FeatureMaps(windows.size, maps), boxes, scales)

    def _image(self, index: int, flip: bool) -> NDArray[np.uint8]:
        image = self.dataset.image(self.dataset.ids[index])
        return np.ascontiguousarray(image[:, ::-1]) if flip else image

    def _pool_all(self, index: int, flip: bool) -> Tensor:
        windows, extractor = self.windows(index), self.extractor
        boxes = flip_boxes(windows.boxes, windows.size[1]) if flip else windows.boxes
        assert isinstance(extractor, RcnnWindows)
        path = self.cache / f"{windows.image_id}{'-flipped' * flip}.npy"
        return _through_cache(
            path, lambda: extractor.pool(extractor.prepare(self._image(index, flip)), boxes)
        )

    def _conv5_maps(self, index: int, flip: bool) -> tuple[Tensor, ...]:
        extractor, image_id = self.extractor, self.dataset.ids[index]
        assert isinstance(extractor, SppWindows)
        image: list[NDArray[np.uint8]] = []

        def conv5(scale: int) -> Tensor:
            if not image:
                image.append(self._image(index, flip))
            return extractor.conv5(extractor.network_input(image[0], scale))

        paths = {s: self.cache / str(s) / f"{image_id}{'-flipped' * flip}.npy" for s in extractor.scales}
        return tuple(_through_cache(paths[s], lambda s=s: conv5(s)) for s in extractor.scales)

    def _cached(self, index: int, flip: bool, compute: Any) -> Any:
        # The last image only: successive layers and passes ask for the same one again.
        key = (index, flip)
        if key not in self._memo:
            value = compute(index, flip)
            self._memo.clear()
            self._memo[key] = value
        return self._memo[key]


def _through_cache(path: Path, compute: Any) -> Tensor:
    if path.is_file():
        return torch.from_numpy(np.load(path))
    value = compute().cpu()
    return_memory()
    # Halves end at 65,504; what does not fit stays in 32 bits.
    stored = value.half() if value.numel() == 0 or float(value.abs().max()) < 6e4 else value
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, stored.numpy())
    return stored
