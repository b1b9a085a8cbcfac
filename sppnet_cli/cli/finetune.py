"""`sppnet finetune`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import (
    PATH,
    method_option,
    next_command,
    option,
    say,
    scales_of,
    scales_option,
    shared,
)
from sppnet_cli.cli.plan import make_or_show

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("finetune", short_help="Fine-tune the fc layers on windows.")
@method_option
@scales_option
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: trained first]")
@shared
def command(
    ws: "Workspace",
    *,
    method: str,
    scales: str,
    network: Path | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fine-tune fc6, fc7 and a new fc8 (one output per class and one for background) on pooled windows.

    R-CNN fine-tunes all layers on warped windows with --profile paper.
    """
    from sppnet_cli.features.methods import METHODS

    ws = replace(ws, network_run=network)
    sides = () if METHODS[method].per_window else scales_of(scales, ws)
    stage = ws.finetuned(method, sides).at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is not None:
        same: list[str | Path] = ["--scales", scales] if sides else ["--method", method]
        same += ["--network", network] if network else []
        then = next_command(ws, "train-svm", "--layer", "ftfc7", "--head", folder, *same)
        say(as_json, {"head": folder}, f"fine-tuned fc layers: {folder}", then)
