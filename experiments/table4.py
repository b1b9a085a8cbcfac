"""Table 4: classification of Caltech101 by SVMs on features of whole images, by layer, network and view.

    make reproduce-table4        (python -m experiments.table4 --profile mini)

As Table 3, on ten random splits of 30 training and up to 50 test images a category: the mean over the splits of the
mean accuracy of the categories.

Cost: `mini` two minutes beyond the networks of Table 1; `paper` an hour on a GPU beyond them, 12 GB of disk.
"""

from experiments.runner import Measured, experiment
from experiments.table3 import backbone_notes, layers_of
from sppnet_cli.cli import run
from sppnet_cli.stages.columns import Column, layer_scores
from sppnet_cli.stages.plan import Step, transfer_steps
from sppnet_cli.stages.workspace import Workspace

COLUMNS = {
    "plain_crop224": Column("plain", "crop", 224),
    "spp_crop224": Column("spp6", "crop", 224),
    "spp_full224": Column("spp6", "full", 224),
}


def table4(ws: Workspace) -> Measured:
    """Caltech101 accuracies of one seed."""
    measured = Measured(notes=backbone_notes(ws))
    for name, column in COLUMNS.items():
        layers = layers_of(4, name, ws)
        scores = layer_scores(ws, "Caltech101", column, tuple(layers.values()))
        for row, layer in layers.items():
            measured.outcomes[row, name] = scores[layer].outcome
            measured.images = {"caltech101": scores[layer].outcome.images}
    splits = ws.profile.splits
    measured.notes.append(
        f"{splits.count} random splits of {splits.train} training and up to {splits.test} test images a category."
    )
    return measured


def plan(ws: Workspace) -> list[Step]:
    """Networks and features."""
    return [
        step
        for name, column in COLUMNS.items()
        for step in transfer_steps(ws, "Caltech101", column, tuple(layers_of(4, name, ws).values()))
    ]


command = experiment(4, (__doc__ or "").split("\n")[0], table4, plan)

if __name__ == "__main__":
    run(command)
