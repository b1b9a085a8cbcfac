"""Table 7: detection AP of every class by SPP-net, by layer, at one and five scales.

    make reproduce-table7        (sppnet reproduce table7 --profile mini)

The detectors are those of Table 6.

Cost: seconds beyond Table 6.
"""

from sppnet_cli.stages.workspace import Workspace

from .detection import about_detection, detections, fill_row, score
from .runner import Steps, numbered

SCALES = {"spp_1scale": 1, "spp_5scale": 5}  # column of Table 6: its name here


def table7(ws: Workspace) -> Steps:
    """APs of one seed."""
    detected = {cell: made for cell, made in detections(ws).items() if cell[1] in SCALES}
    yield [*detected.values()]

    measured = about_detection(ws)
    for (row, column), made in detected.items():
        fill_row(measured, (SCALES[column], row), score(ws, made, f"{column} {row}"))
    return measured


EXPERIMENT = numbered(7, __doc__, table7)
