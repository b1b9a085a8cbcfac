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
    "--detector", type=PATH, help="Run of train-svm or train-bbox.  [default: the mini one, trained first]"
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
    detector: Path | None,
    scales: str | None,
    split: str,
    proposal_side: int,
    min_score: float,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Detect objects in IMAGES (files or folders) or, without any, in the images of a VOC split.

    Writes detections.csv, for IMAGES annotated pictures too, and prints a table.

    \b
      sppnet detect --scales 480..1200
      sppnet detect --detector RUN street.jpg
      sppnet detect --detector RUN --data VOCdevkit
    """
    if detector is None and (images or ws.data is not None):
        raise DataError(f"no detector for your own images: {_MAKE_ONE}")
    if detector is not None:
        from sppnet_cli.detection.detector import read_description
        from sppnet_cli.stages.workspace import find_protocol

        about = read_description(detector)
        ws = replace(ws, protocol=find_protocol(about.protocol))
        method, own_scales, row = about.method, about.scales, about.row
    else:
        method, own_scales, row = "spp", ws.protocol.scales, "ftfc7 bb"
    sides = scales_of(scales, ws) if scales and method == "spp" else own_scales
    if images:
        assert detector is not None
        _photos(ws, detector, sides, images, proposal_side, min_score, out, dry_run, as_json)
    else:
        _data_set(ws, detector, method, sides, row, split, out, dry_run, as_json)


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
    detector: Path | None,
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

    if dry_run or detector is None:
        steps = detection_steps(ws, method, scales, row, "detect", out, detector)
        if dry_run:
            show_plan(steps, ws, as_json)
            return
        missing = [step for step in steps[:-1] if not step.ready]
        if missing:
            console.status(
                f"no detector yet: making the {ws.profile.name} one first ({', '.join(s.name for s in missing)}), "
                f"about {clock(sum(s.seconds for s in missing))}"
            )
        detector = ws.detector(method, scales, row)
    target = out or ws.runs / f"detections-{detector.name}-{'-'.join(map(str, scales))}-{split}"
    folder = ws.detect_with(detector, method, scales, target, split)
    score = evaluate_detections(folder, ws.voc_data(), split, ws.detection_limit(split))
    show_detection_score(score)
    say(
        as_json,
        {"detections": folder / "detections.csv"} | score.as_dict(),
        f"written to {folder}/detections.csv",
    )
