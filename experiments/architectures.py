"""The journal edition's comparison: no SPP, single-size and multi-size SPP-net over four architectures.

    make reproduce-architectures        (python -m experiments.architectures --profile mini)

Ten views, as in Table 1.  The published numbers beside ours are those of the journal edition for ZF-5 and
Overfeat-7.

Cost: `mini` about three hours on two CPU cores (nine networks beyond those of Table 1); `paper` a GPU week or two
for each of twelve networks.
"""

from dataclasses import replace

import pandas as pd

from experiments.runner import Measured, small_table
from sppnet_cli.cli import run
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.plan import Step, errors_steps
from sppnet_cli.stages.workspace import Workspace

VIEWS = "10"
ARCHITECTURES = ("zf5", "convnet5", "overfeat5", "overfeat7")
TRAININGS = {
    "no SPP": ("plain", (224,)),
    "SPP single-size": ("spp6", (224,)),
    "SPP multi-size": ("spp6", (224, 180)),
}
PUBLISHED = {
    "zf5": ((35.99, 14.76), (34.98, 14.14), (34.60, 13.64)),
    "overfeat7": ((32.01, 11.97), (30.36, 11.12), (29.68, 10.95)),
}


def variants(ws: Workspace) -> dict[tuple[str, str], tuple[Workspace, str, tuple[int, ...]]]:
    """Workspace, pyramid and sizes of every row."""
    return {
        (arch, training): (replace(ws, profile=replace(ws.profile, arch=arch)), pyramid, sizes)
        for arch in ARCHITECTURES
        for training, (pyramid, sizes) in TRAININGS.items()
    }


def architectures(ws: Workspace) -> Measured:
    """Errors of one seed."""
    measured = Measured()
    for row, (own, pyramid, sizes) in variants(ws).items():
        errors = own.errors(pyramid, sizes, VIEWS)
        measured.outcomes[row, "top1_error"] = ErrorOutcome(errors.wrong1)
        measured.outcomes[row, "top5_error"] = ErrorOutcome(errors.wrong5)
        measured.images = {"val": errors.images}
    return measured


def published() -> pd.DataFrame:
    """The journal's numbers, NaN where they could not be checked."""
    rows = pd.MultiIndex.from_product([ARCHITECTURES, TRAININGS], names=["arch", "training"])
    table = pd.DataFrame(float("nan"), index=rows, columns=["top1_error", "top5_error"])
    for arch, numbers in PUBLISHED.items():
        table.loc[arch] = numbers
    return table


def plan(ws: Workspace) -> list[Step]:
    """The networks and their errors."""
    return [
        step
        for own, pyramid, sizes in variants(ws).values()
        for step in errors_steps(own, pyramid, sizes, VIEWS)
    ]


command = small_table(
    "architectures", (__doc__ or "").split("\n")[0], published, architectures, plan, source="journal"
)

if __name__ == "__main__":
    run(command)
