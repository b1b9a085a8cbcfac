"""`sppnet detect`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, FiniteRange, clock, option, say, scales_of, shared, show_plan
from sppnet_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.detection.fast import FastOptions
    from sppnet_cli.network.precision import Precision
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
@option("--min-score", type=FiniteRange(), default=0.0, help="Draw what scores above; the CSV has all.")
@option(
    "--fast", is_flag=True, help="Cut ranks and a cascade at their best: much quicker, a little less exact."
)
@option(
    "--fc-rank",
    metavar="1024|1024,256",
    help="Ranks that fc6, or fc6 and fc7, are cut to.  [default: whole; with --fast three eighths of fc6]",
)
@option(
    "--cascade",
    type=FiniteRange(0, 1, min_open=True),
    metavar="PART",
    help="Send only this part of an image's windows through the fc layers, those that a linear guess scores highest.  "
    "[default: all; with --fast 0.2]",
)
@option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    help="Numbers that the network computes in.",
)
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
    fast: bool,
    fc_rank: str | None,
    cascade: float | None,
    precision: "Precision",
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
      sppnet detect --detector RUN --fast holiday/
      sppnet detect --detector RUN --data VOCdevkit
      sppnet detect --detector RUN --detector ANOTHER --data VOCdevkit
    """
    if not detectors and (images or ws.data is not None):
        raise DataError(f"no detector for your own images: {_MAKE_ONE}")
    if precision != "fp32":
        from sppnet_cli.network.precision import require

        require(precision, ws.device)
    speed = _Speed(fast, _ranks(fc_rank), cascade, precision)
    if images and len(detectors) > 1:
        raise UsageError("detectors are combined on a data set; give one --detector for image files")
    if detectors:
        from sppnet_cli.detection.detector_files import read_description
        from sppnet_cli.stages.workspace import find_protocol

        about = read_description(detectors[0])
        ws = replace(ws, protocol=find_protocol(about.protocol))
        method, own_scales, row = about.method, about.scales, about.row
    else:
        method, own_scales, row = "spp", ws.protocol.scales, "ftfc7 bb"
    sides = scales_of(scales, ws) if scales and method == "spp" else own_scales
    if images:
        _photos(ws, detectors[0], sides, speed, images, proposal_side, min_score, out, dry_run, as_json)
    else:
        _data_set(ws, detectors, method, sides, row, speed, split, out, dry_run, as_json)


@dataclass(frozen=True)
class _Speed:
    """What was asked for, of what makes detection quicker."""

    fast: bool
    fc_rank: tuple[int, ...]
    cascade: float | None
    precision: "Precision"

    @property
    def suffix(self) -> str:
        """For the names of folders."""
        parts = ["fast"] if self.fast else []
        parts += [f"rank{','.join(map(str, self.fc_rank))}"] if self.fc_rank else []
        parts += [f"cascade{self.cascade:g}"] if self.cascade is not None else []
        parts += [self.precision] if self.precision != "fp32" else []
        return "".join(f"-{part}" for part in parts)

    def of(self, detector: Path) -> "FastOptions | None":
        """The options for that detector; None where nothing was asked for.  Raises `UsageError` for one on pool5."""
        from sppnet_cli.detection.detector_files import fastest
        from sppnet_cli.detection.fast import FastOptions

        options = fastest(detector) if self.fast else FastOptions()
        options = FastOptions(
            self.fc_rank or options.fc_rank, options.cascade if self.cascade is None else self.cascade
        )
        return options if options != FastOptions() else None


def _ranks(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    ranks = text.split(",")
    if len(ranks) > 2 or not all(rank.isdecimal() and int(rank) > 0 for rank in ranks):
        raise UsageError(f"--fc-rank {text}: write 1024 or 1024,256")
    return tuple(map(int, ranks))


def _photos(
    ws: "Workspace",
    detector: Path,
    scales: tuple[int, ...],
    speed: _Speed,
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
    folder = out or Path(f"detections{speed.suffix}")
    config = PhotoConfig(ws.proposals_method, ws.seed, ws.profile.timing_windows, proposal_side, min_score)
    if dry_run:
        show_plan([photo_step(ws, detector, scales, paths, folder, config.max_windows)], config, as_json)
        return
    model = Detector.load(
        detector, ws.device, scales or None, fast=speed.of(detector), precision=speed.precision
    )
    photos, skipped = detect_photos(config, model, paths, folder, workers=ws.workers)
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
    speed: _Speed,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sppnet_cli.cli.evaluate import show_detection_score
    from sppnet_cli.stages.detect import skipped_images
    from sppnet_cli.stages.evaluate import evaluate_detections
    from sppnet_cli.stages.plan import detection_steps

    names = "+".join(_short(path, ws) for path in detectors or (ws.detector_folder(method, scales, row),))
    target = out or ws.runs / f"detections-{names}-{'-'.join(map(str, scales))}-{split}{speed.suffix}"
    if dry_run or not detectors:
        steps = detection_steps(ws, method, scales, row, "detect", target, detectors, split)
        if dry_run:
            show_plan(steps, ws, as_json)
            return
        missing = [step for step in steps[:-1] if not step.ready]
        if missing:
            console.status(
                f"making first what the {ws.profile.name} detector lacks ({', '.join(s.name for s in missing)}), "
                f"about {clock(sum(s.seconds for s in missing))}"
            )
        ws.proposals(split)  # before any training: what is wrong with them is told at once
        detectors = (ws.detector(method, scales, row),)
    precision = speed.precision if speed.precision != "fp32" else None
    folder = ws.detect_with(detectors, target, split, scales, speed.of(detectors[0]), precision)
    report = folder / "report"
    score = evaluate_detections(folder, ws.voc_data(), split, ws.detection_limit(split), report)
    skipped = skipped_images(folder)
    show_detection_score(score, len(skipped))
    say(
        as_json,
        {"detections": folder / "detections.csv", "skipped": skipped} | score.as_dict(),
        f"written to {folder}: detections.csv, comp4/, proposal_recall.csv and report/",
    )


def _short(detector: Path, ws: "Workspace") -> str:
    """A detector's name in that of its detections; with its folder's where it is neither a run of these nor here."""
    folder = detector.resolve().parent
    here = folder in (ws.runs.resolve(), Path.cwd())
    return detector.name if here else f"{folder.name}-{detector.name}"
