"""Stage: which images of a validation set a network classifies wrongly."""

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
from sppnet_cli.evaluation.views import map_scales, views_of
from sppnet_cli.files import read_text
from sppnet_cli.names import MAP_VIEWS
from sppnet_cli.network.classifiers import load_classifier
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import load_network
from sppnet_cli.records import read_arrays
from sppnet_cli.stages.cost import Work, forward_work
from sppnet_cli.stages.pretrain import CLASSES_FILE

WRONG_FILE = "wrong.npz"


@dataclass(frozen=True)
class EvaluateConfig:
    """As `sppnet evaluate --network`, with the result kept."""

    views: str
    limit: int | None = None


def evaluate(config: EvaluateConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write `wrong.npz`: `wrong1` and `wrong5` (n,) bool, in the order of the images.

    The processes share the images.
    """
    errors = network_error(inputs["network"], inputs["data"], config.views, config.limit, how)
    if world().first:
        with atomic_path(folder / WRONG_FILE) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, wrong1=errors.wrong1, wrong5=errors.wrong5)


def evaluate_cost(config: EvaluateConfig, spec: NetworkSpec, images: int, device: str) -> Cost:
    """Of all views of the images, or of the maps that they are pooled from."""
    typical = np.zeros((256, 341, 3), np.uint8)
    if config.views in MAP_VIEWS:  # the maps of the image and of its mirror image, at each scale
        seen = [
            resized_size(typical.shape[:2], scale) for scale in map_scales(config.views) for _ in range(2)
        ]
    else:
        seen = [view.shape[:2] for view in views_of(typical, config.views)]
    passes = (forward_work(spec, images, height, width, device) for height, width in seen)
    work = sum(passes, start=Work(0, 0))
    return Cost(work.seconds, {WRONG_FILE: 500 + images // 2}, flops=work.flops)


def read_errors(run: Path) -> TopKErrors:
    """What `evaluate` wrote.  Raises `DataError` where it is missing or broken."""
    remedy = f"remove {run} and evaluate again"
    arrays = read_arrays(run / WRONG_FILE, remedy)
    wrong = [arrays.get(name, np.empty(0)) for name in ("wrong1", "wrong5")]
    if any(each.dtype != np.bool_ or each.ndim != 1 or not each.size for each in wrong):
        raise DataError(f"{run / WRONG_FILE}: does not say which images were wrong; {remedy}")
    return TopKErrors(*wrong)


def network_error(network: Path, data: Path, views: str, limit: int | None, how: Resources) -> TopKErrors:
    """Error of a network on `data/val`, or on `data` if that holds the class folders.

    Raises `DataError` if the classes are not those that the network was trained on.
    """
    images = _validation(data, limit)
    model = load_network(network)
    if (network / CLASSES_FILE).is_file():
        known = read_text(network / CLASSES_FILE, "list").splitlines()
        for k, (trained, given) in enumerate(zip_longest(known, images.class_names), 1):
            if trained != given:
                raise DataError(
                    f"{data}: class {k} is {given or 'missing'}, but {network} was trained with "
                    f"{trained or 'no more classes'}; give --data of the same classes"
                )
    _require_count(str(network), model.spec.classes, data, images)
    return top_k_errors(model, images, views, how.device, how.workers)


def classifier_error(
    arch: str, weights: str, data: Path, views: str, limit: int | None, how: Resources
) -> TopKErrors:
    """Error of a torchvision classifier on images as in `network_error`; `weights` is a file or `DEFAULT`."""
    images = _validation(data, limit)
    model = load_classifier(arch, weights)
    _require_count(f"{arch} {weights}", model.classes, data, images)
    return top_k_errors(model, images, views, how.device, how.workers)


def validation_folder(data: Path) -> Path:
    """`data/val`, or `data` if that holds the class folders."""
    return data / "val" if (data / "val").is_dir() else data


def _validation(data: Path, limit: int | None) -> ImageFolder:
    return load_image_folder(validation_folder(data), limit)


def _require_count(name: str, classes: int, data: Path, images: ImageFolder) -> None:
    if classes != len(images.class_names):
        raise UsageError(f"{name}: knows {classes} classes, but {data} holds {len(images.class_names)}")
