"""Table 5: classification of VOC 2007 and Caltech101, SPP-net and other methods.

    make reproduce-table5        (sppnet reproduce table5 --profile mini)

Our row repeats the cells of Tables 3 and 4 that the paper chose: fc7 on the whole image at 392 for VOC, SPP pool5 on
the whole image at 224 for Caltech101, whatever is best on our test images.  The VOC cell of "Zeiler & Fergus" is the
paper's plain net, fc7 on the crop.  All other numbers are published ones of other groups.

Cost: nothing beyond Tables 3 and 4.
"""

from sppnet_cli.data.layouts import Dataset
from sppnet_cli.stages.image_svm import AccuracyScore
from sppnet_cli.stages.workspace import Column, Workspace

from .runner import AP_NOTE, Cell, Measured, Steps, numbered
from .table3 import COLUMNS as VOC_COLUMNS
from .table4 import COLUMNS as CALTECH_COLUMNS
from .whole_images import note_on_svms, notes_on_trunk

# Cell: data set, column of Table 3 or 4, layer.
CELLS: dict[Cell, tuple[Dataset, Column, str]] = {
    ("Zeiler & Fergus", "voc2007_map"): ("VOC", VOC_COLUMNS["plain_crop224"], "fc7"),
    ("ours", "voc2007_map"): ("VOC", VOC_COLUMNS["spp_full392"], "fc7"),
    ("ours", "caltech101_accuracy"): ("Caltech101", CALTECH_COLUMNS["spp_full224"], "SPP pool5"),
}


def table5(ws: Workspace) -> Steps:
    """The three measured cells of one seed, and the deviation over Caltech101's splits."""
    notes = [*notes_on_trunk(ws), note_on_svms(ws), AP_NOTE]
    cells = {}
    for cell, (dataset, column, layer) in CELLS.items():
        if layer == "fc7" and not ws.has_head():
            layer = "pool5"
            notes.append(f"{cell[0]}, VOC: pool5 in place of fc7.")
        cells[cell] = ws.tested_svms(column, layer, dataset)
    yield [stage for each in cells.values() for stage in each]

    measured = Measured(notes=notes)
    for cell, each in cells.items():
        score = each.score()
        measured.outcomes[cell] = score.outcome
        measured.images[CELLS[cell][0]] = score.outcome.images
        if isinstance(score, AccuracyScore):
            measured.values["ours", "caltech101_std"] = 100 * score.deviation
    return measured


EXPERIMENT = numbered(5, __doc__, table5)
