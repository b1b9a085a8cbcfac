"""`sppnet propose`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import option, say, shared, show_plan
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("propose", short_help="Find candidate windows by selective search.")
@option("--split", default="trainval", help="List of ImageSets/Main.")
@shared
def command(ws: "Workspace", *, split: str, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Find candidate windows in the images of a VOC split by selective search, a file per image."""
    given = ws.proposals_run(split)
    if given is not None:
        raise UsageError(
            f"--proposals {given}: a run of `sppnet propose` already, for the commands that take windows; name a method "
            "or the authors' .mat files here"
        )
    if dry_run:
        from sppnet_cli.stages.plan import propose_step

        show_plan([propose_step(ws, split, out)], ws, as_json)
        return
    folder = ws.proposals(split, out)
    say(as_json, {"proposals": folder}, f"proposals: {folder}")
