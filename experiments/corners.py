"""Section 3.1's remark: corner crops of the entire image against those of the central 256x256 square.

    make ablation-corners        (sppnet reproduce corners --profile mini)

The paper attributes 2.4 points of its plain net's margin over Zeiler and Fergus (35.99 against 38.4) to the corners.
Here the same networks, trained on corners of the entire image, are tested on both kinds of ten views.

Cost: `mini` two minutes beyond the networks of Table 1.
"""

import pandas as pd

from sppnet_cli.stages.workspace import Workspace

from .imagenet import measure_cells
from .runner import Steps, no_published, small
from .table1 import ROWS

NETS = ("e1", "e2", "e3", "e4")  # of Table 1
VIEWS = {"entire_image": "10", "central_square": "10central"}


def corners(ws: Workspace) -> Steps:
    """Top-1 errors of one seed."""
    tested = {
        (row, column): ws.errors(*ROWS[row][:2], views) for row in NETS for column, views in VIEWS.items()
    }
    measured = yield from measure_cells(ws, tested)
    return measured


PUBLISHED = no_published(pd.Index(NETS, name="id"), list(VIEWS))
EXPERIMENT = small("corners", __doc__, corners, PUBLISHED)
