"""Benchmark of detection: SPP-net at one and five scales, exact and fast, against R-CNN, stage by stage."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sppnet_cli.benchmark.bare import bare_seconds
from sppnet_cli.benchmark.images import benchmark_images, benchmark_network, benchmark_windows, window_source
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.console import status, track
from sppnet_cli.data.proposals import METHODS, can_propose, propose
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.fast import FastOptions, fast_options
from sppnet_cli.detection.nms import nms, select_per_class
from sppnet_cli.evaluation.limits import float32_everywhere, gemm_gflops, machine, write_bandwidth
from sppnet_cli.evaluation.timing import FeatureTime, take_turns, time_image
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.names import FC_LAYERS
from sppnet_cli.network.flops import flops
from sppnet_cli.network.low_rank import Axes
from sppnet_cli.network.precision import DTYPES, Precision
from sppnet_cli.network.sppnet import Head, SPPNet
from sppnet_cli.protocols import PAPER, MappingRules, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]

RCNN, FAST = "rcnn", "_fast"
PARTS = ("conv", "pool", "fc")
_CLASSES = 20  # of the heads, as many as VOC has
_PASSING = 0.1  # share of the windows that score above the threshold of a class


@dataclass(frozen=True)
class DetectSpeed:
    """Settings."""

    images: int = 1
    windows: int = 2000  # per image
    rcnn_windows: int | None = 128  # that R-CNN is measured on; None: all
    repeats: int = 3
    seed: int = 0
    precision: Precision = "fp32"


class Side(NamedTuple):
    """A contender: from an image and its windows to pooled vectors, and from there to fc7."""

    extractor: Extractor
    detector: Detector

    def layers(self, pooled: Tensor) -> Tensor:
        """fc7 of those vectors `(N, D)` that go through the fc layers."""
        passed = self.detector.promising(pooled)
        return self.detector.layer(pooled if passed is None else pooled[passed])


def contenders(network: SPPNet, head: Head, config: DetectSpeed, device: str) -> dict[str, Side]:
    """The sides by name; all have the same weights, precision, threads, images and windows.

    Those that end in `_fast` do what `sppnet detect --fast` does; R-CNN has no cascade.
    """
    fast = fast_options("fc7", head)
    mapping = take(MappingRules, PAPER)
    windows: dict[str, Extractor] = {
        "spp_1scale": SppWindows(network, mapping, (PAPER.single_scale,), device, config.precision),
        "spp_5scale": SppWindows(network, mapping, PAPER.scales, device, config.precision),
        RCNN: RcnnWindows(network, mapping, (), device, config.precision),
    }
    generator = np.random.default_rng(config.seed)

    def svms(width: int) -> Svms:
        weights = generator.normal(size=(_CLASSES, width)).astype(np.float32)
        return Svms(weights, np.zeros(_CLASSES, np.float32), 1.0)

    names = tuple(f"class {k}" for k in range(_CLASSES))
    scores = svms(head.fc7.out_features)
    axes = {
        name: Axes(
            torch.from_numpy(_orthonormal(generator, head.fc7.out_features, rank)), linear.bias.detach().cpu()
        )
        for name, linear, rank in zip(FC_LAYERS, (head.fc6, head.fc7), fast.fc_rank, strict=False)
    }
    shortcuts = Shortcuts(svms(network.pooled_size), axes)
    sides = {
        name: Side(extractor, Detector(extractor, "fc7", names, scores, head=head))
        for name, extractor in windows.items()
    }
    for name, extractor in windows.items():
        options = fast if extractor.cascade else FastOptions(fast.fc_rank)
        quick = Detector(extractor, "fc7", names, scores, head=head, shortcuts=shortcuts, fast=options)
        sides[name + FAST] = Side(extractor, quick)
    order = ["spp_1scale", "spp_5scale", f"spp_1scale{FAST}", f"spp_5scale{FAST}", RCNN, RCNN + FAST]
    return {name: sides[name] for name in order}


@dataclass(frozen=True)
class Workload:
    """What all sides compute."""

    config: DetectSpeed
    images: Sequence[Image]
    boxes: Sequence[Boxes]  # of each image
    network: SPPNet
    head: Head
    device: str

    @property
    def sample(self) -> NDArray[np.intp]:
        """The windows, evenly over an image's, that R-CNN is measured on."""
        windows = self.config.windows
        count = min(self.config.rcnn_windows or windows, windows)
        return np.linspace(0, windows - 1, count).round().astype(np.intp)


