"""The windows of a detection set: proposals and ground truth per image, and their pooled features on demand."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.data.boxes import flip_boxes, iou
from sppnet_cli.data.proposals import read_boxes
from sppnet_cli.data.voc import Annotation, VocDetection
from sppnet_cli.errors import DataError
from sppnet_cli.features.cache import FeatureCache
from sppnet_cli.features.method import Extractor, PooledWindows


@dataclass(frozen=True)
class ImageWindows:
    """The windows of one image: the ground truth first, when asked for, then the proposals in their order."""

    image_id: str
    size: tuple[int, int]  # (H, W)
    boxes: NDArray[np.float32]  # (N, 4)
    truth: Annotation
    n_truth: int  # how many of `boxes` are the ground truth
    iou: NDArray[np.float64]  # (N, M) with every ground-truth box


@dataclass(frozen=True)
class WindowSource:
    """The windows of a VOC split and their pooled features; what is costly to compute goes through `cache`."""

    dataset: VocDetection
    proposals: Path  # run directory of `sppnet propose`
    extractor: Extractor
    cache: FeatureCache
    max_windows: int | None  # proposals per image, the first of each list; None: all
    with_truth: bool = False
    _memo: dict[tuple[int, bool], tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

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
        _require_inside(path, boxes, truth.size)
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

        With `flip` the image and the windows are mirrored; `scales` are given to `Extractor.pool`.
        """
        key = (index, flip)
        windows = self.windows(index)
        if key not in self._memo:  # the last image only: successive layers ask for the same one again
            parts = self._read(self._parts(index, flip), windows)
            self._memo.clear()
            self._memo[key] = parts
        return self.extractor.pool_cached(self._memo[key], windows.size, _boxes(windows, flip), rows, scales)

    def pooled_distinct(
        self, index: int, windows: ImageWindows, image: NDArray[np.uint8] | None = None
    ) -> PooledWindows:
        """Pyramid vectors of an image's `windows`, each distinct vector once.

        `image` is the image where it was read already.
        """
        parts = self._read(self._parts(index, windows=windows, image=image), windows)
        return self.extractor.pool_cached_distinct(parts, windows.size, windows.boxes)

    def wants_image(self, index: int) -> bool:
        """Whether the cache lacks some of what `pooled` needs."""
        return not all(map(self.cache.reads, self._parts(index)))

    def keep(self, index: int, *, flip: bool = False) -> bool:
        """Put what `pooled` needs into the cache, unless it is there.  False when the cache takes no more."""
        for name, compute in self._parts(index, flip).items():
            if self.cache.keeps and not self.cache.has(name):
                self.cache(name, compute)
        return self.cache.keeps

    def _read(self, parts: dict[str, Callable[[], Tensor]], windows: ImageWindows) -> tuple[Tensor, ...]:
        shapes = self.extractor.cached_shapes(windows.size, len(windows.boxes))
        return tuple(
            self.cache(name, compute, shape)
            for (name, compute), shape in zip(parts.items(), shapes, strict=True)
        )

    def _parts(
        self,
        index: int,
        flip: bool = False,
        windows: ImageWindows | None = None,
        image: NDArray[np.uint8] | None = None,
    ) -> dict[str, Callable[[], Tensor]]:
        """The cache's files of an image, and how to compute what each holds."""
        image_id = self.dataset.ids[index]

        @functools.cache  # once for all parts
        def pixels() -> NDArray[np.uint8]:
            read = self.dataset.image(image_id) if image is None else image
            return np.ascontiguousarray(read[:, ::-1]) if flip else read

        def boxes() -> NDArray[np.float32]:
            return _boxes(windows or self.windows(index), flip)

        file = f"{image_id}{'-flipped' * flip}.npy"
        parts = self.extractor.cacheable(pixels, boxes)
        return {str(Path(folder) / file): compute for folder, compute in parts.items()}


def _boxes(windows: ImageWindows, flip: bool) -> NDArray[np.float32]:
    return flip_boxes(windows.boxes, windows.size[1]) if flip else windows.boxes


def _require_inside(path: Path, boxes: NDArray[np.float32], size: tuple[int, int]) -> None:
    height, width = size
    if len(boxes) and (boxes.min() < 0 or boxes[:, 2].max() >= width or boxes[:, 3].max() >= height):
        raise DataError(f"{path}: proposals reach outside {path.stem}: they are of another image set")
