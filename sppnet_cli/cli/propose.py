"""`sppnet propose`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.chain import Stage
from sppnet_cli.cli.options import next_command, option, say, shared
from sppnet_cli.cli.plan import make_or_show
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("propose", short_help="Propose windows by selective search.")
@option("--split", default="trainval", metavar="NAME", help="Image list of the VOC set (in ImageSets/Main).")
@shared
def command(ws: "Workspace", *, split: str, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Propose windows in the images of a VOC split, by selective search unless --proposals says otherwise.

    Writes boxes/ID.npy for each image, and index.csv.
    """
    stage = replace(ws, proposals_seed=ws.seed).proposals(split)
    if not isinstance(stage, Stage):
        raise UsageError(
            f"--proposals {stage}: a run of `sppnet propose` already; give a method or the authors' .mat files"
        )
    stage = stage.at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is not None:
        then = [next_command(ws, "train-svm", "--proposals", folder)] if split == "trainval" else []
        say(as_json, {"proposals": folder}, f"proposals: {folder}", *then)
