"""Stage: which images of a validation set a network gets wrong."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from sppnet_cli.atomic import atomic_path
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.imagenet import ImageFolder, load_image_folder
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.top_k import TopKErrors, top_k_errors
from sppnet_cli.evaluation.views import views_of
from sppnet_cli.network.classifiers import load_classifier
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import load_network
from sppnet_cli.records import read_arrays
from sppnet_cli.stages.cost import forward_seconds
from sppnet_cli.stages.pretrain import CLASSES_FILE

WRONG_FILE = "wrong.npz"


@dataclass(frozen=True)
class EvaluateConfig:
    """`sppnet evaluate --network`, kept."""

    views: str
    limit: int | None = None


def evaluate(config: EvaluateConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """`wrong.npz`: `wrong1` and `wrong5` (n,) bool, in the order of the images.  All processes share the images."""
    errors = network_error(inputs["network"], inputs["data"], config.views, config.limit, how)
    if world().first:
        with atomic_path(folder / WRONG_FILE) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, wrong1=errors.wrong1, wrong5=errors.wrong5)


def evaluate_cost(config: EvaluateConfig, spec: NetworkSpec, images: int, device: str) -> Cost:
    """Of all views of the images."""
    views = len(views_of(np.zeros((256, 341, 3), np.uint8), config.views))
    return Cost(forward_seconds(spec, images * views, 224, 224, device), {WRONG_FILE: 500 + images // 2})


def read_errors(run: Path) -> TopKErrors:
    """What `evaluate` wrote.  Raises `DataError` where it is missing or broken."""
    remedy = f"remove {run} and evaluate again"
    arrays = read_arrays(run / WRONG_FILE, remedy)
    wrong = [arrays.get(name, np.empty(0)) for name in ("wrong1", "wrong5")]
    if any(each.dtype != np.bool_ or each.ndim != 1 or not each.size for each in wrong):
        raise DataError(f"{run / WRONG_FILE}: does not say which images were wrong; {remedy}")
    return TopKErrors(*wrong)


def network_error(network: Path, data: Path, views: str, limit: int | None, how: Resources) -> TopKErrors:
    """Error of a network on `data/val` (or on `data`, where it holds the class folders itself).

    Raises `DataError` where the classes are not those that the network was trained on.
    """
    images = _validation(data, limit)
    model = load_network(network)
    if (network / CLASSES_FILE).is_file():
        known = (network / CLASSES_FILE).read_text().splitlines()
        for k, (own, given) in enumerate(zip_longest(known, images.class_names), 1):
            if own != given:
                raise DataError(
                    f"{data}: class {k} is {given or 'missing'}, but {network} was trained with "
                    f"{own or 'no more classes'}; give --data of the same classes"
                )
    _require_count(str(network), model.spec.classes, data, images)
    return top_k_errors(model, images, views, how.device, how.workers)


def classifier_error(
    arch: str, weights: str, data: Path, views: str, limit: int | None, how: Resources
) -> TopKErrors:
    """Error of a classifier of torchvision, `weights` a file or `DEFAULT`, on images as in `network_error`."""
    images = _validation(data, limit)
    model = load_classifier(arch, weights)
    _require_count(f"{arch} {weights}", model.classes, data, images)
    return top_k_errors(model, images, views, how.device, how.workers)


def validation_folder(data: Path) -> Path:
    """`data/val`, or `data` where it holds the class folders itself."""
    return data / "val" if (data / "val").is_dir() else data


def _validation(data: Path, limit: int | None) -> ImageFolder:
    return load_image_folder(validation_folder(data), limit)


def _require_count(name: str, classes: int, data: Path, images: ImageFolder) -> None:
    if classes != len(images.class_names):
        raise UsageError(f"{name}: knows {classes} classes, but {data} holds {len(images.class_names)}")
