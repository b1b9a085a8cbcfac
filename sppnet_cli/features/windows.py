"""The windows of a detection set: proposals and ground truth per image, and their pooled features on demand."""

import functools
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.atomic import atomic_path
from sppnet_cli.console import status, warn
from sppnet_cli.data.boxes import flip_boxes, iou
from sppnet_cli.data.proposals import read_boxes
from sppnet_cli.data.voc import Annotation, VocDetection
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.distinct import PooledWindows, pool_distinct
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.runs import return_memory

Extractor = SppWindows | RcnnWindows

_TRIM = 50  # arrays computed until freed memory is given back, which takes a fifth of computing one
_RESERVE = 2e9  # bytes of the disk that are left for checkpoints and results
_HEADER = 128  # bytes of an .npy file before its array
_WEIGHED = 10  # arrays that tell whether reading is quicker than computing


class FeatureCache:
    """Arrays in 16 bits, kept in `folder` as far as a budget goes; the rest is computed whenever it is wanted.

    The same numbers come back either way.  The budget is of all caches beside this one, below `folder.parent`,
    and several processes share what is left of it.  What is there is read whatever the budget; a broken file is
    made anew; a disk that is full is warned of and nothing more is kept.  With `weighed`, nothing is kept nor read
    either once the first arrays have shown that computing is quicker than reading.
    """

    def __init__(self, folder: Path, gigabytes: float, *, weighed: bool) -> None:
        self.folder = folder
        self.gigabytes = gigabytes
        self.keeps = gigabytes > 0  # as long as there is room for more
        self._reads = True
        self._computed = 0
        self._room = 0.0  # bytes that this process may write until it looks again
        self._weighed = weighed
        self._seconds: list[tuple[float, float]] = []  # to compute and to read an array

    def has(self, name: str) -> bool:
        """Whether the file `name` is there."""
        return (self.folder / name).is_file()

    def reads(self, name: str) -> bool:
        """Whether the file `name` is there and would be read."""
        return self._reads and self.has(name)

    def __call__(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, in 16 bits (32 where it does not fit) and on the CPU, from the file `name` or anew."""
        file = self.folder / name
        if self.reads(name):
            with suppress(OSError, ValueError, EOFError):
                return torch.from_numpy(np.load(file, allow_pickle=False))
        start = time.perf_counter()
        value = compute()
        # Halves end at 65,504; what does not fit stays in 32 bits.
        fits = value.numel() == 0 or float(value.abs().max()) < 6e4
        stored = (value.half() if fits else value.float()).cpu()
        seconds = time.perf_counter() - start
        self._computed += 1
        if self._computed % _TRIM == 0:
            return_memory()
        if self.keeps:
            try:
                self._keep(file, stored.numpy(), seconds)
            except (OSError, SppnetError) as error:
                self.keeps = False
                warn(f"features are no longer cached but computed each time: {error}")
        return stored

    def _keep(self, file: Path, array: NDArray[np.floating], seconds: float) -> None:
        size = array.nbytes + _HEADER
        if size > self._room:
            self._room = self._look() / world().size
        if size > self._room:
            self.keeps = False
            status(
                f"no room for more cached features (--cache-gb {self.gigabytes:g}, the disk's last "
                f"{_RESERVE / 1e9:g} GB apart): the others are computed each time"
            )
            return
        with atomic_path(file) as temporary:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
        self._room -= size
        if self._weighed and len(self._seconds) < _WEIGHED:
            self._seconds.append((seconds, _seconds_to_read(file)))
            if len(self._seconds) == _WEIGHED:
                self._decide()

    def _look(self) -> float:
        """Bytes that are left of the budget and of the disk."""
        root = self.folder.parent
        root.mkdir(parents=True, exist_ok=True)
        used = 0
        for base, _, names in os.walk(root):
            for name in names:
                with suppress(FileNotFoundError):  # another process's temporary file
                    used += (Path(base) / name).stat().st_size
        return min(self.gigabytes * 1e9 - used, shutil.disk_usage(root).free - _RESERVE)

    def _decide(self) -> None:
        computing, reading = np.median(self._seconds, axis=0)  # the first computations are slow
        if reading > computing:
            self.keeps = self._reads = False
            status(
                f"conv5 maps are not cached: computing one takes {1e3 * computing:.1f} ms, "
                f"reading it back {1e3 * reading:.1f} ms"
            )


def _seconds_to_read(file: Path) -> float:
    """Time to read an array back from the disk, not from the system's memory where that can be told apart."""
    with file.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    np.load(file, allow_pickle=False)
    return time.perf_counter() - start


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

    What is costly comes from `extractor` by way of `cache`: SPP-net's conv5 maps, from which any window is pooled
    in no time, and R-CNN's pooled vectors.
    """

    dataset: VocDetection
    proposals: Path  # run directory of `sppnet propose`
    extractor: Extractor
    cache: FeatureCache
    max_windows: int  # proposals per image, the first of each list
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

        With `flip` the image and the windows are mirrored; `scales` are given to `SppWindows.pool`.
        """
        key = (index, flip)
        if key not in self._memo:  # the last image only: successive layers ask for the same one again
            features = self._read(self._features(index, flip))
            self._memo.clear()
            self._memo[key] = features
        features = self._memo[key]
        if isinstance(self.extractor, RcnnWindows):
            vectors = features[0] if rows is None else features[0][torch.from_numpy(rows)]
            return self._on_device(vectors)
        windows = self.windows(index)
        boxes = windows.boxes if rows is None else windows.boxes[rows]
        if flip:
            boxes = flip_boxes(boxes, windows.size[1])
        return self.extractor.pool(self._maps(windows.size, features), boxes, scales)

    def pooled_distinct(
        self, index: int, windows: ImageWindows, image: NDArray[np.uint8] | None = None
    ) -> PooledWindows:
        """Pyramid vectors of an image's `windows`, once for those that share theirs.

        `image` is the image where it was read already.
        """
        features = self._read(self._features(index, windows=windows, image=image))
        if isinstance(self.extractor, RcnnWindows):
            return PooledWindows(self._on_device(features[0]), np.arange(len(windows.boxes)))
        return pool_distinct(self.extractor, self._maps(windows.size, features), windows.boxes)

    def wants_image(self, index: int) -> bool:
        """Whether the cache lacks some of what `pooled` needs."""
        return not all(self.cache.reads(name) for name, _ in self._features(index))

    def keep(self, index: int, *, flip: bool = False) -> bool:
        """Put what `pooled` needs into the cache, unless it is there.  False when the cache takes no more."""
        for name, compute in self._features(index, flip):
            if self.cache.keeps and not self.cache.has(name):
                self.cache(name, compute)
        return self.cache.keeps

    def _read(self, features: list[tuple[str, Callable[[], Tensor]]]) -> tuple[Tensor, ...]:
        return tuple(self.cache(name, compute) for name, compute in features)

    def _on_device(self, stored: Tensor) -> Tensor:
        return stored.to(self.extractor.device, self.extractor.dtype)

    def _maps(self, size: tuple[int, int], features: tuple[Tensor, ...]) -> FeatureMaps:
        return FeatureMaps(size, tuple(self._on_device(conv5) for conv5 in features))

    def _features(
        self,
        index: int,
        flip: bool = False,
        windows: ImageWindows | None = None,
        image: NDArray[np.uint8] | None = None,
    ) -> list[tuple[str, Callable[[], Tensor]]]:
        """What is worth a cache: the name of a file and how to compute what it holds."""
        image_id, extractor = self.dataset.ids[index], self.extractor
        file = f"{image_id}{'-flipped' * flip}.npy"

        @functools.cache  # once for all scales
        def pixels() -> NDArray[np.uint8]:
            read = self.dataset.image(image_id) if image is None else image
            return np.ascontiguousarray(read[:, ::-1]) if flip else read

        if isinstance(extractor, RcnnWindows):

            def vectors() -> Tensor:
                of_image = windows or self.windows(index)
                boxes = flip_boxes(of_image.boxes, of_image.size[1]) if flip else of_image.boxes
                return extractor.pool(extractor.prepare(pixels()), boxes)

            return [(file, vectors)]

        def conv5(scale: int) -> Tensor:
            return extractor.conv5(extractor.network_input(pixels(), scale))

        return [(f"{scale}/{file}", functools.partial(conv5, scale)) for scale in extractor.scales]


def _require_inside(path: Path, boxes: NDArray[np.float32], size: tuple[int, int]) -> None:
    height, width = size
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{path}: row {row} {boxes[row].tolist()} is no box of x1, y1, x2, y2 with an area; "
            "make the proposals anew with `sppnet propose`"
        )
    if len(boxes) and (boxes.min() < 0 or boxes[:, 2].max() >= width or boxes[:, 3].max() >= height):
        raise DataError(f"{path}: proposals reach outside {path.stem}: they are of another image set")
