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


def table9(ws: Workspace) -> Measured:
    """APs of one seed and the next."""
    measured = measured_on(ws)
    scales = ws.protocol.scales
    first = ws.detector("spp", scales, ROW)
    second = replace(ws, seed=ws.seed + 1).detector("spp", scales, ROW)
    tuned_again = replace(ws, tuning=ws.seed + 1).detector("spp", scales, ROW)
    own = ws.score("spp", scales, ROW)
    scores = {
        "SPP-net (1)": own,
        "SPP-net (2)": ws.score_together((second,), "detections-second"),
        "combination": ws.score_together((first, second), "detections-combination"),
        CONTROL[0]: own,
        CONTROL[1]: ws.score_together((tuned_again,), "detections-tuned-again"),
        CONTROL[2]: ws.score_together((first, tuned_again), "detections-control"),
    }
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
    """The stages of both networks, and the second fine-tuning."""
    scales = ws.protocol.scales
    found = {}
    for each in (ws, replace(ws, seed=ws.seed + 1), replace(ws, tuning=ws.seed + 1)):
        for step in detection_steps(each, "spp", scales, ROW, "detect"):
            found[step.out] = step
    return list(found.values())


command = experiment(9, (__doc__ or "").split("\n")[0], table9, plan, detection=True)

if __name__ == "__main__":
    run(command)
