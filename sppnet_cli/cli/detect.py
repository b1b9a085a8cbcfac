"""`sppnet detect`."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.chain import path_of
from sppnet_cli.cli.options import (
    PATH,
    FiniteRange,
    min_confidence_option,
    min_score_option,
    next_command,
    option,
    say,
    scales_of,
    shared,
)
from sppnet_cli.cli.plan import make, show
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.names import FC_LAYERS

if TYPE_CHECKING:
    import pandas as pd

    from sppnet_cli.detection.fast import FastOptions
    from sppnet_cli.detection.shown import Shown
    from sppnet_cli.network.precision import Precision
    from sppnet_cli.stages.formats import Format
    from sppnet_cli.stages.workspace import Workspace

BOX = ("x1", "y1", "x2", "y2")
_SURE = ("score", "confidence")
_MAKE_ONE = "make one with `sppnet train DATA --out my-detector`, and name it with --detector"


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
@min_confidence_option
@min_score_option
@option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["csv", "coco", "yolo", "voc"]),
    help="Write beside detections.csv: COCO results (detections.json, all of them), or what is sure enough to be drawn "
    "as label files for YOLO (yolo/) or VOC (voc/).",
)
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
    min_confidence: float | None,
    min_score: float | None,
    formats: "tuple[Format, ...]",
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
        from sppnet_cli.network.weights import load_spec
        from sppnet_cli.stages.cost import warn_of_bf16

        require(precision, ws.how.device)
        network = load_spec(detectors[0]) if detectors else ws.network_spec()
        warn_of_bf16(f"--precision {precision}", network, ws.how.device)
    if images and len(detectors) > 1:
        raise UsageError("detectors are combined on a data set; give one --detector for image files")
    if detectors:
        from sppnet_cli.detection.detector_files import read_description
        from sppnet_cli.protocols import find_protocol

        about = read_description(detectors[0])
        ws = replace(ws, protocol=find_protocol(about.protocol))
        has_scales = bool(about.scales)
        if fast and about.layer not in FC_LAYERS:
            console.warn(
                f"--fast: the SVMs of {detectors[0]} score {about.layer}, without fc layers: exact as ever"
            )
            fast = False
    else:
        has_scales = True
    speed = _Speed(fast, _ranks(fc_rank), cascade, precision)
    sides = scales_of(scales, ws) if scales and has_scales else None
    from sppnet_cli.detection.shown import Shown

    shown = Shown(min_score, min_confidence)
    if min_confidence is not None and (len(detectors) != 1 or about.calibration is None):
        raise UsageError(
            "--min-confidence: takes one detector that is calibrated, as those of `sppnet train` are; give --min-score"
        )
    if images:
        _photos(ws, detectors[0], sides, speed, images, proposal_side, shown, formats, out, dry_run, as_json)
    else:
        _data_set(ws, detectors, sides, speed, split, shown, formats, out, dry_run, as_json)


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
        """The options for that detector; None where nothing was asked for."""
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
    scales: tuple[int, ...] | None,
    speed: _Speed,
    images: tuple[Path, ...],
    proposal_side: int,
    shown: "Shown",
    formats: "tuple[Format, ...]",
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    import pandas as pd

    from sppnet_cli.data.images import find_images
    from sppnet_cli.data.proposals import METHODS
    from sppnet_cli.detection.detector_files import read_description
    from sppnet_cli.stages.formats import images_of_files, write_formats
    from sppnet_cli.stages.photos import PhotoConfig, read_photos

    proposals = ws.proposals_method or "ss-fast"
    if proposals not in METHODS:
        raise UsageError(f"--proposals {proposals}: for image files one of {', '.join(METHODS)}")
    paths = find_images(images)
    precision = speed.precision if speed.precision != "fp32" else None
    config = PhotoConfig(
        scales,
        speed.of(detector),
        precision,
        proposals,
        ws.seed,
        ws.profile.timing_windows,
        proposal_side,
        shown,
    )
    stage = ws.photos(detector, paths, config, [speed.suffix.removeprefix("-")]).at(out)
    if dry_run:
        show(ws, [stage], as_json)
        return
    folder = make(ws, stage)
    photos, skipped = read_photos(folder)
    class_names = read_description(detector).class_names
    pictures = {str(photo.path): photo.picture for photo in photos}
    frame = pd.concat([photo.detections for photo in photos])
    written = []
    if set(formats) - {"csv"}:
        images_found = images_of_files(paths, pictures, class_names)
        written = write_formats(folder, frame, formats, shown, images_found, class_names)
    _table(frame, shown)
    result = {
        "out": folder,
        "images": [
            {
                "path": photo.path,
                "picture": photo.picture,
                "detections": [
                    _entry(d)
                    for d in photo.detections.to_dict("records")
                    if shown.min_score is None or d["score"] > shown.min_score
                ],
            }
            for photo in photos
        ],
        "skipped": skipped,
    }
    names = ", ".join(["detections.csv", *written])
    say(as_json, result, f"{len(photos)} pictures, {names} in {folder}")


def _table(frame: "pd.DataFrame", shown: "Shown") -> None:
    """Print what pictures show, and a hint where that is nothing."""
    columns = [column for column in _SURE if column in frame]
    what = shown.describe("confidence" in frame)
    rows = [
        (d["image"], d["class"], *(f"{d[name]:.2f}" for name in columns), *(f"{d[side]:.0f}" for side in BOX))
        for d in frame[shown.rows(frame)].to_dict("records")
    ]
    console.table(f"Detections {what}", ["image", "class", *columns, *BOX], rows)
    if rows:
        return
    limit = columns[-1] if shown.min_score is None else "score"
    best = "" if frame.empty else f"; the best has {frame[limit].max():.2f}"
    hint = best and f": --min-{limit} {below(frame[limit].max()):g} shows it"
    console.status(f"nothing {what}{best}{hint}")


def _entry(row: "Mapping[Hashable, Any]") -> dict[str, Any]:
    """A detection under `--json`."""
    sure = {column: row[column] for column in _SURE if column in row}
    return {"class": row["class"], **sure, "box": [row[side] for side in BOX]}


def below(score: float) -> float:
    """The largest number of two decimals below a score."""
    return (math.ceil(100 * score) - 1) / 100


def _data_set(
    ws: "Workspace",
    detectors: tuple[Path, ...],
    scales: tuple[int, ...] | None,
    speed: _Speed,
    split: str,
    shown: "Shown",
    formats: "tuple[Format, ...]",
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sppnet_cli.cli.evaluate import show_detection_score
    from sppnet_cli.data.voc import load_voc
    from sppnet_cli.stages.detect import skipped_images
    from sppnet_cli.stages.formats import images_of_set, write_formats
    from sppnet_cli.stages.score_detections import evaluate_detections, read_detections

    precision = speed.precision if speed.precision != "fp32" else None
    if detectors:
        names, fast = [path.name for path in detectors], speed.of(detectors[0])
        stage = ws.detect(detectors, [*names, speed.suffix.removeprefix("-")], split, scales, fast, precision)
    else:
        detector = ws.detector("spp", ws.protocol.scales, "ftfc7 bb")
        if speed.fast and not dry_run:
            make(ws, detector)  # the ranks of --fast are those of its fc layers
        fast = speed.of(detector.folder) if detector.ready else None
        stage = ws.detect(
            [detector], ["spp", "ftfc7-bb", speed.suffix.removeprefix("-")], split, scales, fast, precision
        )
    stage = stage.at(out)
    if dry_run:
        show(ws, [stage], as_json)
        return
    folder = make(ws, stage)
    report = folder / "report"
    score = evaluate_detections(folder, path_of(ws.voc()), split, ws.detection_limit(split), report)
    written = []
    if set(formats) - {"csv"}:
        dataset = load_voc(path_of(ws.voc()), split, ws.detection_limit(split))
        frame, _ = read_detections(folder, dataset)
        images = images_of_set(dataset)
        written = write_formats(folder, frame, formats, shown, images, dataset.class_names)
    skipped = skipped_images(folder)
    show_detection_score(score, ws.profile.caveat, len(skipped))
    other = ["--split", split] if split != "test" else []
    say(
        as_json,
        {"detections": folder / "detections.csv", "skipped": skipped} | score.as_dict(),
        f"written to {folder}: {', '.join(['detections.csv', *written])}, comp4/, proposal_recall.csv and report/",
        next_command(ws, "visualize", "detections", "--detections", folder, *other),
    )
