"""Table 4: classification of Caltech101 by SVMs on features of whole images, by layer, network and view.

    make reproduce-table4        (sppnet reproduce table4 --profile mini)

As Table 3, on ten random splits of 30 training and up to 50 test images a category: the mean over the splits of the
mean accuracy of the categories.

Cost: `mini` two minutes beyond the networks of Table 1; `paper` an hour on a GPU beyond them, 12 GB of disk.
"""

from sppnet_cli.stages.workspace import Column, Workspace

from .runner import Steps, numbered
from .whole_images import measure_columns, note_on_splits

COLUMNS = {
    "plain_crop224": Column("plain", "crop", 224),
    "spp_crop224": Column("spp6", "crop", 224),
    "spp_full224": Column("spp6", "full", 224),
}


def table4(ws: Workspace) -> Steps:
    """Caltech101 accuracies of one seed."""
    measured = yield from measure_columns(ws, 4, "Caltech101", COLUMNS, "caltech101")
    measured.notes.append(note_on_splits(ws))
    return measured


EXPERIMENT = numbered(4, __doc__, table4)
