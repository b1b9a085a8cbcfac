"""`sppnet train`."""

import math
import shlex
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli import console
from sppnet_cli.cli.evaluate import show_calibration
from sppnet_cli.cli.options import PATH, clock, say, shared_by_trainer
from sppnet_cli.cli.plan import make, show
from sppnet_cli.errors import DataError

if TYPE_CHECKING:
    from sppnet_cli.chain import Stage
    from sppnet_cli.data.voc import VocDetection
    from sppnet_cli.stages.score_detections import DetectionScore
    from sppnet_cli.stages.workspace import Workspace

_FEW = 5  # objects of a class: fewer say little


@click.command("train", short_help="Train a detector on your own photographs.")
@click.argument("source", metavar="DATA", type=PATH)
@shared_by_trainer
def command(ws: "Workspace", *, source: Path, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Train a detector on DATA, calibrate it and test it on the part that is held out.

    DATA is a VOC layout, such as `sppnet data import` writes, or an export of a labelling tool, which is imported
    first.  The detector's folder also gets a report: APs, curves, confidences against precision, and a contact sheet.

    \b
      sppnet train export --out my-detector
      sppnet detect --detector my-detector holiday/
    """
    if not dry_run:
        _train(_on(ws, source, as_json), source, out, as_json, dry_run=False)
        return
    with tempfile.TemporaryDirectory() as folder:  # an export is read to say what would be done
        known = _on(replace(ws, root=Path(folder)), source, as_json)
        _train(replace(known, root=ws.root), source, out, as_json, dry_run=True)


def _on(ws: "Workspace", source: Path, as_json: bool) -> "Workspace":
    """The workspace on a VOC set: DATA itself, or what it is imported to."""
    from sppnet_cli.data.voc import has_splits
    from sppnet_cli.stages.import_set import SET

    if has_splits(source, "trainval", "test"):
        return replace(ws, data=source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; name an export of a labelling tool, or a VOC set")
    data = make(ws, ws.imported_set(source)) / SET
    if not has_splits(data, "trainval", "test"):
        raise DataError(f"{source}: too few images to hold some out for the test; label more of them")
    return replace(ws, data=data)


def _train(ws: "Workspace", source: Path, out: Path | None, as_json: bool, dry_run: bool) -> None:
    from sppnet_cli.data.voc import load_voc
    from sppnet_cli.stages.outcomes_sheet import draw_outcomes
    from sppnet_cli.stages.report import OUTCOMES_PICTURE
    from sppnet_cli.stages.score_detections import evaluate_detections

    assert ws.data is not None
    learnt, tested = (load_voc(ws.data, split, ws.limit) for split in ("trainval", "test"))
    scales, row = ws.choose()
    detector = ws.calibrated("spp", scales, row).at(out)
    detections = ws.detect([detector], [detector.folder.name], "test")
    counts = [_objects(dataset) for dataset in (learnt, tested)]
    _say_beforehand(ws, [detections, detector], (learnt, tested), scales, row)
    _name_few(counts[0])
    if dry_run:
        show(ws, [detector, detections], as_json)
        return
    ws.make(detector, detections)
    folder = detector.folder
    score = evaluate_detections(detections.folder, ws.data, "test", ws.limit, folder / "report")
    draw_outcomes(detections.folder, tested, folder / "report" / OUTCOMES_PICTURE)
    _show(score, counts)
    show_calibration(score)
    error = math.nan if score.reliability is None else score.reliability.error
    result = {
        "detector": folder,
        "mAP": score.as_dict()["mAP"],
        "AP": score.as_dict()["AP"],
        "images": len(learnt) + len(tested),
        "seconds": round(sum(_seconds(each) for each in _all([detections])), 1),
        "calibration_error": None if math.isnan(error) else error,
    }
    say(
        as_json,
        result,
        f"what it found and missed: {folder / 'report' / OUTCOMES_PICTURE}",
        f"use it: sppnet detect --detector {shlex.quote(str(folder))} PHOTOS",
    )


def _say_beforehand(
    ws: "Workspace",
    stages: "list[Stage]",
    parts: "tuple[VocDetection, VocDetection]",
    scales: tuple[int, ...],
    row: str,
) -> None:
    learnt, tested = parts
    console.status(
        f"{len(learnt)} images to learn {len(learnt.class_names)} classes from, {len(tested)} to test on; "
        f"{ws.profile.arch}, {row}, scales {', '.join(map(str, scales))}"
    )
    costs = [stage.cost() for stage in ws.plan(*stages).to_make]
    if costs:
        seconds, memory = sum(cost.seconds for cost in costs), max(cost.memory for cost in costs)
        console.status(f"about {clock(seconds)} and {memory:.1f} GiB of memory, resumed when it is cut off")


def _objects(dataset: "VocDetection") -> dict[str, int]:
    """How many objects of each class are not difficult."""
    counts = dict.fromkeys(dataset.class_names, 0)
    for image_id in dataset.ids:
        found = dataset.annotation(image_id)
        for label in found.labels[~found.difficult]:
            counts[dataset.class_names[label]] += 1
    return counts


def _name_few(counts: dict[str, int]) -> None:
    few = [f"{name} ({count})" for name, count in counts.items() if count < _FEW]
    if few:
        console.warn(f"fewer than {_FEW} objects to learn from: {', '.join(few)}; label more of them")


def _show(score: "DetectionScore", counts: list[dict[str, int]]) -> None:
    from sppnet_cli.evaluation.bootstrap import interval

    outcome = score.outcome
    low, high = interval(outcome.resampled_aps, outcome.strata)
    mean_low, mean_high = interval(outcome.resampled, outcome.strata)
    ends = [*zip(low, high, strict=True), (mean_low, mean_high)]
    values = {**score.ap, "mAP": score.mean_ap}
    rows = [
        (
            name,
            *("" if math.isnan(ap) else f"{100 * ap:.1f}", _range(*map(float, of_class))),
            *(part[name] if name in part else sum(part.values()) for part in counts),
        )
        for (name, ap), of_class in zip(values.items(), ends, strict=True)
    ]
    columns = ["class", "AP", "95% interval", "objects to learn from", "to test on"]
    console.table(f"AP (%), {score.images} images", columns, rows)


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _all(stages: "Iterable[Stage]") -> "Iterable[Stage]":
    """The stages and all that they need, each once."""
    found: dict[Path, Stage] = {}
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage.folder not in found:
            found[stage.folder] = stage
            waiting += stage.needs
    return found.values()


def _seconds(stage: "Stage") -> float:
    from sppnet_cli.runs import read_manifest

    return float(read_manifest(stage.folder)["seconds"])
