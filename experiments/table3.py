"""Table 3: classification of VOC 2007 by SVMs on features of whole images, by layer, network and view.

    make reproduce-table3        (python -m experiments.table3 --profile mini)

Columns: the plain net and SPP-net (multi-size trained) on the 224x224 centre crop, SPP-net on the whole image at short
side 224, and at 392, where objects are about as large as in ImageNet.  Features are l2-normalised, C = 1, trained on
trainval without augmentation, tested on test by 11-point AP.  conv4 and conv5 have a fixed length on crops alone.

Cost: `mini` two minutes beyond the networks of Table 1; `paper` an hour on a GPU beyond them, 15 GB of disk.
"""

from collections.abc import Mapping

from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.learning.image_svm import Dataset
from sppnet_cli.stages.columns import Column, layer_scores
from sppnet_cli.stages.plan import Step, transfer_steps
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import published

COLUMNS = {
    "plain_crop224": Column("plain", "crop", 224),
    "spp_crop224": Column("spp6", "crop", 224),
    "spp_full224": Column("spp6", "full", 224),
    "spp_full392": Column("spp6", "full", 392),
}


def layers_of(number: int, column: str, ws: Workspace) -> dict[str, str]:
    """Row label to layer, for the rows that the paper fills and the network has."""
    rows = published(number)[column].dropna().index
    layers = {row: row.removesuffix(" (6x6)") for row in rows}
    return layers if ws.has_head() else {row: name for row, name in layers.items() if name[:2] != "fc"}


def table3(ws: Workspace) -> Measured:
    """VOC mAPs of one seed."""
    return measured_columns(ws, 3, "VOC", COLUMNS, "test")


def measured_columns(
    ws: Workspace, number: int, dataset: Dataset, columns: Mapping[str, Column], tested: str
) -> Measured:
    """The cells of Table 3 or 4 of one seed; `tested` is what its record calls the images."""
    measured = Measured(notes=backbone_notes(ws))
    for name, column in columns.items():
        layers = layers_of(number, name, ws)
        scores = layer_scores(ws, dataset, column, tuple(layers.values()))
        for row, layer in layers.items():
            measured.outcomes[row, name] = scores[layer].outcome
            measured.images = {tested: scores[layer].outcome.images}
    return measured


def backbone_notes(ws: Workspace) -> list[str]:
    """What a trunk of torchvision changes."""
    if ws.has_head():
        return []
    return [
        (
            f"{ws.profile.arch} with its ImageNet weights in place of pre-training: it has no fc6 and fc7, its conv4 is "
            "what precedes its last map, and the plain net and SPP-net differ in the last pool alone."
        )
    ]


def plan(ws: Workspace) -> list[Step]:
    """Networks and features."""
    return steps_of_columns(ws, 3, "VOC", COLUMNS)


def steps_of_columns(
    ws: Workspace, number: int, dataset: Dataset, columns: Mapping[str, Column]
) -> list[Step]:
    """The stages behind Table 3 or 4, for `--dry-run`."""
    return [
        step
        for name, column in columns.items()
        for step in transfer_steps(ws, dataset, column, tuple(layers_of(number, name, ws).values()))
    ]


command = experiment(3, (__doc__ or "").split("\n")[0], table3, plan)

if __name__ == "__main__":
    run(command)
