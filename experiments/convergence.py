"""Section 2.3's remark: multi-size training converges as single-size training does.

    make convergence        (python -m experiments.convergence --profile mini)

A picture, `convergence.png`, and its numbers, `convergence.csv`, from the metrics of the two trainings of Table 1
(e3 and e4): the error while training and on the centre crops of the validation set, by epoch.

Cost: seconds beyond those two networks.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import click
import pandas as pd

from experiments.runner import Written, own_options, tables_folder
from sppnet_cli.atomic import atomic_path, write_text
from sppnet_cli.cli import run
from sppnet_cli.cli.options import PATH, option, shared, show_plan
from sppnet_cli.learning.pretrain import METRICS
from sppnet_cli.stages.plan import network_steps
from sppnet_cli.stages.workspace import Workspace

TRAININGS = {"single-size": (224,), "multi-size": (224, 180)}


def convergence(ws: Workspace) -> pd.DataFrame:
    """A row per training and epoch: size, loss, errors (fractions), learning rate."""
    frames = []
    for training, sizes in TRAININGS.items():
        lines = (ws.network("spp6", sizes) / METRICS).read_text().splitlines()
        frames.append(pd.DataFrame(map(json.loads, lines)).assign(training=training))
    table = pd.concat(frames, ignore_index=True)
    errors = [column for column in ("train_top1_error", "val_top1_error") if column in table]
    return table[["training", "epoch", "size", "loss", *errors, "rate"]]


def picture(table: pd.DataFrame, path: Path) -> None:
    """The errors of both trainings by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for (training, rows), colour in zip(table.groupby("training", sort=False), ("C0", "C1"), strict=True):
        axes.plot(
            rows["epoch"],
            100 * rows["train_top1_error"],
            f"{colour}:",
            marker=".",
            label=f"{training}, training",
        )
        if "val_top1_error" in rows:
            axes.plot(
                rows["epoch"],
                100 * rows["val_top1_error"],
                colour,
                marker=".",
                label=f"{training}, validation",
            )
    axes.set(xlabel="epoch", ylabel="top-1 error (%)", title="Single- and multi-size training")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


@click.command(help=(__doc__ or "").split("\n")[0])
@shared
@option("--results", type=PATH, default=Path("results"), help="Where tables go.")
@option("--imagenet", type=PATH, help="ImageNet, for a profile that trains on it.")
def command(
    ws: Workspace, *, results: Path, imagenet: Path | None, out: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Train both networks and draw how they converge."""
    ws = replace(ws, imagenet=imagenet)
    folder = tables_folder(ws, results, out)
    start = time.perf_counter()
    with own_options(ws):
        if dry_run:
            steps = [step for sizes in TRAININGS.values() for step in network_steps(ws, "spp6", sizes, None)]
            show_plan(steps, ws, as_json)
            return
        table = convergence(ws)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "convergence.csv", folder / "convergence.png"]
    write_text(files[0], table.to_csv(index=False))
    picture(table, files[1])
    Written("convergence", table.filter(like="error"), files).tell(as_json, time.perf_counter() - start)


if __name__ == "__main__":
    run(command)
