"""Table 9: detection AP of every class by two SPP-nets from different initialisations, and by their combination.

    make reproduce-table9        (python -m experiments.table9 --profile mini)

SPP-net (1) is the 5-scale ftfc7 bb of Table 6, SPP-net (2) the same from the next seed on.  The combination takes
both models' scored windows together and suppresses among all of them.  The record has the control that the report
mentions: a second fine-tuning of the convolutional model of SPP-net (1), and the combination of these two.

Cost: `mini` 12 minutes beyond Table 6 (a network and two fine-tunings); `paper` a second pre-training.
"""

from dataclasses import replace

from experiments.detection import fill_row, measured_on
from experiments.runner import Measured, experiment
from sppnet_cli.cli import run
from sppnet_cli.console import status
from sppnet_cli.stages.plan import Step, detection_steps
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.claimed import CONTROL

ROW = "ftfc7 bb"
# Row: folder of its detections, and the models that find them.
TOGETHER = {
    "SPP-net (2)": ("detections-second", ("second",)),
    "combination": ("detections-combination", ("first", "second")),
    CONTROL[1]: ("detections-tuned-again", ("tuned again",)),
    CONTROL[2]: ("detections-control", ("first", "tuned again")),
}


def models(ws: Workspace) -> dict[str, Workspace]:
    """Workspace of every model."""
    return {
        "first": ws,
        "second": replace(ws, seed=ws.seed + 1),
        "tuned again": replace(ws, tuning=ws.seed + 1),
    }


def table9(ws: Workspace) -> Measured:
    """APs of one seed and the next."""
    measured = measured_on(ws)
    scales = ws.protocol.scales
    own = ws.score("spp", scales, ROW)
    made = {name: each.detector("spp", scales, ROW) for name, each in models(ws).items()}
    scores = {"SPP-net (1)": own, CONTROL[0]: own}
    for row, (folder, names) in TOGETHER.items():
        scores[row] = ws.score_together(tuple(made[name] for name in names), folder)
    for row, score in scores.items():
        status(f"{row}: mAP {100 * score.mean_ap:.1f}")
        if row in CONTROL:
            measured.outcomes[row, "mAP"] = score.outcome
        else:
            fill_row(measured, row, score)
    best = max(scores[row].mean_ap for row in CONTROL[:2])
    measured.notes.append(
        "Control: two fine-tunings of one convolutional model have mAPs of "
        f"{' and '.join(f'{100 * scores[row].mean_ap:.1f}' for row in CONTROL[:2])}, "
        f"their combination {100 * scores[CONTROL[2]].mean_ap:.1f} ({100 * (scores[CONTROL[2]].mean_ap - best):+.1f})."
    )
    return measured


def plan(ws: Workspace) -> list[Step]:
    """The stages of both networks, of the second fine-tuning, and the combinations."""
    spp = ("spp", ws.protocol.scales, ROW)
    found = detection_steps(ws, *spp, "detect")
    for each in models(ws).values():
        found += detection_steps(each, *spp, "train-bbox")
    made = {name: each.detector_folder(*spp) for name, each in models(ws).items()}
    for folder, names in TOGETHER.values():
        given = [made[name] for name in names]
        found += detection_steps(ws, *spp, "detect", ws.runs / folder, given, cached=True)
    return found


command = experiment(9, (__doc__ or "").split("\n")[0], table9, plan, detection=True)

if __name__ == "__main__":
    run(command)
