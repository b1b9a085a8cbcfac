"""What the experiments on detection share: the detectors that they compare, and a row of APs by class."""

from experiments.runner import Measured
from sppnet_cli.console import status
from sppnet_cli.data.voc import load_voc
from sppnet_cli.stages.evaluate import DetectionScore
from sppnet_cli.stages.plan import Step, detection_steps
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import class_columns

LAYERS = ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb")


def columns(ws: Workspace) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The columns of Table 6: method and scales."""
    return {
        "spp_1scale": ("spp", (ws.protocol.single_scale,)),
        "spp_5scale": ("spp", ws.protocol.scales),
        "rcnn": ("rcnn", ()),
    }


def layers(ws: Workspace) -> list[str]:
    """The layers of Table 6 that the network has: one without fc layers has no fc6; its ft rows come from new ones."""
    return [layer for layer in LAYERS if ws.has_head() or layer != "fc6"]


def detectors(ws: Workspace) -> list[tuple[str, str]]:
    """Column and layer of every detector whose mAP Table 6 has, in the order in which they are made."""
    measured = [column for column in columns(ws) if column != "rcnn" or ws.measures_rcnn()]
    return [(column, layer) for column in measured for layer in layers(ws)]


def score_of(ws: Workspace, column: str, layer: str) -> DetectionScore:
    """The score of one detector."""
    score = ws.score(*columns(ws)[column], layer)
    status(f"{column} {layer}: mAP {100 * score.mean_ap:.1f}")
    return score


def fill_row(measured: Measured, row: object, score: DetectionScore) -> None:
    """Put mAP and the AP of every class into a row of Tables 7 to 9."""
    measured.classes = class_columns(tuple(score.ap))
    measured.outcomes[row, "mAP"] = score.outcome
    for column, ap in zip(measured.classes, score.ap.values(), strict=True):
        measured.values[row, column] = 100 * ap


def measured_on(ws: Workspace) -> Measured:
    """An empty result with what all tables of detection say about themselves."""
    splits = ("trainval", "test")
    measured = Measured(
        images={split: len(load_voc(ws.voc_data(), split, ws.detection_limit(split))) for split in splits},
        more={
            "protocol": ws.protocol.name,
            "proposals": ws.proposals_method,
            "windows_per_image": {
                split: ws.windows(split, "spp", ws.protocol.scales).max_windows for split in splits
            },
        },
    )
    if not ws.has_head():
        measured.notes.append(
            f"{ws.profile.arch} has no fc6 and fc7: ftfc6, ftfc7 and bb come from {ws.profile.fc}-d fc layers "
            "initialised N(0, .01) and trained by fine-tuning alone."
        )
    return measured


def note_rcnn(measured: Measured, ws: Workspace) -> None:
    """How R-CNN was measured, or that it was not."""
    if ws.measures_rcnn():
        measured.notes.append(
            "R-CNN fine-tunes all layers, on warped windows."
            if ws.profile.rcnn_finetune == "all"
            else "R-CNN fine-tunes the fc layers only, on pooled features."
        )
    else:
        measured.notes.append("R-CNN's mAP was not measured; ask for it with --rcnn full (make: RCNN=full).")


def steps(ws: Workspace, of: list[tuple[str, str]]) -> list[Step]:
    """The stages of these detectors, for `--dry-run`; a column's features are computed once."""
    found: list[Step] = []
    begun: set[str] = set()
    for column, layer in of:
        found += detection_steps(ws, *columns(ws)[column], layer, "detect", cached=column in begun)
        begun.add(column)
    return found
