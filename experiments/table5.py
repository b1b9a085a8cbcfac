"""Table 5: classification of VOC 2007 and Caltech101, SPP-net and other methods.

    make reproduce-table5        (python -m experiments.table5 --profile mini)

Our row repeats the cells of Tables 3 and 4 that the paper chose: fc7 on the whole image at 392 for VOC, SPP pool5 on
the whole image at 224 for Caltech101 (never the best of what was measured on the test images).  VOC of "Zeiler &
Fergus" is the authors' own plain net, fc7 on the crop.  The rest are other groups' numbers, as published.

Cost: nothing beyond Tables 3 and 4.
"""

from experiments import table3, table4
from experiments.runner import Cell, Measured, experiment
from experiments.table3 import backbone_notes
from sppnet_cli.cli import run
from sppnet_cli.learning.image_svm import Dataset
from sppnet_cli.stages.classify import AccuracyScore
from sppnet_cli.stages.columns import layer_scores
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace


def table5(ws: Workspace) -> Measured:
    """The three measured cells of one seed, and the deviation over Caltech101's splits."""
    measured = Measured(notes=backbone_notes(ws))
    cells: dict[Cell, tuple[Dataset, int, str, str]] = {
        ("Zeiler & Fergus", "voc2007_map"): ("VOC", 3, "plain_crop224", "fc7"),
        ("ours", "voc2007_map"): ("VOC", 3, "spp_full392", "fc7"),
        ("ours", "caltech101_accuracy"): ("Caltech101", 4, "spp_full224", "SPP pool5"),
    }
    for cell, (dataset, number, name, layer) in cells.items():
        column = {3: table3, 4: table4}[number].COLUMNS[name]
        layers = tuple(table3.layers_of(number, name, ws).values())
        if layer not in layers:
            layer = "pool5"  # a trunk without fc layers: what the table has there
            measured.notes.append(f"{cell[0]}, VOC: pool5 in place of fc7.")
        score = layer_scores(ws, dataset, column, layers)[layer]
        measured.outcomes[cell] = score.outcome
        measured.images[dataset] = score.outcome.images
        if isinstance(score, AccuracyScore):
            measured.values["ours", "caltech101_std"] = 100 * score.deviation
    return measured


def plan(ws: Workspace) -> list[Step]:
    """Those of Tables 3 and 4."""
    return [*table3.plan(ws), *table4.plan(ws)]


command = experiment(5, (__doc__ or "").split("\n")[0], table5, plan)

if __name__ == "__main__":
    run(command)
