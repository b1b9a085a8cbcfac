"""Table 8: detection AP of every class by SPP-net, R-CNN on the same weights, and other groups' methods.

    make reproduce-table8        (sppnet reproduce table8 --profile mini)

SPP-net is the 5-scale one of Table 6.  The rows of other groups hold their published numbers: table8.json lists them
under "others", and table8.md and .tex mark them with a star; table8.csv has only the paper's columns.

Cost: seconds beyond Table 6.
"""

from sppnet_cli.stages.workspace import Workspace

from .detection import about_detection, detections, fill_row, note_rcnn, score
from .runner import Steps, numbered

# Row: row and column of Table 6.
ROWS = {
    "RCNN ftfc7": ("ftfc7", "rcnn"),
    "SPP ftfc7": ("ftfc7", "spp_5scale"),
    "RCNN ftfc7 bb": ("ftfc7 bb", "rcnn"),
    "SPP ftfc7 bb": ("ftfc7 bb", "spp_5scale"),
}


def table8(ws: Workspace) -> Steps:
    """APs of one seed."""
    of_table6 = detections(ws)
    detected = {row: of_table6[cell] for row, cell in ROWS.items() if cell in of_table6}
    yield [*detected.values()]

    measured = about_detection(ws)
    for row, made in detected.items():
        fill_row(measured, row, score(ws, made, row))
    note_rcnn(measured, ws)
    return measured


EXPERIMENT = numbered(8, __doc__, table8)
