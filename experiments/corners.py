"""Section 3.1's remark: corner crops of the entire image against those of the central 256x256 square.

    make ablation-corners        (python -m experiments.corners --profile mini)

The paper puts 2.4 points of the margin of its plain net over Zeiler and Fergus's (35.99 against 38.4) down to the
corners.  Here the same networks are tested on either ten views; they were trained on corners of the entire image.

Cost: `mini` two minutes beyond the networks of Table 1.
"""

import pandas as pd

from experiments.runner import Measured, small_table
from experiments.table1 import ROWS
from sppnet_cli.cli import run
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.plan import Step, errors_steps
from sppnet_cli.stages.workspace import Workspace

NETS = ("e1", "e2", "e3", "e4")  # of Table 1
VIEWS = {"entire_image": "10", "central_square": "10central"}


def corners(ws: Workspace) -> Measured:
    """Top-1 errors of one seed."""
    measured = Measured()
    for (row, column), of in cells().items():
        errors = ws.errors(*of)
        measured.outcomes[row, column] = ErrorOutcome(errors.wrong1)
        measured.images = {"val": errors.images}
    return measured


def cells() -> dict[tuple[str, str], tuple[str, tuple[int, ...], str]]:
    """Network, training sizes and views of every cell."""
    return {(row, column): (*ROWS[row][:2], views) for row in NETS for column, views in VIEWS.items()}


def published() -> pd.DataFrame:
    """The paper prints no such table."""
    rows = pd.Index(NETS, name="id")
    return pd.DataFrame(float("nan"), index=rows, columns=list(VIEWS))


def plan(ws: Workspace) -> list[Step]:
    """The networks and their errors."""
    return [step for of in cells().values() for step in errors_steps(ws, *of)]


command = small_table("corners", (__doc__ or "").split("\n")[0], published, corners, plan)

if __name__ == "__main__":
    run(command)