class Limits(NamedTuple):
    """What the machine can do."""

    gemm: float  # GFLOP/s of a matrix product, by the quicker library
    bandwidth: float  # bytes a second that are written


def benchmark_detect(
    config: DetectSpeed, *, data: Path | None = None, network: Path | None = None, device: str = "cpu"
) -> Benchmark:
    """Time the features of an image's windows, and beside them the heads and the proposals.

    Seconds are per image: the median over the repeats, then the mean over the images.

    Args:
        config: how much is measured.
        data: VOC or a folder of images; without it, drawn photographs of 375x500.
        network: a run of `sppnet pretrain`; without it, a full-width ZF-5 with random weights.
        device: where all sides run.
    """
    images = benchmark_images(data, config.images, config.seed)
    status("proposals")
    boxes = [benchmark_windows(image, config.windows, config.seed) for image in images]
    work = Workload(config, images, boxes, *benchmark_network(network, config.seed, device), device)
    sides = contenders(work.network, work.head, config, device)
    dtype = DTYPES[config.precision]
    with float32_everywhere():
        gemm = gemm_gflops(device, dtype=dtype)
        limits = Limits(gemm, write_bandwidth(_vector_bytes(work), device))
        times = _time(sides, work)
        heads = _head_seconds(work)
        bare = {name: _bare_seconds(sides[name], work) for name in ("spp_1scale", "spp_5scale")}
    proposals = _proposals(images[0], config)
    about = machine(device)
    processor = about.get("gpu", about["cpu"])
    library = about["linear_library"] if device == "cpu" and dtype == torch.float32 else "torch"
    columns = {
        name: _column(side, times[name], work, limits) | {"fc_library": library, "processor": processor}
        for name, side in sides.items()
    }
    _compare(columns, work, limits)
    for name, seconds in bare.items():
        columns[name] |= {"bare_seconds": seconds, "times_bare": columns[name]["total_seconds"] / seconds}
    record = columns | {
        "heads_seconds": heads,
        "proposals": proposals,
        "windows_from": window_source(),
        "gemm_gflops": limits.gemm,
        "write_gigabytes_per_second": limits.bandwidth / 1e9,
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "device": device,
        "images": len(images),
        "image_sizes": [list(image.shape[:2]) for image in images],
        "network": str(network) if network else "zf5, random weights",
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": about,
    }
    table = pd.DataFrame([{"side": name, **column} for name, column in columns.items()])
    return Benchmark("detect", record, table, _note(record, work), _bars(columns))


def _vector_bytes(work: Workload) -> int:
    """Size of the pyramid vectors of an image's windows."""
    return DTYPES[work.config.precision].itemsize * work.config.windows * work.network.pooled_size


