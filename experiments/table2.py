"""Table 2: error on ImageNet's validation set from a single view, the centre crop or the whole image.

    make reproduce-table2        (python -m experiments.table2 --profile mini)

The networks are e3 and e4 of Table 1.  The paper prints its first row as SPP-net4; the comparison, and the journal
edition with the same 38.01, is of the {6,3,2,1} net, which is measured here under the printed label.

Cost: `mini` a minute beyond the networks of Table 1.
"""

from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.plan import Step, errors_steps
from sppnet_cli.stages.workspace import Workspace

# Row as printed: training sizes of SPP-net6, view.
ROWS = {
    ("SPP-net4, single-size trained", "1 crop"): ((224,), "1crop"),
    ("SPP-net6, single-size trained", "1 full"): ((224,), "1full"),
    ("SPP-net6, multi-size trained", "1 crop"): ((224, 180), "1crop"),
    ("SPP-net6, multi-size trained", "1 full"): ((224, 180), "1full"),
}


def table2(ws: Workspace) -> Measured:
    """Top-1 errors of one seed."""
    measured = Measured(
        notes=["The first row is measured on SPP-net6; SPP-net4 is a misprint of the paper's."]
    )
    for row, (sizes, view) in ROWS.items():
        errors = ws.errors("spp6", sizes, view)
        measured.outcomes[row, "top1_error"] = ErrorOutcome(errors.wrong1)
        measured.images = {"val": errors.images}
    return measured


def plan(ws: Workspace) -> list[Step]:
    """The networks and their errors."""
    return [step for sizes, view in ROWS.values() for step in errors_steps(ws, "spp6", sizes, view)]


command = experiment(2, (__doc__ or "").split("\n")[0], table2, plan)

if __name__ == "__main__":
    run(command)
