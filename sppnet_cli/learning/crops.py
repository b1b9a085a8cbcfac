"""Training images: flipped crops of the entire image with altered colours (paper section 3.1)."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sppnet_cli.console import track
from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import read_image
from sppnet_cli.distributed import from_first, gather, world
from sppnet_cli.errors import DataError
from sppnet_cli.network.geometry import CROP, SHORT_SIDE
from sppnet_cli.network.preprocessing import resize_short
from sppnet_cli.processes import signals_held
from sppnet_cli.protocols import PAPER, Lighting

T = TypeVar("T")
UNREADABLE = -1  # in place of a label
_IN_MEMORY_PIXELS = 600_000_000  # a training set up to this size (1.8 GB) is decoded once and kept
_COLOUR_IMAGES = 10_000  # at most, spread evenly over the set, for the principal components
_COLOUR_DEVIATION = 0.1  # of the random factors (AlexNet)


class Colours(NamedTuple):
    """Principal components of RGB values in [0, 1]: `components[:, k]` with the variance `variances[k]`."""

    components: NDArray[np.float64]  # (3, 3), each column up to its sign
    variances: NDArray[np.float64]  # (3,), ascending


def load_short_side(path: Path) -> NDArray[np.uint8]:
    """The image that crops are cut out of, uint8 RGB (H, W, 3): its short side is 256."""
    return resize_short(read_image(path), SHORT_SIDE)


def principal_components(images: Iterator[NDArray[np.uint8]]) -> Colours:
    """Principal components of the colours of all pixels of RGB images (H, W, 3)."""
    count, total, squares = 0, np.zeros(3), np.zeros((3, 3))
    for image in images:
        pixels = image.reshape(-1, 3).astype(np.float32) / np.float32(255)
        count += len(pixels)
        total += pixels.sum(axis=0, dtype=np.float64)
        squares += pixels.T @ pixels
    mean = total / count
    variances, components = np.linalg.eigh(squares / count - np.outer(mean, mean))
    return Colours(components, np.maximum(variances, 0))


class Crops(Dataset[tuple[Tensor, Tensor, int, int]]):
    """224x224 crops from the centre or a corner of the entire image, half of them flipped, and their colour shifts.

    Item (epoch, index) is a crop (3, 224, 224) uint8, a shift (3,) float32 to add to its red, green and blue in
    0..255, its label, and the index of the image that it shows.  It depends only on (seed, epoch, index), not on the
    process that loads it or on the order.  In place of an image that cannot be read the next one that can be is shown,
    after the last one the first; what is measured over all images leaves it out.

    The shift is AlexNet's PCA lighting: the principal components of the training set's pixels in [0, 1], each times
    N(0, .1) and its strength.  With `lighting="variance"` the strength is the component's variance, which is how the
    text of AlexNet reads (its eigenvalue); on ImageNet the shift along the first component then has a deviation of
    5.2 grey levels.  With `"deviation"` it is the root of the variance, as in cuda-convnet2: 11.5 grey levels.

    With `in_memory` all images are decoded once and kept; None leaves it to the size of the set.
    """

    def __init__(
        self,
        folder: ImageFolder,
        seed: int,
        lighting: Lighting = PAPER.lighting,
        in_memory: bool | None = None,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.lighting = lighting
        self._decoded: list[NDArray[np.uint8] | None] | None = None
        if in_memory is None:
            in_memory = len(folder.paths) * SHORT_SIDE * SHORT_SIDE * 4 // 3 <= _IN_MEMORY_PIXELS
        if in_memory:
            self._decoded = list(track(_decode(folder.paths), "decoding training images", len(folder)))
        self.colours = Colours(*from_first(tuple(self._colours()) if world().first else None))

    @property
    def in_memory(self) -> bool:
        """Whether all images are kept decoded."""
        return self._decoded is not None

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, int, int]:
        epoch, index = item
        shown, image = self._readable(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        down, right = image.shape[0] - CROP, image.shape[1] - CROP
        corners = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))
        top, left = corners[rng.integers(5)]
        crop = image[top : top + CROP, left : left + CROP]
        if rng.integers(2):
            crop = crop[:, ::-1]
        factors = rng.normal(0, _COLOUR_DEVIATION, 3)
        variances = self.colours.variances
        strengths = variances if self.lighting == "variance" else np.sqrt(variances)
        shift = 255 * self.colours.components @ (factors * strengths)
        pixels = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)
        return pixels, torch.from_numpy(shift.astype(np.float32)), int(self.folder.labels[shown]), shown

    def _readable(self, index: int) -> tuple[int, NDArray[np.uint8]]:
        """The first image from `index` on that can be read, and where it stands."""
        for shown in (*range(index, len(self)), *range(index)):
            path = self.folder.paths[shown]
            image = self._decoded[shown] if self._decoded is not None else _load(path)
            if image is not None:
                return shown, image
        raise _none_readable(self.folder)

    def mean_image(self, workers: int) -> Tensor:
        """The mean of the centre crops of all images that can be read, `(3, 224, 224)` float32, BGR in 0..255.

        The sum is of whole numbers: the same bits however many processes and `workers` share the images.
        """
        here = world()
        total, count = np.zeros((CROP, CROP, 3), np.int64), 0
        if self._decoded is not None:
            for image in self._decoded[here.rank :: here.size]:
                if image is not None:
                    total, count = total + _centre(image), count + 1
        else:
            mine = range(here.rank, len(self), here.size)
            loader = DataLoader(Centres(self.folder), batch_size=32, sampler=mine, num_workers=workers)
            for pixels, labels in track(batches(loader), "mean image", len(loader)):
                total += pixels.sum(dim=0).permute(1, 2, 0).numpy()  # zeros where an image cannot be read
                count += int((labels != UNREADABLE).sum())
        parts = gather((total, count))
        count = sum(count for _, count in parts)
        if not count:
            raise _none_readable(self.folder)
        mean = sum(total for total, _ in parts) / count
        return torch.from_numpy(mean[:, :, ::-1].transpose(2, 0, 1).astype(np.float32))

    def _colours(self) -> Colours:
        if self._decoded is not None:
            return self._components(self._decoded)
        paths = self.folder.paths
        chosen = np.linspace(0, len(paths) - 1, min(len(paths), _COLOUR_IMAGES)).round().astype(int)
        images = _decode([paths[i] for i in chosen])
        return self._components(track(images, "principal colours", len(chosen)))

    def _components(self, images: Iterable[NDArray[np.uint8] | None]) -> Colours:
        readable = (image for image in images if image is not None)
        first = next(readable, None)
        if first is None:
            raise _none_readable(self.folder)
        return principal_components(itertools.chain([first], readable))


class Centres(Dataset[tuple[Tensor, int]]):
    """224x224 centre crops (3, 224, 224) uint8 and labels, for a quick test on a validation set.

    Of an image that cannot be read the crop is black and the label `UNREADABLE`.
    """

    def __init__(self, folder: ImageFolder) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = _load(self.folder.paths[index])
        if image is None:
            return torch.zeros(3, CROP, CROP, dtype=torch.uint8), UNREADABLE
        crop = np.ascontiguousarray(_centre(image))
        return torch.from_numpy(crop).permute(2, 0, 1), int(self.folder.labels[index])


class Epoch(Sampler[list[tuple[int, int]]]):
    """This process's share of every batch of an epoch, as (epoch, index).

    The batches cut one random order of all images and are the same for any number of processes; an incomplete batch
    is left out.
    """

    def __init__(self, images: int, batch: int, seed: int, epoch: int) -> None:
        self.epoch = epoch
        order = np.random.default_rng([seed, epoch]).permutation(images)
        self.batches = order[: images // batch * batch].reshape(-1, batch)

    def __len__(self) -> int:
        return len(self.batches)

    def of_process(self, number: int) -> NDArray[np.int64]:
        """The images of this process's share of a batch."""
        return self.batches[number][world().rank :: world().size]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(len(self)):
            yield [(self.epoch, int(index)) for index in self.of_process(number)]


def batches(loader: DataLoader[T]) -> Iterator[Any]:
    """What a loader loads; Ctrl-C while its workers start is not lost."""
    if loader.num_workers and sys.platform == "linux":
        loader.multiprocessing_context = "fork"  # from Python 3.14 on each would import torch anew
    with signals_held():
        loading = iter(loader)
    yield from loading


def _centre(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (image.shape[0] - CROP) // 2, (image.shape[1] - CROP) // 2
    return image[top : top + CROP, left : left + CROP]


def _load(path: Path) -> NDArray[np.uint8] | None:
    """`load_short_side`, None for a file that is no image."""
    try:
        return load_short_side(path)
    except DataError:
        return None


def _none_readable(folder: ImageFolder) -> DataError:
    return DataError(
        f"{folder.paths[0]}: neither this nor another of the {len(folder)} images can be read; `sppnet data check --full` "
        "says why"
    )


def _decode(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8] | None]:
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, len(paths), 256):  # one map over all of them would hold all of them
            yield from threads.map(_load, paths[start : start + 256])
