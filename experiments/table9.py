"""Table 9: detection AP of every class by two SPP-nets from different initialisations, and by their combination.

    make reproduce-table9        (sppnet reproduce table9 --profile mini)

SPP-net (1) is the 5-scale ftfc7 bb of Table 6; SPP-net (2) is the same with the next seed, pre-training included.  The
combination scores the windows with both models and applies one NMS to all of them.  The record has the control that the
report mentions: a second fine-tuning of SPP-net (1)'s convolutional model, and the combination of the two.

Cost: `mini` 12 minutes beyond Table 6 (a network and two fine-tunings); `paper` a second pre-training.
"""

from dataclasses import replace

from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.claimed import CONTROL

from .detection import about_detection, fill_row, score
from .runner import Steps, numbered

ROW = "ftfc7 bb"


def table9(ws: Workspace) -> Steps:
    """APs of one seed and the next."""
    of_5scale = ("spp", ws.protocol.scales, ROW)
    first = ws.detector(*of_5scale)
    second = replace(ws, seed=ws.seed + 1).detector(*of_5scale)
    tuned_again = replace(ws, tuning=ws.seed + 1).detector(*of_5scale)
    detected = {
        "SPP-net (1)": ws.detections(*of_5scale),
        "SPP-net (2)": ws.detect([second], ["second"]),
        "combination": ws.detect([first, second], ["combination"]),
        CONTROL[1]: ws.detect([tuned_again], ["tuned-again"]),
        CONTROL[2]: ws.detect([first, tuned_again], ["control"]),
    }
    yield [*detected.values()]

    measured = about_detection(ws)
    scores = {row: score(ws, made, row) for row, made in detected.items()}
    scores[CONTROL[0]] = scores["SPP-net (1)"]
    for row, result in scores.items():
        if row in CONTROL:
            measured.outcomes[row, "mAP"] = result.outcome
        else:
            fill_row(measured, row, result)
    maps = [100 * scores[row].mean_ap for row in CONTROL]
    measured.notes.append(
        f"Control: two fine-tunings of one convolutional model have mAPs of {maps[0]:.1f} and {maps[1]:.1f}, "
        f"their combination {maps[2]:.1f} ({maps[2] - max(maps[:2]):+.1f})."
    )
    return measured


EXPERIMENT = numbered(9, __doc__, table9)
