"""Table 6: detection on VOC 2007 by SPP-net at one and five scales, and by R-CNN on the same weights.

    make reproduce-table6        (python -m experiments.table6 --profile mini)

Rows: mAP of SVMs on pool5, fc6, fine-tuned fc6 and fc7, and after box regression; then the time per image of the
convolutional and the fully connected layers, and the speed-up over R-CNN.  The three columns share the network
(e3 of Table 1: SPP-net6, single-size), the windows, the SVM and regression code, and the machine.

Cost: `mini` 18 minutes on two CPU cores and 2.2 GB of disk; `paper` two weeks of pre-training on the GPU of
its time, then about a day.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

from sppnet_cli import console
from sppnet_cli.cli import run
from sppnet_cli.cli.options import shared, show_plan
from sppnet_cli.data.proposals import image_seed, read_boxes, top_up
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.evaluation.timing import FeatureTime, time_extractors
from sppnet_cli.runs import environment
from sppnet_cli.stages.plan import Step, detection_steps
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import empty_like_published
from sppnet_cli.tables.write import write_table

LAYERS = ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb")


def columns(ws: Workspace) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The three columns: method and scales."""
    return {
        "spp_1scale": ("spp", (ws.protocol.single_scale,)),
        "spp_5scale": ("spp", ws.protocol.scales),
        "rcnn": ("rcnn", ()),
    }


def table6(ws: Workspace, results: Path, rcnn: str) -> pd.DataFrame:
    """Measure the table and write it to `results`; `rcnn` is "full", "timing" or "default" (the profile's)."""
    measured = empty_like_published(6)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[stage] = round(time.perf_counter() - start, 2)

    with timed("network"):
        ws.network()
    for split in ("trainval", "test"):
        with timed(f"proposals of {split}"):
            ws.proposals(split)

    # Accuracy.  A trunk without fc layers has no fc6 row; its ft rows come from new layers.
    with_rcnn_map = rcnn == "full" or (rcnn == "default" and ws.profile.rcnn_map)
    layers = [layer for layer in LAYERS if ws.has_head() or layer != "fc6"]
    ap: dict[str, dict[str, Any]] = {}
    for column, (method, scales) in columns(ws).items():
        if method == "rcnn" and not with_rcnn_map:
            continue
        for layer in layers:
            with timed(f"{column} {layer}"):
                score = ws.score(method, scales, layer)
            measured.loc[layer, column] = 100 * score.mean_ap
            ap.setdefault(column, {})[layer] = score.as_dict()["AP"]
            console.status(f"{column} {layer}: mAP {100 * score.mean_ap:.1f}")

    # Time, on the same images and windows for every column.
    with timed("timing"):
        times, n_images = time_columns(ws, with_rcnn_map)
    for column, mean in times.items():
        measured.loc["conv time (s)", column] = mean.conv
        measured.loc["fc time (s)", column] = mean.fc
        measured.loc["total time (s)", column] = mean.total
        if column != "rcnn":
            measured.loc["speedup vs R-CNN", column] = times["rcnn"].total / mean.total

    record = {
        "profile": ws.profile.name,
        "arch": ws.profile.arch,
        "protocol": ws.protocol.name,
        "proposals": ws.proposals_method,
        "seed": ws.seed,
        "limit": ws.limit,
        "images": {
            split: len(load_voc(ws.voc_data(), split, ws.detection_limit(split)))
            for split in ("trainval", "test")
        },
        "windows_per_image": {"trainval": ws.profile.train_windows, "test": ws.profile.test_windows},
        "timing": {
            "images": n_images,
            "windows": ws.profile.timing_windows,
            "preparation_seconds": {column: mean.preparation for column, mean in times.items()},
        },
        "AP": ap,
        "device": ws.device,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "environment": environment(),
        "notes": notes(ws, with_rcnn_map, n_images, times),
    }
    write_table(results, 6, measured, record)
    return measured


