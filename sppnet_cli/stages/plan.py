"""What a command would make, write and take, for `--dry-run` and for saying so beforehand.

Times are estimates: the networks are timed untrained on this machine, the rest is scaled from experience.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.data.mini import CALTECH_CLASSES
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import make_extractor, read_description
from sppnet_cli.evaluation.timing import FeatureTime, time_image
from sppnet_cli.features.extract import ImageFeatures, whole_image
from sppnet_cli.features.store import layer_file
from sppnet_cli.learning.classifier import Dataset
from sppnet_cli.learning.pretrain import Tally, training_step
from sppnet_cli.network.backbones import is_own
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_spec
from sppnet_cli.runs import MANIFEST
from sppnet_cli.stages.classify import ClassifierConfig
from sppnet_cli.stages.columns import Column, features_of_column
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


def network_steps(ws: Workspace, pyramid: str, sizes: tuple[int, ...], out: Path | None) -> list[Step]:
    """Data and network."""
    profile = ws.profile
    target = ws.network_folder(pyramid, sizes, out)
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
        images = len(load_image_folder(root / "train" if (root / "train").is_dir() else root))
    if ws.limit is not None:
        images = min(images, ws.limit)
    batches = images // profile.recipe.batch * profile.recipe.epochs
    seconds = batches * float(np.mean([_training_seconds(ws, network, size) for size in sizes]))
    files = {
        "network.json": 150,
        "network.safetensors": _bytes(network),
        "metrics.jsonl": 180 * profile.recipe.epochs,
    }
    return [*_data_steps(ws), Step("pretrain", target, files, seconds)]


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
) -> list[Step]:
    """All stages up to `until` (finetune, train-svm, train-bbox or detect), which goes to `out`.

    With `detectors` those before `detect` are left out.
    """
    profile = ws.profile
    cost, pooled_size = _feature_seconds(ws, method, scales)
    per_image = cost.total + cost.preparation
    trainval = _voc_images(ws, "trainval")
    head_bytes = 4 * profile.fc * (pooled_size + profile.fc + 21)
    layer = row.removesuffix(" bb")
    dimension = pooled_size if layer == "pool5" else profile.fc
    network = network_steps(ws, "spp6", (224,), None)
    steps = [*network, propose_step(ws, "trainval")]
    files = {**network[-1].files, "svm.safetensors": 4 * 21 * dimension, "detector.json": 500}
    if layer.startswith("ft"):
        batches = profile.schedule(ws.protocol).batches
        tuned = {"head.safetensors": head_bytes}
        if method == "rcnn" and profile.rcnn_finetune == "all":
            net = SPPNet(NetworkSpec(profile.arch, profile.width, fc=profile.fc, classes=21))
            share = ws.protocol.finetune_batch / profile.recipe.batch
            seconds = batches * share * _training_seconds(ws, net, 224)
            tuned |= {"network.json": 150, "network.safetensors": _bytes(net.trunk)}
        else:
            seconds = trainval * (1 + profile.flip) * per_image + batches * 2e-9 * head_bytes
        files |= tuned
        steps.append(Step("finetune", ws.head_folder(method, scales), tuned, seconds))
    if until != "finetune":
        steps.append(
            Step("train-svm", ws.detector_folder(method, scales, layer), files, 2 * trainval * per_image)
        )
    if row.endswith(" bb") and until != "finetune":
        files = {**files, "bbox.safetensors": 4 * 4 * 20 * pooled_size}
        steps.append(Step("train-bbox", ws.detector_folder(method, scales, row), files, trainval * per_image))
    if until == "detect":
        test = _voc_images(ws, "test")
        steps = ([] if detectors else steps) + [propose_step(ws, "test")]
        folder = ws.detections_folder(method, scales, row)
        steps.append(Step("detect", folder, {"detections.csv": test * 18_000}, test * per_image))
    return [*steps[:-1], steps[-1]._replace(out=out or steps[-1].out)]


def photo_step(
    ws: Workspace, detector: Path, scales: tuple[int, ...], paths: Sequence[Path], out: Path
) -> Step:
    """Detection in image files."""
    cost, _ = _feature_seconds(ws, read_description(detector).method, scales)
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
    if ws.network_run is not None:
        spec = load_spec(ws.network_run)
    elif is_own(ws.profile.arch):
        spec = NetworkSpec(ws.profile.arch, ws.profile.width, fc=ws.profile.fc, classes=1)
    else:
        spec = NetworkSpec(ws.profile.arch)
    features = ImageFeatures(SPPNet(spec), config.layers, config.view, config.size, ws.device)
    dimensions = features.dimensions()
    black = whole_image(np.zeros((*_SIZE[_embedded(ws)], 3), np.uint8), config.size, config.view)
    start = time.perf_counter()
    features(black)
    seconds = time.perf_counter() - start
    images = _transfer_images(ws, dataset, split, files)
    sizes = {layer_file(layer): 4 * images * length for layer, length in dimensions.items()}
    folder = out or features_folder(ws, config, set_name(dataset, split))
    step = Step("extract-features", folder, {**sizes, "index.csv": 60 * images}, images * seconds)
    return [*network_steps(ws, "spp6", TRAINING_SIZES, None), step]


def classifier_steps(
    ws: Workspace, dataset: Dataset, extract: ExtractConfig, config: ClassifierConfig, out: Path | None
) -> list[Step]:
    """Network, features and the SVMs of a transfer classifier."""
    steps = extract_steps(ws, extract, dataset, "trainval", (), None)
    images = _transfer_images(ws, dataset, "trainval", ())
    splits = config.splits.count if config.splits else 1
    classes = _TRANSFER_CLASSES[dataset]
    trained = config.splits.train * classes if config.splits else images
    numbers = splits * classes * steps[-1].files[layer_file(config.layer)] // max(images, 1)
    files = {"classifier.safetensors": numbers, "classifier.json": 6 * (splits - 1) * images + 1000}
    folder = classifier_folder(ws, dataset, extract, out)
    return [*steps, Step("train-svm", folder, files, splits * classes * trained**2 * _SVM_SECONDS)]


def transfer_steps(ws: Workspace, dataset: Dataset, column: Column, layers: tuple[str, ...]) -> list[Step]:
    """Network and features of a column of the transfer tables."""
    network = network_steps(ws, column.pyramid, column.sizes, None)
    extract = ExtractConfig(layers, column.view, column.size)
    steps = []
    for name in ("trainval", "test") if dataset == "VOC" else ("caltech101",):
        folder = features_of_column(ws, column, layers, name)
        steps.append(extract_steps(ws, extract, dataset, name, (), folder)[-1])
    return [*network, *steps]


def _embedded(ws: Workspace) -> bool:
    return ws.data is None and ws.profile.data is not None


def _data_steps(ws: Workspace) -> list[Step]:
    if ws.profile.data is None or (ws.data is not None and ws.imagenet is not None):
        return []
    size = ws.profile.data
    images = size.imagenet_train + size.imagenet_val + size.voc_trainval + size.voc_test
    return [Step("data", ws.mini_folder(), {"mini data": images * 22_000}, images * 6e-3)]


def _transfer_images(ws: Workspace, dataset: Dataset | None, split: str, files: Sequence[Path]) -> int:
    if dataset is None or not _embedded(ws) or ws.caltech is not None:
        return len(image_paths(ws, dataset, split, files))
    assert ws.profile.data is not None
    size = ws.profile.data
    images = {
        "VOC": size.voc_test if split == "test" else size.voc_trainval,
        "Caltech101": size.caltech_per_category * (len(CALTECH_CLASSES) + 1),
    }
    return min(images[dataset], ws.limit or images[dataset])


def _voc_images(ws: Workspace, split: str) -> int:
    if ws.data is None and ws.profile.data is not None:
        size = ws.profile.data
        count = size.voc_test if split == "test" else size.voc_trainval
        return min(count, ws.detection_limit(split) or count)
    return len(load_voc(ws.voc_data(), split, ws.limit))


def _feature_seconds(ws: Workspace, method: str, scales: tuple[int, ...]) -> tuple[FeatureTime, int]:
    """Time per image with as many windows as the test has, and the length of a pooled vector."""
    network = SPPNet(NetworkSpec(ws.profile.arch, ws.profile.width))
    extractor = make_extractor(method, network, ws.protocol, scales, ws.device)
    head = Head(network.pooled_size, ws.profile.fc, 21)
    height, width = _SIZE[_embedded(ws)]
    windows = ws.profile.test_windows
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    corners = rng.integers(0, 150, (windows, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, 100, (windows, 2))], axis=1).astype(
        np.float32
    )
    time_image(extractor, head, image, boxes[:2])
    return time_image(extractor, head, image, boxes), network.pooled_size


def _training_seconds(ws: Workspace, network: SPPNet, size: int) -> float:
    batch = min(ws.profile.recipe.batch, 32)
    network.to(ws.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    pixels = torch.zeros(batch, 3, size, size, device=ws.device)
    labels = torch.zeros(batch, dtype=torch.int64, device=ws.device)
    tally = Tally(torch.zeros((), device=ws.device), torch.zeros((), dtype=torch.int64, device=ws.device))
    amp = ws.profile.recipe.amp
    training_step(network, optimizer, pixels, labels, clip=None, amp=amp, tally=tally)
    start = time.perf_counter()
    training_step(network, optimizer, pixels, labels, clip=None, amp=amp, tally=tally)
    return (time.perf_counter() - start) * ws.profile.recipe.batch / batch


def _bytes(network: torch.nn.Module) -> int:
    return sum(4 * p.numel() for p in network.parameters())
