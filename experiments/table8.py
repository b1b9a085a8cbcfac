"""Table 8: detection AP of every class by SPP-net, R-CNN on the same weights, and other groups' methods.

    make reproduce-table8        (python -m experiments.table8 --profile mini)

SPP-net is the 5-scale one of Table 6.  The rows of other groups hold their published numbers: table8.json lists them
under "others", and table8.md and .tex mark them with a star; table8.csv has the paper's columns and cannot.

Cost: seconds beyond Table 6.
"""

from experiments.detection import fill_row, measured_on, note_rcnn, score_of, steps
from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace

# Row: column and layer of Table 6.
ROWS = {
    "RCNN ftfc7": ("rcnn", "ftfc7"),
    "SPP ftfc7": ("spp_5scale", "ftfc7"),
    "RCNN ftfc7 bb": ("rcnn", "ftfc7 bb"),
    "SPP ftfc7 bb": ("spp_5scale", "ftfc7 bb"),
}


def rows(ws: Workspace) -> dict[str, tuple[str, str]]:
    """The rows that are measured."""
    return {row: of for row, of in ROWS.items() if of[0] != "rcnn" or ws.measures_rcnn()}


def table8(ws: Workspace) -> Measured:
    """APs of one seed."""
    measured = measured_on(ws)
    for row, of in rows(ws).items():
        fill_row(measured, row, score_of(ws, *of))
    note_rcnn(measured, ws)
    return measured


def plan(ws: Workspace) -> list[Step]:
    """The stages of all rows."""
    return steps(ws, list(rows(ws).values()))


command = experiment(8, (__doc__ or "").split("\n")[0], table8, plan, detection=True)

if __name__ == "__main__":
    run(command)
