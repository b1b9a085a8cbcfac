"""`sppnet propose`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.chain import Stage
from sppnet_cli.cli.options import option, say, shared
from sppnet_cli.cli.plan import make, show
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("propose", short_help="Find candidate windows by selective search.")
@option("--split", default="trainval", help="List of ImageSets/Main.")
@shared
def command(ws: "Workspace", *, split: str, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Find candidate windows in the images of a VOC split by selective search, a file per image."""
    stage = replace(ws, proposals_seed=ws.seed).proposals(split)
    if not isinstance(stage, Stage):
        raise UsageError(
            f"--proposals {stage}: a run of `sppnet propose` already, for the commands that take windows; name a method "
            "or the authors' .mat files here"
        )
    stage = stage.at(out)
    if dry_run:
        show(ws, [stage], as_json)
        return
    folder = make(ws, stage)
    say(as_json, {"proposals": folder}, f"proposals: {folder}")
