"""Benchmark of a chain of stages: the seconds of each, and the share of the arithmetic's limit that it reaches."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.chain import Resources, Stage
from sppnet_cli.evaluation.limits import float32_everywhere, gemm_gflops, in_threads, machine
from sppnet_cli.making import make
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import Workspace

_PROFILE = "mini"


@dataclass(frozen=True)
class StagesSpeed:
    """Settings: how much of `mini` is done, so that it ends in minutes."""

    epochs: int = 1  # of pre-training
    batches: int = 200  # of fine-tuning
    images: int = 24  # that detectors are trained on; half as many are tested
    seed: int = 0


def benchmark_stages(
    config: StagesSpeed,
    targets: Callable[[Workspace], Iterable[Stage]],
    *,
    device: str = "cpu",
    profile: str = _PROFILE,
) -> Benchmark:
    """Make all stages that `targets` asks a workspace for, one after another in a folder that is removed again.

    Each stage does all of its arithmetic: nothing is cached for the next.  A stage's share is its operations, as its own
    cost counts them, over its seconds and the speed of a matrix product by the quicker library, in the stage's threads.

    Args:
        config: how much of the profile is done.
        targets: the stages of a table.
        device: where they are made.
        profile: whose networks and thread numbers they have.
    """
    found = find_profile(profile)
    part = replace(
        found,
        recipe=replace(found.recipe, epochs=config.epochs),
        finetune=((1e-2, config.batches),),
        detection_images=(config.images, -(-config.images // 2)),
    )
    with tempfile.TemporaryDirectory() as folder:
        how = Resources(device=device, cache_gb=0)
        ws = Workspace(part, root=Path(folder), seed=config.seed, how=how)
        made = make(targets(ws), how).to_make
        seconds = [read_manifest(stage.folder)["seconds"] for stage in made]
        works = [stage.cost().flops for stage in made]
    limits = {threads: _gemm(threads, device) for threads in {stage.threads for stage in made}}
    rows = []
    for stage, taken, work in zip(made, seconds, works, strict=True):
        speed = work / taken / 1e9
        rows.append(
            {
                "stage": stage.folder.name.rpartition("-")[0],
                "seconds": taken,
                "gflops": work / 1e9,
                "gflops_per_second": speed if work else None,
                "share_of_gemm": speed / limits[stage.threads] if work else None,
            }
        )
    table = pd.DataFrame(rows)
    about = machine(device)
    record = {
        "stages": rows,
        "profile": profile,
        "epochs": config.epochs,
        "batches": config.batches,
        "images": config.images,
        "device": device,
        "seed": config.seed,
        "machine": about,
    }
    note = (
        f"Stages of a part of {profile} on {about.get('gpu', about['cpu'])}: {config.epochs} of "
        f"{found.recipe.epochs} epochs of pre-training, {config.batches} batches of fine-tuning, {config.images} images. "
        "share_of_gemm: of the speed of a matrix product in as many threads; nothing for stages without convolutions and "
        "fc layers, and for times of an image, which are a benchmark themselves.  Windows that share a vector count each, "
        "though they go through the layers once."
    )
    return Benchmark("stages", record, table, note)


def _gemm(threads: int | None, device: str) -> float:
    """10^9 operations per second of a matrix product in so many threads; None: in all."""
    with float32_everywhere(), in_threads(threads or torch.get_num_threads()):
        return gemm_gflops(device)
