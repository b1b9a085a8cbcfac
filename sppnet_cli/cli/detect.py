"""`sppnet detect`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, clock, option, say, scales_of, shared, show_plan
from sppnet_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

_MAKE_ONE = (
    "make one with `sppnet train-svm --profile pretrained --data VOCdevkit --arch squeezenet1_1 --weights DEFAULT`, "
    "then `sppnet train-bbox --detector RUN`, and name it with --detector"
)


@click.command("detect", short_help="Detect objects in image files or a data set.")
@click.argument("images", nargs=-1, type=PATH)
@option(
    "--detector",
    "detectors",
    multiple=True,
    type=PATH,
    help="Run of train-svm or train-bbox; several: their combination.  [default: the mini one, trained first]",
)
@option(
    "--scales", metavar="480..1200|688|480,688", help="Short sides of the image.  [default: the detector's]"
)
@option("--split", default="test", help="List of ImageSets/Main, for a data set.")
@option(
    "--proposal-side",
    type=click.IntRange(min=50),
    default=1000,
    help="Windows of larger photographs are sought in a copy of at most so many pixels a side.",
)
@option("--min-score", type=float, default=0.0, help="Draw what scores above; the CSV has all.")
@shared
def command(
    ws: "Workspace",
    *,
    images: tuple[Path, ...],
    detectors: tuple[Path, ...],
    scales: str | None,
    split: str,
    proposal_side: int,
    min_score: float,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Detect objects in IMAGES (files or folders) or, without any, in the images of a VOC split.

    Writes detections.csv and prints a table; for IMAGES annotated pictures too; for a data set the devkit's
    result files, the proposals' recall and a report (curves, kinds of errors).

    \b
      sppnet detect --scales 480..1200
      sppnet detect --detector RUN street.jpg
      sppnet detect --detector RUN --data VOCdevkit
      sppnet detect --detector RUN --detector ANOTHER --data VOCdevkit
    """
    if not detectors and (images or ws.data is not None):
        raise DataError(f"no detector for your own images: {_MAKE_ONE}")
    if images and len(detectors) > 1:
        raise UsageError("detectors are combined on a data set; give one --detector for image files")
    if detectors:
        from sppnet_cli.detection.detector import read_description
        from sppnet_cli.stages.workspace import find_protocol

        about = read_description(detectors[0])
        ws = replace(ws, protocol=find_protocol(about.protocol))
        method, own_scales, row = about.method, about.scales, about.row
    else:
        method, own_scales, row = "spp", ws.protocol.scales, "ftfc7 bb"
    sides = scales_of(scales, ws) if scales and method == "spp" else own_scales
    if images:
        _photos(ws, detectors[0], sides, images, proposal_side, min_score, out, dry_run, as_json)
    else:
        _data_set(ws, detectors, method, sides, row, split, out, dry_run, as_json)


def _photos(
    ws: "Workspace",
    detector: Path,
    scales: tuple[int, ...],
    images: tuple[Path, ...],
    proposal_side: int,
    min_score: float,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sppnet_cli.data.images import find_images
    from sppnet_cli.data.proposals import METHODS
    from sppnet_cli.detection.detector import Detector
    from sppnet_cli.stages.photos import PhotoConfig, detect_photos
    from sppnet_cli.stages.plan import photo_step

    if ws.proposals_method not in METHODS:
        raise UsageError(f"--proposals {ws.proposals_method}: for image files one of {', '.join(METHODS)}")
    paths = find_images(images)
    folder = out or Path("detections")
    config = PhotoConfig(ws.proposals_method, ws.seed, ws.profile.timing_windows, proposal_side, min_score)
    if dry_run:
        show_plan([photo_step(ws, detector, scales, paths, folder)], config, as_json)
        return
    model = Detector.load(detector, ws.device, scales or None)
    photos, skipped = detect_photos(config, model, paths, folder)
    rows = [
        (photo.path, model.class_names[d.label], f"{d.score:.2f}", *(f"{v:.0f}" for v in d.box))
        for photo in photos
        for d in photo.detections
        if d.score > min_score
    ]
    console.table(
        f"Detections scoring above {min_score:g}", ["image", "class", "score", "x1", "y1", "x2", "y2"], rows
    )
    if not rows:
        console.status(f"nothing scores above {min_score:g}; --min-score -0.5 draws weaker detections")
    result = {
        "out": folder,
        "images": [
            {
                "path": photo.path,
                "picture": photo.picture,
                "detections": [
                    {"class": model.class_names[d.label], "score": d.score, "box": d.box}
                    for d in photo.detections
                ],
            }
            for photo in photos
        ],
        "skipped": {str(path): reason for path, reason in skipped.items()},
    }
    say(as_json, result, f"{len(photos)} pictures and detections.csv in {folder}")


def _data_set(
    ws: "Workspace",
    detectors: tuple[Path, ...],
    method: str,
    scales: tuple[int, ...],
    row: str,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sppnet_cli.cli.evaluate import show_detection_score
    from sppnet_cli.stages.evaluate import evaluate_detections
    from sppnet_cli.stages.plan import detection_steps

    if dry_run or not detectors:
        steps = detection_steps(ws, method, scales, row, "detect", out, detectors)
        if dry_run:
            show_plan(steps, ws, as_json)
            return
        missing = [step for step in steps[:-1] if not step.ready]
        if missing:
            console.status(
                f"no detector yet: making the {ws.profile.name} one first ({', '.join(s.name for s in missing)}), "
                f"about {clock(sum(s.seconds for s in missing))}"
            )
        detectors = (ws.detector(method, scales, row),)
    names = "+".join(detector.name for detector in detectors)
    target = out or ws.runs / f"detections-{names}-{'-'.join(map(str, scales))}-{split}"
    folder = ws.detect_with(detectors, target, split, scales)
    report = folder / "report"
    score = evaluate_detections(folder, ws.voc_data(), split, ws.detection_limit(split), report)
    show_detection_score(score)
    say(
        as_json,
        {"detections": folder / "detections.csv"} | score.as_dict(),
        f"written to {folder}: detections.csv, comp4/, proposal_recall.csv and report/",
    )
