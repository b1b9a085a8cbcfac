"""What a command would make, write and take, for `--dry-run` and for saying so beforehand.

Times are estimates: the networks are timed by `estimates`, the rest is scaled from experience.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sppnet_cli.data.imagenet import load_image_folder, training_folder
from sppnet_cli.data.mini import CALTECH_CLASSES, MiniSize
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import read_description
from sppnet_cli.evaluation.timing import FeatureTime
from sppnet_cli.evaluation.views import views_of
from sppnet_cli.features.extract import ImageFeatures, whole_image
from sppnet_cli.features.store import layer_file
from sppnet_cli.learning.classifier import Dataset
from sppnet_cli.learning.pretrain import METRICS
from sppnet_cli.network.backbones import is_own
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_spec
from sppnet_cli.runs import MANIFEST
from sppnet_cli.stages.classify import ClassifierConfig
from sppnet_cli.stages.columns import (
    Column,
    classifier_config,
    classifier_of_column,
    features_of_column,
    lists_of,
)
from sppnet_cli.stages.errors import ERRORS_FILE
from sppnet_cli.stages.estimates import batch_seconds, feature_seconds, image_seconds, view_seconds
from sppnet_cli.stages.evaluate import validation_folder
from sppnet_cli.stages.extract import ExtractConfig
from sppnet_cli.stages.transfer import (
    TRAINING_SIZES,
    classifier_folder,
    features_folder,
    image_paths,
    set_name,
)
from sppnet_cli.stages.workspace import PYRAMIDS, Workspace

_SEARCH_SECONDS = 4.5e-6  # of selective search, per pixel
_SIZE = {True: (265, 335), False: (375, 500)}  # typical height and width, mini or VOC
_CLASSES = {True: 20, False: 1000}
_TRANSFER_CLASSES: dict[Dataset, int] = {"VOC": 20, "Caltech101": 102}
_SVM_SECONDS = 4e-8  # of a transfer SVM, per pair of training images


class Step(NamedTuple):
    """One stage: where its output goes, what that holds, and about how long it takes when it is not there."""

    name: str
    out: Path
    files: dict[str, int]  # bytes, about
    seconds: float

    @property
    def ready(self) -> bool:
        """Whether it is made already."""
        return (self.out / MANIFEST).is_file() or (self.out / "mini.json").is_file()


def voc_steps(ws: Workspace) -> list[Step]:
    """The embedded data, where VOC is taken from them.  Raises `NeedsData` where there are none either."""
    if ws.data is None and ws.profile.data is not None:
        return _data_steps(ws)
    ws.voc_data()
    return []


def imagenet_steps(ws: Workspace) -> list[Step]:
    """As `voc_steps`, of ImageNet."""
    if ws.imagenet is None and ws.profile.data is not None:
        return _data_steps(ws)
    ws.imagenet_data()
    return []


def network_steps(ws: Workspace, pyramid: str, sizes: tuple[int, ...], out: Path | None) -> list[Step]:
    """Data and network."""
    profile = ws.profile
    target = ws.network_folder(pyramid, sizes, out)
    if target == ws.network_run:
        given = ws.data or ws.caltech
        return [*([] if given else _data_steps(ws)), Step("network", target, _files(target), 0.0)]
    if not is_own(profile.arch):
        network = SPPNet(NetworkSpec(profile.arch))
        return [Step("backbone", target, {"network.safetensors": _bytes(network)}, 5.0)]
    embedded = ws.imagenet is None and profile.data is not None
    spec = NetworkSpec(profile.arch, profile.width, PYRAMIDS[pyramid], profile.fc, _CLASSES[embedded])
    network = SPPNet(spec)
    if embedded:
        assert profile.data is not None
        images = profile.data.imagenet_train
    else:
        root = ws.imagenet_data()
        images = len(load_image_folder(training_folder(root)))
    if ws.limit is not None:
        images = min(images, ws.limit)
    batches = images // profile.recipe.batch * profile.recipe.epochs
    seconds = batches * float(np.mean([_training_seconds(ws, spec, size) for size in sizes]))
    files = {
        "network.json": 150,
        "network.safetensors": _bytes(network),
        METRICS: 180 * profile.recipe.epochs,
        **({"mean.safetensors": 602_200} if network.takes_mean_image else {}),
    }
    return [*_data_steps(ws), Step("pretrain", target, files, seconds)]


def errors_steps(ws: Workspace, pyramid: str, sizes: tuple[int, ...], views: str) -> list[Step]:
    """A network of our own, and which validation images it gets wrong."""
    profile = ws.profile
    if ws.imagenet is None and profile.data is not None:
        images = profile.data.imagenet_val
    else:
        images = len(load_image_folder(validation_folder(ws.imagenet_data())))
    images = min(images, ws.limit or images)
    spec = NetworkSpec(profile.arch, profile.width, PYRAMIDS[pyramid], profile.fc, 1)
    number = len(views_of(np.zeros((256, 341, 3), np.uint8), views))
    step = Step(
        "errors",
        ws.errors_folder(pyramid, sizes, views),
        {ERRORS_FILE: 500 + images // 2},
        images * number * view_seconds(spec, ws.device),
    )
    return [*network_steps(ws, pyramid, sizes, None), step]


def propose_step(ws: Workspace, split: str, out: Path | None = None) -> Step:
    """Proposals of a split."""
    count, windows = _voc_images(ws, split), 1200
    files = {f"boxes/ ({count} files)": count * 16 * windows, "index.csv": count * 20}
    pixels = float(np.prod(_SIZE[_embedded(ws)]))
    return Step(
        "propose",
        ws.proposals_folder(split, out),
        files,
        count * pixels * _SEARCH_SECONDS / max(ws.workers, 1),
    )


def detection_steps(
    ws: Workspace,
    method: str,
    scales: tuple[int, ...],
    row: str,
    until: str,
    out: Path | None = None,
    detectors: Sequence[Path] = (),
    split: str = "test",
    *,
    cached: bool = False,
) -> list[Step]:
    """All stages up to `until` (finetune, train-svm, train-bbox or detect, of `split`), which goes to `out`.

    What makes `detectors`, which are there, is left out.  `cached`: the features are there by then.
    """
    layer = row.removesuffix(" bb")
    if until == "detect":
        last = "train-svm" if row == layer else "train-bbox"
        before = voc_steps(ws) if detectors else detection_steps(ws, method, scales, row, last, cached=cached)
        walk = _walk(ws, method, scales, split)
        seconds = (walk.again if cached else walk.first) * max(len(detectors), 1)
        folder = ws.detections_folder(method, scales, row, out)
        csv = walk.images * 18_000
        written = {"detections.csv": csv, "comp4/": csv, "proposal_recall.csv": 1300, "report/": csv}
        step = Step("detect", folder, written, seconds)
        return [*before, propose_step(ws, split), step]

    profile = ws.profile
    walk = _walk(ws, method, scales, "trainval")
    if detectors:
        steps = [*voc_steps(ws), propose_step(ws, "trainval")]
        files = _files(detectors[0])
    else:
        network = network_steps(ws, "spp6", (224,), None)
        steps = [*network, propose_step(ws, "trainval")]
        dimension = walk.pooled_size if layer == "pool5" else profile.fc
        own = {name: size for name, size in network[-1].files.items() if name != METRICS}
        files = {**own, "svm.safetensors": 4 * 21 * dimension, "detector.json": 500}
        if layer != "pool5":
            axes = (1 + layer.endswith("fc7")) * 2 * profile.fc**2  # half of an fc layer's
            cascade = 4 * 20 * walk.pooled_size if method == "spp" else 0
            files |= {"shortcuts.safetensors": axes + cascade}
    if layer.startswith("ft") and not detectors:
        batches = profile.schedule(ws.protocol).batches
        head_bytes = 4 * profile.fc * (walk.pooled_size + profile.fc + 21)
        tuned = {"head.safetensors": head_bytes}
        if method == "rcnn" and profile.rcnn_finetune == "all":
            spec = NetworkSpec(profile.arch, profile.width, fc=profile.fc, classes=21)
            share = ws.protocol.finetune_batch / profile.recipe.batch
            seconds = batches * share * _training_seconds(ws, spec, 224)
            tuned |= {"network.json": 150, "network.safetensors": _bytes(SPPNet(spec).trunk)}
            cached = False  # of that trunk
        else:
            passes = (walk.again if cached else walk.first) * (1 + profile.flip)
            seconds = passes + batches * 2e-9 * head_bytes
            cached = True
        files |= tuned
        steps.append(Step("finetune", ws.head_folder(method, scales), tuned, seconds))
    if until != "finetune" and not detectors:
        seconds = walk.again + (walk.again if cached else walk.first)
        steps.append(Step("train-svm", ws.detector_folder(method, scales, layer), files, seconds))
        cached = True
    if until == "train-bbox":
        files = {**files, "bbox.safetensors": 4 * 4 * 20 * walk.pooled_size}
        seconds = walk.again if cached else walk.first
        steps.append(Step("train-bbox", ws.detector_folder(method, scales, row), files, seconds))
    return [*steps[:-1], steps[-1]._replace(out=out or steps[-1].out)]


def photo_step(
    ws: Workspace,
    detector: Path,
    scales: tuple[int, ...],
    paths: Sequence[Path],
    out: Path,
    max_windows: int,
) -> Step:
    """Detection in image files."""
    cost, _ = _feature_seconds(ws, read_description(detector).method, scales, max_windows)
    seconds = len(paths) * (
        cost.total + cost.preparation + 3 * float(np.prod(_SIZE[False])) * _SEARCH_SECONDS
    )
    files = {"detections.csv": 18_000 * len(paths), f"pictures ({len(paths)} files)": 150_000 * len(paths)}
    return Step("detect", out, files, seconds)


def extract_steps(
    ws: Workspace,
    config: ExtractConfig,
    dataset: Dataset | None,
    split: str,
    files: Sequence[Path],
    out: Path | None,
) -> list[Step]:
    """Network and features of images, which are those of `transfer.image_paths`."""
    folder = out or features_folder(ws, config, set_name(dataset, split))
    step = _extract_step(ws, config, dataset, split, files, folder)
    return [*network_steps(ws, "spp6", TRAINING_SIZES, None), step]


def _extract_step(
    ws: Workspace,
    config: ExtractConfig,
    dataset: Dataset | None,
    split: str,
    files: Sequence[Path],
    folder: Path,
) -> Step:
    if ws.network_run is not None:
        spec = load_spec(ws.network_run)
    elif is_own(ws.profile.arch):
        spec = NetworkSpec(ws.profile.arch, ws.profile.width, fc=ws.profile.fc, classes=1)
    else:
        spec = NetworkSpec(ws.profile.arch)
    features = ImageFeatures(SPPNet(spec), config.layers, config.view, config.size, ws.device)
    dimensions = features.dimensions()
    black = whole_image(np.zeros((*_SIZE[_embedded(ws)], 3), np.uint8), config.size, config.view)
    seconds = image_seconds(features, black)
    images = _transfer_images(ws, dataset, split, files)
    sizes = {layer_file(layer): 4 * images * length for layer, length in dimensions.items()}
    return Step("extract-features", folder, {**sizes, "index.csv": 60 * images}, images * seconds)


def classifier_steps(
    ws: Workspace, dataset: Dataset, extract: ExtractConfig, config: ClassifierConfig, out: Path | None
) -> list[Step]:
    """Network, features and the SVMs of a transfer classifier."""
    steps = extract_steps(ws, extract, dataset, "trainval", (), None)
    images = _transfer_images(ws, dataset, "trainval", ())
    folder = classifier_folder(ws, dataset, extract, out)
    return [*steps, _svm_step(dataset, config, images, steps[-1], folder)]


def transfer_steps(
    ws: Workspace,
    dataset: Dataset,
    column: Column,
    layers: tuple[str, ...],
    *,
    train: str = "trainval",
    test: str = "test",
) -> list[Step]:
    """Network, features and SVMs of a column of the transfer tables: what `columns.layer_scores` makes."""
    lists = lists_of(dataset, train, test)
    extract = ExtractConfig(layers, column.view, column.size)
    features = {
        name: _extract_step(ws, extract, dataset, name, (), features_of_column(ws, column, layers, name))
        for name in lists
    }
    images = _transfer_images(ws, dataset, lists[0], ())
    svms = [
        _svm_step(
            dataset,
            classifier_config(ws, dataset, layer),
            images,
            features[lists[0]],
            classifier_of_column(ws, column, layer, lists[0]),
        )
        for layer in layers
    ]
    return [*network_steps(ws, column.pyramid, column.sizes, None), *features.values(), *svms]


def _svm_step(dataset: Dataset, config: ClassifierConfig, images: int, features: Step, folder: Path) -> Step:
    splits = config.splits.count if config.splits else 1
    classes = _TRANSFER_CLASSES[dataset]
    trained = config.splits.train * classes if config.splits else images
    numbers = splits * classes * features.files[layer_file(config.layer)] // max(images, 1)
    files = {"classifier.safetensors": numbers, "classifier.json": 6 * (splits - 1) * images + 1000}
    return Step("train-svm", folder, files, splits * classes * trained**2 * _SVM_SECONDS)


def _embedded(ws: Workspace) -> bool:
    return ws.data is None and ws.profile.data is not None


def _data_steps(ws: Workspace) -> list[Step]:
    if ws.profile.data is None or (ws.data is not None and ws.imagenet is not None):
        return []
    size = ws.profile.data
    images = size.imagenet_train + size.imagenet_val + size.voc_trainval + size.voc_test
    return [Step("data", ws.mini_folder(), {"mini data": images * 22_000}, images * 6e-3)]


def _files(folder: Path) -> dict[str, int]:
    """What a run directory holds, and the bytes."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*")) if path.name != MANIFEST}


