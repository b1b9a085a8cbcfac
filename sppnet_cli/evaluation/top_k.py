"""Top-1 and top-5 error of a network over views of each image (paper section 3.1, journal edition)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sppnet_cli.console import track
from sppnet_cli.data.ahead import ahead
from sppnet_cli.data.boxes import flip_boxes
from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import read_image
from sppnet_cli.distributed import gather, world
from sppnet_cli.errors import SppnetError, UsageError
from sppnet_cli.evaluation.views import (
    Image,
    Resize,
    map_scales,
    map_windows,
    resize_as_torchvision,
    views_of,
)
from sppnet_cli.kernels.pooling import pool_windows
from sppnet_cli.names import CROP_VIEWS, FULL_VIEWS, MAP_VIEWS, VIEWS
from sppnet_cli.network.classifiers import Classifier
from sppnet_cli.network.geometry import SHORT_SIDE, window_cells
from sppnet_cli.network.preprocessing import resize_short
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import PAPER, MappingRules, take


@dataclass(frozen=True, eq=False)
class TopKErrors:
    """Which images a network gets wrong, `(n,)` each, in the order of the images."""

    wrong1: NDArray[np.bool_]  # another class scores as high as the image's, or higher
    wrong5: NDArray[np.bool_]  # five other classes do

    @property
    def top1(self) -> float:
        """Fraction of the images."""
        return float(self.wrong1.mean())

    @property
    def top5(self) -> float:
        """Fraction of the images."""
        return float(self.wrong5.mean())

    @property
    def images(self) -> int:
        """How many images were classified."""
        return len(self.wrong1)

    def as_dict(self) -> dict[str, float | int]:
        """`top1_error`, `top5_error` and `n`."""
        return {"top1_error": self.top1, "top5_error": self.top5, "n": self.images}


@torch.inference_mode()
def top_k_errors(
    model: nn.Module, images: ImageFolder, views: str, device: str = "cpu", workers: int = 0
) -> TopKErrors:
    """Top-1 and top-5 errors, with the class probabilities averaged over the views, one of `VIEWS`.

    `workers` threads read images ahead.  Under torchrun every process classifies its share of the images, and each
    returns the whole result.

    Raises:
        UsageError: the model cannot take these views.
        SppnetError: a score is not a number.
    """
    model.to(device).eval()
    require_views(model, views)
    here = world()
    paths = images.paths[here.rank :: here.size]
    labels = images.labels[here.rank :: here.size]
    resize = resize_as_torchvision if isinstance(model, Classifier) else resize_short
    ranks = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        prepared = ahead(pool, lambda path: _prepare(read_image(path), views, resize), paths, 2 * workers)
        for path, label, pictures in zip(
            paths, labels, track(prepared, f"classifying, {views} views", len(paths)), strict=True
        ):
            scores = view_scores(model, pictures.result(), views, device)
            if not (scores < torch.inf).all():
                raise SppnetError(
                    f"{path}: the network's scores are not numbers; train it again at a lower rate"
                )
            ranks.append(rank_of(average_scores(scores), int(label)))
    rank = np.empty(len(images), np.int64)
    for process, part in enumerate(gather(ranks)):
        rank[process :: here.size] = part
    return TopKErrors(rank >= 1, rank >= 5)


def average_scores(scores: Tensor) -> Tensor:
    """Scores `(K,)` float64 that rank the classes as their softmax, averaged over the views `(V, K)`, does.

    They are the logarithm of V times that average, in which no class underflows.  A single view keeps its scores,
    so that rounding makes no ties; in several, averages that agree in all digits of a double are equal.
    """
    scores = scores.cpu().double()
    if len(scores) == 1:
        return scores[0]
    # A row per class: summed down the columns, classes of equal scores can differ in the last bit.
    return scores.log_softmax(dim=1).T.contiguous().logsumexp(dim=1)


def rank_of(scores: Tensor, label: int) -> int:
    """How many other classes score as high as `label` or higher: it is in the top k if these are fewer than k."""
    return int((scores >= scores[label]).sum()) - 1


def require_views(model: nn.Module, views: str) -> None:
    """Raise `UsageError` unless the model can take these views."""
    if views not in VIEWS:
        raise UsageError(f"unknown views {views!r}; choose one of {', '.join(VIEWS)}")
    crops = f"give --views {', '.join(CROP_VIEWS[:-1])} or {CROP_VIEWS[-1]}"
    plain = isinstance(model, SPPNet) and model.spec.levels is None
    if views in MAP_VIEWS and (plain or not isinstance(model, SPPNet)):
        raise UsageError(f"--views {views} pools windows of feature maps, which takes a pyramid; {crops}")
    if views in FULL_VIEWS:
        if plain:
            raise UsageError(f"--views {views}: the plain net takes crops of 224x224 only; {crops}")
        if isinstance(model, Classifier) and not model.takes(SHORT_SIDE, 300):
            raise UsageError(f"--views {views}: {model.arch} cannot take whole images; {crops}")


def _prepare(image: Image, views: str, resize: Resize) -> list[Image]:
    if views in MAP_VIEWS:
        return [resize(image, scale) for scale in map_scales(views)]
    return views_of(image, views, resize)


def view_scores(model: nn.Module, pictures: list[Image], views: str, device: str = "cpu") -> Tensor:
    """Class scores `(V, K)`, before the softmax, of the views of one image, in any order.

    `pictures` are the views themselves (`views_of`), or for `MAP_VIEWS` the image at each of `map_scales`.
    """
    if views in MAP_VIEWS:
        assert isinstance(model, SPPNet)
        pooled = [_pooled_views(model, picture, views, device) for picture in pictures]
        return model.require_head()(torch.cat(pooled))
    by_shape: dict[tuple[int, ...], list[Image]] = {}
    for view in pictures:
        by_shape.setdefault(view.shape, []).append(view)
    return torch.cat([model(_batch(same, device)) for same in by_shape.values()])


def _pooled_views(network: SPPNet, image: Image, views: str, device: str) -> Tensor:
    """Pyramid vectors `(V, D)` of the views of an image at one scale, pooled from its maps and its mirror image's."""
    assert network.spec.levels is not None
    size = image.shape[:2]
    maps = network.maps(_batch([image, image[:, ::-1]], device), "conv5", imagenet=True)
    h, w = maps.shape[2:]
    windows = map_windows(size, views)
    pooled = []
    for conv5, boxes in zip(maps, (windows, flip_boxes(windows, size[1])), strict=True):
        cells = window_cells(boxes, size, min(size), (h, w), network.geometry, take(MappingRules, PAPER))
        pooled.append(pool_windows(conv5.permute(1, 2, 0).contiguous(), cells, network.spec.levels))
    if views == "maps:96+2full" and min(size) == SHORT_SIDE:
        pooled.append(network.pool(maps))
    return torch.cat(pooled)


def _batch(images: list[Image], device: str) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
