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
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import make_extractor, read_description
from sppnet_cli.evaluation.timing import FeatureTime, time_image
from sppnet_cli.learning.pretrain import training_step
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.runs import MANIFEST
from sppnet_cli.stages.workspace import PYRAMIDS, Workspace

_SEARCH_SECONDS = 4.5e-6  # of selective search, per pixel
_SIZE = {True: (265, 335), False: (375, 500)}  # typical height and width, mini or VOC
_CLASSES = {True: 20, False: 1000}


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
    if profile.arch != "zf5":
        network = SPPNet(NetworkSpec(profile.arch))
        return [Step("backbone", target, {"network.safetensors": _bytes(network)}, 5.0)]
    embedded = ws.imagenet is None and profile.data is not None
    spec = NetworkSpec("zf5", profile.width, PYRAMIDS[pyramid], profile.fc, _CLASSES[embedded])
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
        "metrics.jsonl": 80 * profile.recipe.epochs,
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
    detector: Path | None = None,
) -> list[Step]:
    """All stages up to `until` (finetune, train-svm, train-bbox or detect), which goes to `out`.

    With a `detector` those before `detect` are left out.
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
        seconds = trainval * (1 + profile.flip) * per_image + batches * 2e-9 * head_bytes
        files["head.safetensors"] = head_bytes
        steps.append(
            Step("finetune", ws.head_folder(method, scales), {"head.safetensors": head_bytes}, seconds)
        )
    if until != "finetune":
        steps.append(
            Step("train-svm", ws.detector_folder(method, scales, layer), files, 2 * trainval * per_image)
        )
    if row.endswith(" bb") and until != "finetune":
        files = {**files, "bbox.safetensors": 4 * 4 * 20 * pooled_size}
        steps.append(Step("train-bbox", ws.detector_folder(method, scales, row), files, trainval * per_image))
    if until == "detect":
        test = _voc_images(ws, "test")
        steps = ([] if detector else steps) + [propose_step(ws, "test")]
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
    ws: Workspace, images: int | None, split: str, layer: str, size: int, out: Path
) -> list[Step]:
    """Network and features of whole images; without a number of `images`, those of a VOC split."""
    count = _voc_images(ws, split) if images is None else images
    cost, pooled_size = _feature_seconds(ws, "spp", (size,))
    bins = {"SPP pool5": pooled_size, "pool5": pooled_size * 36 // 50}
    files = {"features.npy": 4 * count * bins.get(layer, ws.profile.fc), "index.csv": 60 * count}
    return [*network_steps(ws, "spp6", (224,), None), Step("extract-features", out, files, count * cost.conv)]


def _embedded(ws: Workspace) -> bool:
    return ws.data is None and ws.profile.data is not None


def _data_steps(ws: Workspace) -> list[Step]:
    if ws.profile.data is None or (ws.data is not None and ws.imagenet is not None):
        return []
    size = ws.profile.data
    images = size.imagenet_train + size.imagenet_val + size.voc_trainval + size.voc_test
    return [Step("data", ws.mini_folder(), {"mini data": images * 22_000}, images * 6e-3)]


def _voc_images(ws: Workspace, split: str) -> int:
    if ws.data is None and ws.profile.data is not None:
        size = ws.profile.data
        count = size.voc_test if split == "test" else size.voc_trainval
        return min(count, ws.limit) if ws.limit else count
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
    training_step(network, optimizer, pixels, labels, None)
    start = time.perf_counter()
    training_step(network, optimizer, pixels, labels, None)
    return (time.perf_counter() - start) * ws.profile.recipe.batch / batch


def _bytes(network: torch.nn.Module) -> int:
    return sum(4 * p.numel() for p in network.parameters())