def _transfer_images(ws: Workspace, dataset: Dataset | None, split: str, files: Sequence[Path]) -> int:
    if dataset is None or not _embedded(ws) or ws.caltech is not None:
        return len(image_paths(ws, dataset, split, files))
    assert ws.profile.data is not None
    size = ws.profile.data
    images = {
        "VOC": _voc_count(size, split),
        "Caltech101": size.caltech_per_category * (len(CALTECH_CLASSES) + 1),
    }
    return min(images[dataset], ws.limit or images[dataset])


def _voc_images(ws: Workspace, split: str) -> int:
    if ws.data is None and ws.profile.data is not None:
        count = _voc_count(ws.profile.data, split)
        return min(count, ws.detection_limit(split) or count)
    return len(load_voc(ws.voc_data(), split, ws.limit))


def _voc_count(size: MiniSize, split: str) -> int:
    train = size.voc_trainval // 2
    lists = {"train": train, "val": size.voc_trainval - train, "test": size.voc_test}
    return lists.get(split, size.voc_trainval)


class _Walk(NamedTuple):
    """A stage's way through the windows of a split."""

    images: int
    first: float  # seconds that it takes to compute their features,
    again: float  # and to take them from the cache
    pooled_size: int  # numbers of a window's vector


def _walk(ws: Workspace, method: str, scales: tuple[int, ...], split: str) -> _Walk:
    images = _voc_images(ws, split)
    cost, pooled_size = _feature_seconds(ws, method, scales, ws.windows(split, method, scales).max_windows)
    return _Walk(images, images * (cost.total + cost.preparation), images * cost.fc, pooled_size)


def _feature_seconds(
    ws: Workspace, method: str, scales: tuple[int, ...], windows: int
) -> tuple[FeatureTime, int]:
    """Time per image with so many windows, and the length of a pooled vector."""
    spec = NetworkSpec(ws.profile.arch, ws.profile.width)
    size = _SIZE[_embedded(ws)]
    return feature_seconds(spec, ws.profile.fc, method, ws.protocol, scales, ws.device, windows, size)


def _training_seconds(ws: Workspace, spec: NetworkSpec, size: int) -> float:
    """Of a batch of the profile's."""
    recipe = ws.profile.recipe
    batch = min(recipe.batch, 32)
    return batch_seconds(spec, size, batch, ws.device, recipe.amp) * recipe.batch / batch


def _bytes(network: torch.nn.Module) -> int:
    return sum(4 * p.numel() for p in network.parameters())
