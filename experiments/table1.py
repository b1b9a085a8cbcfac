"""Table 1: error on ImageNet's validation set of the plain net and of SPP-nets.

    make reproduce-table1        (python -m experiments.table1 --profile mini)

e1 is the plain net; e2 and e3 put the {4,3,2,1} and the {6,3,2,1} pyramid in place of its last pool; e4 trains e3
at 224 and 180 in turn; all four are tested on ten 224x224 views.  e5 is e4 with two views of the whole image in
place of the two centre crops.  Rows a to d are of other groups, as published.

Cost: `mini` 15 minutes on two CPU cores (four networks, which the other tables share); `paper` two weeks for
each of the four networks on the GPU of its time.
"""

from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.plan import Step, errors_steps
from sppnet_cli.stages.workspace import Workspace

# Row: network, training sizes, views.
ROWS = {
    "e1": ("plain", (224,), "10"),
    "e2": ("spp4", (224,), "10"),
    "e3": ("spp6", (224,), "10"),
    "e4": ("spp6", (224, 180), "10"),
    "e5": ("spp6", (224, 180), "8+2full"),
}


def table1(ws: Workspace) -> Measured:
    """Top-1 and top-5 errors of one seed."""
    measured = Measured()
    for row, (pyramid, sizes, views) in ROWS.items():
        errors = ws.errors(pyramid, sizes, views)
        measured.outcomes[row, "top1_error"] = ErrorOutcome(errors.wrong1)
        measured.outcomes[row, "top5_error"] = ErrorOutcome(errors.wrong5)
        measured.images = {"val": errors.images}
    return measured


def plan(ws: Workspace) -> list[Step]:
    """The networks and their errors."""
    return [step for row in ROWS.values() for step in errors_steps(ws, *row)]


command = experiment(1, (__doc__ or "").split("\n")[0], table1, plan)

if __name__ == "__main__":
    run(command)
