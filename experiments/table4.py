"""Table 4: classification of Caltech101 by SVMs on features of whole images, by layer, network and view.

    make reproduce-table4        (python -m experiments.table4 --profile mini)

As Table 3, on ten random splits of 30 training and up to 50 test images a category: the mean over the splits of the
mean accuracy of the categories.

Cost: `mini` two minutes beyond the networks of Table 1; `paper` an hour on a GPU beyond them, 12 GB of disk.
"""

from experiments.runner import Measured, experiment
from experiments.table3 import measured_columns, steps_of_columns
from sppnet_cli.cli import run
from sppnet_cli.stages.columns import Column
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace

COLUMNS = {
    "plain_crop224": Column("plain", "crop", 224),
    "spp_crop224": Column("spp6", "crop", 224),
    "spp_full224": Column("spp6", "full", 224),
}


def table4(ws: Workspace) -> Measured:
    """Caltech101 accuracies of one seed."""
    measured = measured_columns(ws, 4, "Caltech101", COLUMNS, "caltech101")
    splits = ws.profile.splits
    measured.notes.append(
        f"{splits.count} random splits of {splits.train} training and up to {splits.test} test images a category."
    )
    return measured


def plan(ws: Workspace) -> list[Step]:
    """Networks and features."""
    return steps_of_columns(ws, 4, "Caltech101", COLUMNS)


command = experiment(4, (__doc__ or "").split("\n")[0], table4, plan)

if __name__ == "__main__":
    run(command)
