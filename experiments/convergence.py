"""Section 2.3's remark: multi-size training converges like single-size training.

    make convergence        (sppnet reproduce convergence --profile mini)

A figure, `convergence.png`, and its numbers, `convergence.csv`, from the metrics of two networks of Table 1 (e3 and
e4): the training error, and the error on the centre crops of the validation set, by epoch.

Cost: seconds beyond those two networks.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli.atomic import atomic_path, write_text
from sppnet_cli.learning.pretrain import EpochMetrics, read_metrics
from sppnet_cli.stages.workspace import MULTI_SIZE, SINGLE_SIZE, Workspace

from .runner import BySeed, Experiment, Measured, Steps, Written

TRAININGS = {"single-size": SINGLE_SIZE, "multi-size": MULTI_SIZE}
FILES = ("convergence.csv", "convergence.png")


def convergence(ws: Workspace) -> Steps:
    """A row per training and epoch: size, loss, errors (fractions), learning rate."""
    networks = {training: ws.trained_network("spp6", sizes) for training, sizes in TRAININGS.items()}
    yield [*networks.values()]

    frames = []
    for training, made in networks.items():
        frames.append(
            pd.DataFrame(map(EpochMetrics.as_dict, read_metrics(made.folder))).assign(training=training)
        )
    table = pd.concat(frames, ignore_index=True)
    errors = [column for column in ("train_top1_error", "val_top1_error") if column in table]
    return Measured(more={"epochs": table[["training", "epoch", "size", "loss", *errors, "rate"]]})


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


def write(by_seed: BySeed, _about: dict[str, Any], ws: Workspace, folder: Path) -> Written:
    """Write the table and the figure of the first seed."""
    table = by_seed[ws.seed].more["epochs"]
    files = [folder / name for name in FILES]
    write_text(files[0], table.to_csv(index=False))
    picture(table, files[1])
    return Written("convergence", table.filter(like="error"), files)


EXPERIMENT = Experiment("convergence", (__doc__ or "").split("\n")[0], convergence, write, FILES)
