"""What the experiments on detection share: which detectors they compare, and how they score them."""

from sppnet_cli.chain import Stage
from sppnet_cli.console import status
from sppnet_cli.stages.score_detections import DetectionScore, score_run
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import class_columns

from .runner import AP_NOTE, Measured

ROWS = ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb")


def columns(ws: Workspace) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The columns of Table 6: method and scales."""
    return {
        "spp_1scale": ("spp", (ws.protocol.single_scale,)),
        "spp_5scale": ("spp", ws.protocol.scales),
        "rcnn": ("rcnn", ()),
    }


def rows(ws: Workspace) -> list[str]:
    """The rows of Table 6 for this network: without fc layers it has no fc6, and fine-tunes new ones for the ft rows."""
    return [row for row in ROWS if ws.has_head() or row != "fc6"]


def detections(ws: Workspace) -> dict[tuple[str, str], Stage]:
    """The detections behind each measured cell of Table 6, by row and column."""
    measured = [column for column in columns(ws) if column != "rcnn" or ws.measures_rcnn()]
    return {
        (row, column): ws.detections(*columns(ws)[column], row) for column in measured for row in rows(ws)
    }


def score(ws: Workspace, made: Stage, name: str) -> DetectionScore:
    """Score a run of detections of the test split, and print its mAP."""
    result = score_run(made)
    status(f"{name}: mAP {100 * result.mean_ap:.1f}{ws.profile.caveat}")
    return result


def fill_row(measured: Measured, row: object, result: DetectionScore) -> None:
    """Put mAP and the AP of every class into a row of Tables 7 to 9."""
    measured.classes = class_columns(tuple(result.ap))
    measured.outcomes[row, "mAP"] = result.outcome
    for column, ap in zip(measured.classes, result.ap.values(), strict=True):
        measured.values[row, column] = 100 * ap


def about_detection(ws: Workspace) -> Measured:
    """An empty result with the settings that every detection table reports."""
    splits = ("trainval", "test")
    measured = Measured(
        images={split: ws.voc_images(split, ws.detection_limit(split)) for split in splits},
        more={
            "protocol": ws.protocol.name,
            "proposals": ws.proposals_method or ws.profile.proposals,
            "windows_per_image": {split: ws.max_windows(split) for split in splits},
        },
        notes=[note_on_proposals(ws), note_on_protocol(ws), AP_NOTE],
    )
    if not ws.has_head():
        measured.notes.append(
            f"{ws.profile.arch} has no fc6 and fc7: ftfc6, ftfc7 and bb come from {ws.profile.fc}-d fc layers "
            "initialised N(0, .01) and trained by fine-tuning alone."
        )
    return measured


def note_on_proposals(ws: Workspace) -> str:
    """Which windows are used, and how many."""
    counts = [ws.max_windows(split) for split in ("trainval", "test")]
    used = (
        "all of each image"
        if counts == [None, None]
        else f"at most {counts[0]} of a training and {counts[1]} of a test image"
    )
    return f"Windows: {ws.proposals_method or ws.profile.proposals}, {used}."


def note_on_protocol(ws: Workspace) -> str:
    """Whose rules decide, and which of two equal windows NMS keeps."""
    return f"Protocol {ws.protocol.name}; of windows with equal scores NMS keeps the {ws.protocol.nms_ties}."


def note_rcnn(measured: Measured, ws: Workspace) -> None:
    """Note how R-CNN was measured, or that it was not."""
    if ws.measures_rcnn():
        measured.notes.append(
            f"R-CNN fine-tunes all layers, on warped windows{', by its own schedule' * (ws.profile.finetune is None)}."
            if ws.profile.rcnn_finetune == "all"
            else "R-CNN fine-tunes the fc layers only, on pooled features."
        )
    else:
        measured.notes.append("R-CNN's mAP was not measured; ask for it with --rcnn full (make: RCNN=full).")
