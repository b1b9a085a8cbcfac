"""Section 3.1's remark: corner crops of the entire image against those of the central 256x256 square.

    make ablation-corners        (python -m experiments.corners --profile mini)

The paper puts 2.4 points of the margin of its plain net over Zeiler and Fergus's (35.99 against 38.4) down to the
corners.  Here the same networks are tested on either ten views; they were trained on corners of the entire image.

Cost: `mini` two minutes beyond the networks of Table 1.
"""

import pandas as pd

from experiments.runner import Measured, small_table
from experiments.table1 import ROWS, plan
from sppnet_cli.cli import run
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.workspace import Workspace

VIEWS = {"entire_image": "10", "central_square": "10central"}


def corners(ws: Workspace) -> Measured:
    """Top-1 errors of one seed."""
    measured = Measured()
    for row in ("e1", "e2", "e3", "e4"):
        pyramid, sizes, _ = ROWS[row]
        for column, views in VIEWS.items():
            errors = ws.errors(pyramid, sizes, views)
            measured.outcomes[row, column] = ErrorOutcome(errors.wrong1)
            measured.images = {"val": errors.images}
    return measured


def published() -> pd.DataFrame:
    """The paper prints no such table."""
    rows = pd.Index(["e1", "e2", "e3", "e4"], name="id")
    return pd.DataFrame(float("nan"), index=rows, columns=list(VIEWS))


command = small_table("corners", (__doc__ or "").split("\n")[0], published, corners, plan)

if __name__ == "__main__":
    run(command)
