"""Table 7: detection AP of every class by SPP-net, by layer, at one and five scales.

    make reproduce-table7        (python -m experiments.table7 --profile mini)

The detectors are those of Table 6.

Cost: seconds beyond Table 6.
"""

from experiments.detection import detectors, fill_row, measured_on, score_of, steps
from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace

SCALES = {"spp_1scale": 1, "spp_5scale": 5}  # column of Table 6: how this table calls it


def rows(ws: Workspace) -> list[tuple[str, str]]:
    """Column and layer of every row."""
    return [(column, layer) for column, layer in detectors(ws) if column in SCALES]


def table7(ws: Workspace) -> Measured:
    """APs of one seed."""
    measured = measured_on(ws)
    for column, layer in rows(ws):
        fill_row(measured, (SCALES[column], layer), score_of(ws, column, layer))
    return measured


def plan(ws: Workspace) -> list[Step]:
    """The stages of all rows."""
    return steps(ws, rows(ws))


command = experiment(7, (__doc__ or "").split("\n")[0], table7, plan, detection=True)

if __name__ == "__main__":
    run(command)
