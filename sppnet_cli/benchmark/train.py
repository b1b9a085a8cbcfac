"""Benchmark of what people would take instead of `sppnet train`: torchvision's Faster R-CNN, for the same time and longer."""

import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sppnet_cli.benchmark.faster_rcnn import Recipe, detections, faster_rcnn, train_for
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import SppnetError
from sppnet_cli.evaluation.bootstrap import interval
from sppnet_cli.evaluation.limits import machine
from sppnet_cli.stages.score_detections import DetectionScore, read_detections, score_frame

OURS = "sppnet train"


@dataclass(frozen=True)
class TrainSpeed:
    """Settings."""

    arch: str = "squeezenet1_1"
    weights: str = "DEFAULT"  # or a file
    times: tuple[int, ...] = (1, 2, 4)  # as much processor time as `sppnet train` took
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Ours:
    """What `sppnet train` took and found, its test included."""

    processor_seconds: float
    wall_seconds: float
    detections: pd.DataFrame


def benchmark_train(config: TrainSpeed, data: Path) -> Benchmark:
    """Train both detectors on the trainval part of a VOC set and test them on its test part, by VOC 2007's AP.

    Both compute on the CPU.  `sppnet train` runs first, in a fresh folder, from proposals to calibration and test; its
    processor time, that of all its processes, is what the other side trains for, so that a machine that is busy
    otherwise favours no side.  The other side's test is not counted.
    Raises `SppnetError` where `sppnet train` fails.
    """
    return compare(config, data, run_ours(config, data))


def run_ours(config: TrainSpeed, data: Path) -> Ours:
    """Call `sppnet train` as a user does.  Raises `SppnetError` where it fails; it has said why."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        call = [sys.executable, "-m", "sppnet_cli", "train", str(data), "--arch", config.arch]
        call += ["--weights", config.weights, "--device", "cpu", "--seed", str(config.seed)]
        call += ["--runs", str(runs), "--out", str(Path(folder) / "detector"), "--json"]
        start, before = time.perf_counter(), _of_children()
        done = subprocess.run(call, stdout=subprocess.PIPE, check=False)
        seconds = _of_children() - before, time.perf_counter() - start
        if done.returncode:
            raise SppnetError(f"`sppnet train {data}` failed, so there is nothing to compare with")
        (found,) = runs.glob("*/detections-detector-test-*")
        return Ours(*seconds, read_detections(found, load_voc(data, "test"))[0])


def compare(config: TrainSpeed, data: Path, ours: Ours) -> Benchmark:
    """Train the other side beside what ours has found."""
    learnt, tested = load_voc(data, "trainval"), load_voc(data, "test")
    columns = {OURS: _column(score_frame(ours.detections, tested), ours.processor_seconds, ours.wall_seconds)}
    torch.manual_seed(config.seed)
    model = faster_rcnn(config.arch, config.weights, len(learnt.class_names), config.recipe)
    budgets = [k * ours.processor_seconds for k in config.times]
    for k, each in zip(
        config.times, train_for(model, learnt, budgets, config.recipe, config.seed), strict=True
    ):
        score = score_frame(detections(each.model, tested), tested)
        epochs = each.steps * config.recipe.batch / len(learnt)
        columns[f"Faster R-CNN, {k}x"] = _column(
            score, each.processor_seconds, each.wall_seconds, epochs=epochs
        )
    record = {
        "sides": columns,
        "images": {"trainval": len(learnt), "test": len(tested)},
        "arch": config.arch,
        "recipe": asdict(config.recipe),
        "seed": config.seed,
        "machine": machine(),
    }
    table = pd.DataFrame(
        [{"side": name} | {k: v for k, v in each.items() if k != "AP"} for name, each in columns.items()]
    )
    note = (
        f"mAP: VOC 2007, 11 points, with a 95% interval from resampled test images, as fractions.  Both sides learn from the "
        f"same {len(learnt)} images on the trunk of {config.arch} with the same weights, on the CPU of "
        f"{record['machine']['cpu']}; the times of Faster R-CNN are multiples of the processor time of {OURS}."  # type: ignore[index]
    )
    return Benchmark("train", record, table, note)


def _column(
    score: DetectionScore, processor: float, wall: float, epochs: float | None = None
) -> dict[str, Any]:
    outcome = score.outcome
    ends = [float(end) for end in interval(outcome.resampled, outcome.strata)]
    low, high = (None if math.isnan(end) else end for end in ends)
    plain = score.as_dict()
    return {
        "processor_seconds": processor,
        "wall_seconds": wall,
        "epochs": epochs,
        "mAP": plain["mAP"],
        "low": low,
        "high": high,
        "AP": plain["AP"],
    }


def _of_children() -> float:
    """Processor seconds of the processes that this one started, and theirs, which have ended."""
    times = os.times()
    return times.children_user + times.children_system
