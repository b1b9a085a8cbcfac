"""Sections 3.2 and 3.3: the scale of whole images, chosen on VOC's val half, and on Caltech101.

    make ablation-scale        (python -m experiments.scale --profile mini)

The short side varies; SVMs are trained on VOC's train half and tested on its val half (the paper found 392 best there,
since VOC's objects are smaller in their images than ImageNet's), and on Caltech101's splits (224 best).  The test half
of VOC is not looked at.  `sppnet train-svm --task classification --size val` makes the same choice.

Cost: `mini` five minutes beyond the multi-size network of Table 1.
"""

import pandas as pd

from experiments.runner import Measured, small_table
from experiments.table3 import backbone_notes
from sppnet_cli.cli import run
from sppnet_cli.learning.image_svm import Dataset
from sppnet_cli.stages.columns import SWEEP, Column, layer_scores
from sppnet_cli.stages.plan import Step, transfer_steps
from sppnet_cli.stages.workspace import Workspace

LISTS = {"train": "train", "test": "val"}  # of VOC


def layers(ws: Workspace) -> dict[str, tuple[Dataset, str]]:
    """Data set and layer of the columns: those of Table 5."""
    return {
        "voc2007_val_map": ("VOC", "fc7" if ws.has_head() else "SPP pool5"),
        "caltech101_accuracy": ("Caltech101", "SPP pool5"),
    }


def scale(ws: Workspace) -> Measured:
    """mAPs and accuracies of one seed by the short side."""
    measured = Measured(notes=backbone_notes(ws))
    for name, (dataset, layer) in layers(ws).items():
        for size in SWEEP:
            column = Column("spp6", "full", size)
            score = layer_scores(ws, dataset, column, (layer,), **LISTS)[layer]
            measured.outcomes[size, name] = score.outcome
            measured.images[dataset] = score.outcome.images
        measured.notes.append(f"{name}: {layer}.")
    return measured


def published() -> pd.DataFrame:
    """The paper prints no such table."""
    return pd.DataFrame(
        float("nan"),
        index=pd.Index(SWEEP, name="short_side"),
        columns=["voc2007_val_map", "caltech101_accuracy"],
    )


def plan(ws: Workspace) -> list[Step]:
    """Network and features."""
    return [
        step
        for dataset, layer in layers(ws).values()
        for size in SWEEP
        for step in transfer_steps(ws, dataset, Column("spp6", "full", size), (layer,), **LISTS)
    ]


command = small_table("scale", (__doc__ or "").split("\n")[0], published, scale, plan)

if __name__ == "__main__":
    run(command)
