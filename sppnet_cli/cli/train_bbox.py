"""`sppnet train-bbox`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import PATH, next_command, option, say, shared
from sppnet_cli.cli.plan import make_or_show

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("train-bbox", short_help="Add box regression to a detector.")
@option("--detector", type=PATH, help="Run of `sppnet train-svm`.  [default: 5-scale ftfc7, trained first]")
@shared
def command(
    ws: "Workspace", *, detector: Path | None, out: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Add bounding-box regression on pooled features; the result is a new detector."""
    if detector is None:
        stage = ws.detector("spp", ws.protocol.scales, "ftfc7 bb")
    else:
        from sppnet_cli.detection.detector_files import read_description

        about = read_description(detector)
        stage = ws.with_bbox(detector, about.method, about.scales, f"{about.row} bb")
        stage = stage.at(detector.with_name(f"{detector.name}-bb"))
    stage = stage.at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is not None:
        then = next_command(ws, "detect", "--detector", folder)
        say(as_json, {"detector": folder}, f"detector: {folder}", then)
