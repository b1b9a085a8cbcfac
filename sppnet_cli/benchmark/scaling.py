"""Benchmark of the cost of an image by number of windows, number of scales, size, and number of threads."""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from sppnet_cli.benchmark.detect import RCNN
from sppnet_cli.benchmark.images import benchmark_network, benchmark_windows, drawn_image
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.console import track
from sppnet_cli.evaluation.limits import float32_everywhere, gemm_gflops, in_threads, machine
from sppnet_cli.evaluation.timing import FeatureTime, time_image
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import PAPER, MappingRules, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPP = "spp"
AXES = {"windows": "windows", "scales": "scales", "short_side": "short side in pixels", "threads": "threads"}


@dataclass(frozen=True)
class ScalingConfig:
    """Settings; along the other axes, all windows at the middle scale in all threads."""

    windows: int = 1000
    scales: tuple[int, ...] = PAPER.scales
    rcnn_windows: int = 32  # that R-CNN is measured on
    repeats: int = 3
    seed: int = 0


class Point(NamedTuple):
    """What is measured at `value` of an axis."""

    axis: str
    value: int
    side: str
    extractor: Extractor
    windows: int
    threads: int


def benchmark_scaling(
    config: ScalingConfig, *, network: Path | None = None, device: str = "cpu"
) -> Benchmark:
    """Time the features of a drawn photograph of 375x500 along four axes, R-CNN's along the two that concern it.

    Args:
        config: how much is measured.
        network: a run of `sppnet pretrain`; without it, a full-width ZF-5 with random weights.
        device: where all sides run.
    """
    image = drawn_image(config.seed, 0)
    boxes = benchmark_windows(image, config.windows, config.seed)
    net, head = benchmark_network(network, config.seed, device)
    layer = Layer("fc7", head)
    points = _points(config, net, device)
    laps: list[list[FeatureTime]] = [[] for _ in points]
    sample = np.arange(min(config.rcnn_windows, *(point.windows for point in points)))
    with float32_everywhere():
        gemm = {}
        for threads in sorted({point.threads for point in points}):
            with in_threads(threads):
                gemm[threads] = gemm_gflops(device)
        turns = [k for _ in range(config.repeats + 1) for k in range(len(points))]
        for k in track(turns, "timing"):
            point = points[k]
            with in_threads(point.threads):
                laps[k].append(time_image(point.extractor, layer, image, boxes[: point.windows], sample))
    rows = []
    for point, of_point in zip(points, laps, strict=True):
        times = np.median([astuple(lap) for lap in of_point[1:]], axis=0)  # the first is a warm-up
        conv, pool, fc, _ = times.tolist()
        speed = point.extractor.conv_flops(image.shape[:2], point.windows) / conv / 1e9
        rows.append(
            {
                "axis": point.axis,
                "value": point.value,
                "side": point.side,
                "conv_seconds": conv,
                "pool_seconds": pool,
                "fc_seconds": fc,
                "total_seconds": conv + pool + fc,
                "conv_share_of_gemm": speed / gemm[point.threads],
            }
        )
    table = pd.DataFrame(rows)
    note = (
        f"Seconds of an image of 375x500; along the other axes, {config.windows} windows at {_middle(config)} px in "
        f"{torch.get_num_threads()} threads.  R-CNN was measured on {len(sample)} of the windows; all but its "
        "fc layers is scaled up."
    )
    record = {
        "points": rows,
        "gemm_gflops_by_threads": gemm,
        "precision": "float32",
        "threads": torch.get_num_threads(),
        "device": device,
        "windows": config.windows,
        "measured_windows": len(sample),
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": machine(device),
    }
    return Benchmark("scaling", record, table, note, _panels(table))


def _middle(config: ScalingConfig) -> int:
    return config.scales[len(config.scales) // 2]


def _points(config: ScalingConfig, network: SPPNet, device: str) -> list[Point]:
    mapping = take(MappingRules, PAPER)

    def spp(*scales: int) -> SppWindows:
        return SppWindows(network, mapping, scales, device)

    sides: dict[str, Extractor] = {
        SPP: spp(_middle(config)),
        RCNN: RcnnWindows(network, mapping, device=device),
    }
    n, most = config.windows, torch.get_num_threads()
    counts = sorted({max(1, n // part) for part in (8, 4, 2, 1)})
    threads = sorted({most, *(2**k for k in range(most.bit_length()) if 2**k < most)})
    return [
        *(Point("windows", k, side, extractor, k, most) for k in counts for side, extractor in sides.items()),
        *(
            Point("scales", k, SPP, spp(*config.scales[:k]), n, most)
            for k in range(1, len(config.scales) + 1)
        ),
        *(Point("short_side", scale, SPP, spp(scale), n, most) for scale in config.scales),
        *(Point("threads", k, side, extractor, n, k) for k in threads for side, extractor in sides.items()),
    ]


def _panels(table: pd.DataFrame) -> "Figure":
    """A panel per axis: SPP-net's total and its parts, and R-CNN's total."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, (axis, label) in zip(figure.subplots(2, 2).flat, AXES.items(), strict=True):
        of_axis = table[table["axis"] == axis]
        ours, theirs = (of_axis[of_axis["side"] == side] for side in (SPP, RCNN))
        for k, part in enumerate(("conv", "pool", "fc")):
            axes.plot(ours["value"], ours[f"{part}_seconds"], f"C{k}:", marker=".", label=f"SPP-net, {part}")
        axes.plot(ours["value"], ours["total_seconds"], "C3", marker="o", label="SPP-net")
        axes.plot(theirs["value"], theirs["total_seconds"], "C4", marker="o", label="R-CNN")
        axes.set(xlabel=label, ylabel="seconds per image", yscale="log")
        axes.set_xticks(sorted(set(of_axis["value"])))
        axes.grid(alpha=0.3)
        if axis == "windows":
            figure.legend(loc="outside lower center", ncols=5)
    return figure