def _column(side: Side, times: list[float], work: Workload, limits: Limits) -> dict[str, Any]:
    """Seconds and operations of a side, and how they compare with the machine's limits."""
    conv, pool, fc, preparation = times
    windows = work.config.windows
    conv_flops = float(
        np.mean([side.extractor.conv_flops(image.shape[:2], windows) for image in work.images])
    )
    distinct, passed, fc_flops = np.mean(
        [_fc_work(side, *each) for each in zip(work.images, work.boxes, strict=True)], axis=0
    ).tolist()
    return {
        "conv_seconds": conv,
        "pool_seconds": pool,
        "fc_seconds": fc,
        "total_seconds": conv + pool + fc,
        "preparation_seconds": preparation,
        "windows": windows,
        "measured_windows": len(work.sample) if side.extractor.per_window else windows,
        "distinct_windows": distinct,
        "fc_windows": passed,
        "conv_flops": conv_flops,
        "conv_gflops_per_second": conv_flops / conv / 1e9,
        "conv_share_of_gemm": conv_flops / conv / 1e9 / limits.gemm,
        "pool_share_of_write": _vector_bytes(work) / limits.bandwidth / pool,
        "fc_flops": fc_flops,
        "fc_share_of_gemm": fc_flops / fc / 1e9 / limits.gemm,
    }


def _compare(columns: dict[str, dict[str, Any]], work: Workload, limits: Limits) -> None:
    """Add SPP-net's speed-ups over R-CNN, fast sides over fast R-CNN, and over the time of the bare arithmetic."""
    fc_flops = flops(
        nn.Sequential(work.head.fc6, work.head.fc7), (work.config.windows, work.network.pooled_size)
    )
    for name, ours in columns.items():
        theirs = columns[RCNN + FAST if name.endswith(FAST) else RCNN]
        if ours is not theirs:
            floor = (ours["conv_flops"] + fc_flops) / (limits.gemm * 1e9)
            ours |= {
                "conv_speedup_vs_rcnn": theirs["conv_seconds"] / ours["conv_seconds"],
                "conv_flops_ratio": theirs["conv_flops"] / ours["conv_flops"],
                "speedup_vs_rcnn": theirs["total_seconds"] / ours["total_seconds"],
                "flops_ratio": (theirs["conv_flops"] + theirs["fc_flops"])
                / (ours["conv_flops"] + ours["fc_flops"]),
                "times_gemm_floor": ours["total_seconds"] / floor,
            }


def _note(record: dict[str, Any], work: Workload) -> str:
    windows, measured = work.config.windows, len(work.sample)
    proposals = ", ".join(f"{name} {each['seconds']:.3g} s" for name, each in record["proposals"].items())
    note = (
        f"Seconds per image of {windows} windows on {record[RCNN]['processor']}; total = conv + pool + fc.  The floor is "
        "the arithmetic of the convolutions and of the whole fc layers for all windows, at the speed of a matrix product "
        f"({record['gemm_gflops']:.0f} GFLOP/s, by the quicker library); `times_bare` compares with the same convolutions and products alone.  Fast sides are compared with R-CNN with the same "
        f"low-rank fc layers.  Every side takes another {record['heads_seconds']:.3g} s for the heads (SVM scores of "
        f"{_CLASSES} classes, NMS, box regression)"
        + (
            f", and the proposals ({proposals})."
            if proposals
            else "; windows are random, since OpenCV has no ximgproc."
        )
    )
    if measured < windows:
        note += (
            f"  R-CNN was measured on {measured} of the windows: its conv and pool seconds are scaled to all {windows}; "
            "its fc layers ran on all."
        )
    return note


def _orthonormal(generator: np.random.Generator, length: int, count: int) -> NDArray[np.float32]:
    return np.linalg.qr(generator.normal(size=(length, count)).astype(np.float32))[0]


@torch.inference_mode()
def _fc_work(side: Side, image: Image, boxes: Boxes) -> tuple[int, int, int]:
    """Of an image: distinct vectors of windows, those that go through the fc layers, and the operations of these layers."""
    extractor, head = side.extractor, side.detector.layer.head
    assert head is not None
    distinct = len(extractor.distinct(extractor.prepare(image), boxes).first)
    passed = side.detector.passing(distinct)
    work = flops(nn.Sequential(head.fc6, head.fc7), (passed, extractor.network.pooled_size))
    return distinct, passed, work


