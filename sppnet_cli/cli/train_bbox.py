"""`sppnet train-bbox`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import PATH, option, say, shared, show_plan

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("train-bbox", short_help="Add box regression to a detector.")
@option("--detector", type=PATH, help="Run of `sppnet train-svm`.  [default: 5-scale ftfc7, trained first]")
@shared
def command(
    ws: "Workspace", *, detector: Path | None, out: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Add bounding-box regressors on pooled features; the result is a detector once more."""
    method, scales, row = "spp", ws.protocol.scales, "ftfc7"
    if detector is not None:
        from sppnet_cli.detection.detector_files import read_description

        about = read_description(detector)
        method, scales, row = about.method, about.scales, about.row
    target = out or (
        detector.with_name(f"{detector.name}-bb")
        if detector
        else ws.detector_folder(method, scales, f"{row} bb")
    )
    if dry_run:
        from sppnet_cli.stages.plan import detection_steps

        given = () if detector is None else (detector,)
        show_plan(detection_steps(ws, method, scales, f"{row} bb", "train-bbox", target, given), ws, as_json)
        return
    base = detector or ws.detector(method, scales, row)
    folder = ws.with_bbox(base, method, scales, target)
    say(as_json, {"detector": folder}, f"detector: {folder}")