def time_columns(ws: Workspace, tuned_rcnn: bool) -> tuple[dict[str, FeatureTime], int]:
    """Mean feature times of the columns on random test images, each with exactly the same windows."""
    dataset = load_voc(ws.voc_data(), "test", ws.detection_limit("test"))
    rng = np.random.default_rng(ws.seed)
    ids = [dataset.ids[i] for i in np.sort(rng.permutation(len(dataset))[: ws.profile.timing_images])]
    images = [dataset.image(image_id) for image_id in ids]
    boxes = [
        top_up(
            read_boxes(ws.proposals("test") / "boxes" / f"{image_id}.npy"),
            ws.profile.timing_windows,
            image.shape[:2],
            image_seed(ws.seed, image_id),
        )
        for image_id, image in zip(ids, images, strict=True)
    ]
    extractors = {}
    for column, (method, scales) in columns(ws).items():
        # Weights do not change the time: without its own fine-tuning, R-CNN is timed with SPP-net's fc layers.
        source = (method, scales) if method == "spp" or tuned_rcnn else columns(ws)["spp_1scale"]
        detector = Detector.load(ws.detector(*source, "ftfc7"), ws.device)
        head = detector.head
        assert head is not None
        extractors[column] = (ws.extractor(method, scales), head)
    return time_extractors(extractors, images, boxes), len(images)


def plan(ws: Workspace) -> list[Step]:
    """The stages of all columns, for `--dry-run`."""
    steps = {}
    for method, scales in columns(ws).values():
        for step in detection_steps(ws, method, scales, "ftfc7 bb", "detect"):
            steps[step.out] = step
    return list(steps.values())


def notes(ws: Workspace, with_rcnn_map: bool, n_images: int, times: dict[str, FeatureTime]) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = [
        f"Profile {ws.profile.name}: {ws.profile.about}.",
        f"Times: mean of {n_images} images with {ws.profile.timing_windows} windows each, the same for every column "
        "(selective search's, topped up with random windows where it finds fewer); total = conv + fc. Beside them, "
        "in neither: "
        + ", ".join(
            f"{mean.preparation:.3g} s to prepare the input of {column}" for column, mean in times.items()
        )
        + ", proposals, SVM scoring and NMS.",
        "R-CNN is measured here on the same weights, windows and machine; the published column is AlexNet's.",
        "R-CNN fine-tunes the fc layers only, on pooled features.",
    ]
    if ws.limit is not None:
        lines.append(f"A quick look: the first {ws.limit} images of either split.")
    if not with_rcnn_map:
        lines.append("R-CNN's mAP was not measured; ask for it with RCNN=full.")
    if not ws.has_head():
        lines.append(
            f"{ws.profile.arch} has no fc6 and fc7: ftfc6, ftfc7 and bb come from {ws.profile.fc}-d fc layers "
            "initialised N(0, .01) and trained by fine-tuning alone."
        )
    return lines


@click.command(help=(__doc__ or "").split("\n")[0])
@shared
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), help="Where tables go.")
@click.option(
    "--imagenet", type=click.Path(path_type=Path), help="ImageNet, for a profile that trains on it."
)
@click.option(
    "--rcnn",
    type=click.Choice(["default", "timing", "full"]),
    default="default",
    help="Whether R-CNN's mAP is measured too.",
)
def command(
    ws: Workspace,
    *,
    imagenet: Path | None,
    results: Path,
    rcnn: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure Table 6, write it and print it."""
    folder = out or results / ws.profile.name
    ws = replace(ws, imagenet=imagenet)
    if dry_run:
        show_plan(plan(ws), ws, as_json)
        return
    measured = table6(ws, folder, rcnn)
    rows = [(label, *(format_cell(v) for v in values)) for label, *values in measured.itertuples()]
    console.table(f"Table 6 ({ws.profile.name})", ["row", *measured.columns], rows)
    console.status(f"written to {folder}/table6.csv, .md, .tex and .json")


def format_cell(value: float) -> str:
    """Three significant digits, empty where nothing was measured."""
    return "" if np.isnan(value) else f"{value:.3g}"


if __name__ == "__main__":
    run(command)
