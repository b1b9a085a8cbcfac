"""Stage: features of whole images."""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.atomic import atomic_path
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track, warn
from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.data.images import read_image
from sppnet_cli.data.layouts import Dataset
from sppnet_cli.data.voc import load_voc
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError
from sppnet_cli.features.extract import ImageFeatures, extract_features, require_possible, whole_image
from sppnet_cli.features.store import layer_file
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network
from sppnet_cli.records import read_csv
from sppnet_cli.stages.cost import forward_work, memory

INDEX_FILE = "index.csv"


@dataclass(frozen=True)
class ImageSet:
    """Images of the input `data`."""

    dataset: Dataset
    split: str | None  # an image list of VOC; Caltech101 has none
    limit: int | None = None


@dataclass(frozen=True)
class ExtractConfig:
    """`sppnet extract-features`.  Raises `UsageError` for layers, views and sizes that no network has."""

    layers: tuple[str, ...]  # of names.IMAGE_LAYERS
    view: str  # of names.IMAGE_VIEWS
    size: int  # short side in pixels
    images: ImageSet | None  # None: the user's image files

    def __post_init__(self) -> None:
        require_possible(self.layers, self.view, self.size)


def extract(config: ExtractConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write `<layer>.npy` (N, D) float32 for each layer, not normalised, and `index.csv` (row, image).

    Of the user's image files those that cannot be read are warned of and left out; raises `DataError` when that is
    all of them, and for one of a set.  Resumes where an earlier call was cut off.  The processes share the images.
    """
    if config.images:
        paths = image_paths(config.images, inputs["data"])
    else:
        paths = _readable(inputs.images, how.workers)
    extract_features(
        load_network(inputs["network"]),
        paths,
        config.layers,
        config.view,
        config.size,
        folder,
        device=how.device,
        workers=how.workers,
    )
    if world().first:
        with (
            atomic_path(folder / INDEX_FILE) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("row", "image"))
            writer.writerows(enumerate(map(str, paths)))


def read_index(run: Path) -> Sequence[str]:
    """The images of a run's rows, as `index.csv` names them.  Raises `DataError`."""
    return read_csv(run / INDEX_FILE, {"row": int, "image": str}, remedy=f"remove {run} and extract again")[
        "image"
    ].tolist()


def _readable(paths: Sequence[Path], workers: int) -> Sequence[Path]:
    """The files that hold an image; each is decoded, since rows can only be left out before they are counted."""

    def problem(path: Path) -> str | None:
        try:
            read_image(path)
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        problems = list(track(pool.map(problem, paths), "reading images", len(paths)))
    for found in filter(None, problems):
        warn(f"skipped: {found}")
    readable = [path for path, found in zip(paths, problems, strict=True) if found is None]
    if not readable:
        raise DataError(f"none of the {len(paths)} images could be read; see above")
    if len(readable) < len(paths):
        warn(f"{len(paths) - len(readable)} of {len(paths)} images were skipped")
    return readable


def image_paths(images: ImageSet, data: Path) -> Sequence[Path]:
    """The image files of a set, in order."""
    if images.dataset == "Caltech101":
        return load_caltech101(data, images.limit).paths
    assert images.split is not None
    voc = load_voc(data, images.split, images.limit)
    return [voc.image_path(image_id) for image_id in voc.ids]


def extract_cost(
    config: ExtractConfig, spec: NetworkSpec, images: int, size: tuple[int, int], device: str
) -> Cost:
    """Cost of one pass of the network over the images."""
    features = ImageFeatures(SPPNet(spec), config.layers, config.view, config.size)
    view = whole_image(np.zeros((*size, 3), np.uint8), config.size, config.view)
    files = {layer_file(layer): 4 * images * length for layer, length in features.dimensions().items()}
    height, width = view.shape[:2]
    work = forward_work(spec, images, height, width, device)
    return Cost(work.seconds, {**files, INDEX_FILE: 60 * images}, memory(0.5), work.flops)
