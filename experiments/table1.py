"""Table 1: error on ImageNet's validation set of the plain net and of SPP-nets.

    make reproduce-table1        (sppnet reproduce table1 --profile mini)

e1 is the plain net; e2 and e3 put the {4,3,2,1} and the {6,3,2,1} pyramid in place of its last pool; e4 trains e3
at 224 and 180 in turn; all four are tested on ten 224x224 views.  e5 is e4 with two views of the whole image in
place of the two centre crops.  Rows a to d are of other groups, as published.

Cost: `mini` 17 minutes on two CPU cores (four networks, which the other tables share); `paper` two weeks for
each of the four networks on the GPU of its time.
"""

from sppnet_cli.stages.workspace import MULTI_SIZE, SINGLE_SIZE, Workspace

from .imagenet import measure_rows
from .runner import Steps, numbered

# Row: network, training sizes, views.
ROWS = {
    "e1": ("plain", SINGLE_SIZE, "10"),
    "e2": ("spp4", SINGLE_SIZE, "10"),
    "e3": ("spp6", SINGLE_SIZE, "10"),
    "e4": ("spp6", MULTI_SIZE, "10"),
    "e5": ("spp6", MULTI_SIZE, "8+2full"),
}


def table1(ws: Workspace) -> Steps:
    """Top-1 and top-5 errors of one seed."""
    measured = yield from measure_rows(ws, {row: ws.errors(*of) for row, of in ROWS.items()})
    return measured


EXPERIMENT = numbered(1, __doc__, table1)