def _time(sides: dict[str, Side], work: Workload) -> dict[str, list[float]]:
    """conv, pool, fc and preparation seconds of each side.

    The sides take turns, and each measurement follows an untimed call of the same side, so that no side pays for what
    another left in the caches.
    """

    sample = work.sample

    def time_side(name: str, index: int) -> FeatureTime:
        side = sides[name]
        return time_image(side.extractor, side.layers, work.images[index], work.boxes[index], sample)

    laps: dict[str, list[list[FeatureTime]]] = {name: [[] for _ in work.images] for name in sides}
    repeats = range(work.config.repeats)
    turns = [(k, name) for k in range(len(work.images)) for _ in repeats for name in sides]
    for k, name in track(turns, "timing"):
        time_side(name, k)
        laps[name][k].append(time_side(name, k))
    return {
        name: np.mean(
            [np.median([astuple(lap) for lap in of_image], axis=0) for of_image in of_side], axis=0
        ).tolist()
        for name, of_side in laps.items()
    }


def _bare_seconds(side: Side, work: Workload) -> float:
    """Seconds an image of the same convolutions and products of matrices alone."""
    seconds = []
    for image, boxes in zip(work.images, work.boxes, strict=True):
        vectors = _fc_work(side, image, boxes)[0]
        seconds.append(bare_seconds(side.extractor, work.head, image, vectors, work.config.repeats))
    return float(np.mean(seconds))


@torch.inference_mode()
def _head_seconds(work: Workload) -> float:
    """Seconds from the features of an image's windows to its detections; weights and features are random."""
    boxes, size = work.boxes[0], work.images[0].shape[:2]
    generator = torch.Generator().manual_seed(work.config.seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(work.device)

    pooled = random(len(boxes), work.network.pooled_size).relu()
    fc7 = random(len(boxes), work.head.fc7.out_features).relu()
    weights = random(_CLASSES, fc7.shape[1])
    bias = PAPER.score_threshold - (fc7 @ weights.T).quantile(1 - _PASSING, dim=0)
    shape = (_CLASSES, work.network.pooled_size, 4)
    regressors = BoxRegressors(np.zeros(shape, np.float32), np.zeros((_CLASSES, 4), np.float32), 1.0)

    def detections() -> None:
        scores = torch.addmm(bias, fc7, weights.T).cpu().numpy()
        selected = select_per_class(
            boxes,
            scores,
            score_threshold=PAPER.score_threshold,
            iou=PAPER.nms_iou,
            ties=PAPER.nms_ties,
            max_per_image=PAPER.max_per_image,
        )
        for label, rows in enumerate(selected):
            vectors = pooled[torch.from_numpy(rows)].cpu().numpy()
            moved = regressors(vectors, boxes[rows], label, size)
            nms(moved, scores[rows, label], PAPER.nms_iou, PAPER.nms_ties)

    return take_turns({"heads": detections}, work.config.repeats, work.device)["heads"]


def _proposals(image: Image, config: DetectSpeed) -> dict[str, dict[str, float]]:
    """Seconds and windows of every method on one image; nothing where OpenCV has none of them."""
    methods = METHODS if can_propose() else ()
    calls = {method: partial(propose, image, method, config.seed) for method in methods}
    seconds = take_turns(calls, config.repeats)
    return {method: {"seconds": seconds[method], "windows": len(call())} for method, call in calls.items()}


def _bars(columns: dict[str, dict[str, Any]]) -> "Figure":
    """Stacked bars of the parts, of all sides and of SPP-net's alone, which are short beside R-CNN's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    alone = [name for name in columns if not name.startswith(RCNN)]
    for axes, names in zip(figure.subplots(1, 2), (list(columns), alone), strict=True):
        left = np.zeros(len(names))
        for part in PARTS:
            seconds = np.array([columns[name][f"{part}_seconds"] for name in names])
            axes.barh(names, seconds, left=left, label=part)
            left += seconds
        axes.invert_yaxis()
        axes.set_xlabel("seconds per image")
        axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.suptitle(f"Features of {columns[RCNN]['windows']} windows")
    return figure
