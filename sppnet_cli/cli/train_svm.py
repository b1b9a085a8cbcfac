"""`sppnet train-svm`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import (
    PATH,
    method_option,
    option,
    say,
    scales_of,
    scales_option,
    shared,
    show_plan,
)

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("train-svm", short_help="Train a detector's SVMs.")
@option(
    "--layer",
    type=click.Choice(["pool5", "fc6", "fc7", "ftfc6", "ftfc7"]),
    default="ftfc7",
    help="Layer of the features; ft: of the fine-tuned fc layers.",
)
@method_option
@scales_option
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: trained first]")
@option("--head", type=PATH, help="Run of `sppnet finetune`.  [default: trained first]")
@shared
def command(
    ws: "Workspace",
    *,
    layer: str,
    method: str,
    scales: str,
    network: Path | None,
    head: Path | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train one linear SVM per class with hard negative mining; the result is a detector."""
    ws = replace(ws, network_run=network, head_run=head)
    sides = scales_of(scales, ws) if method == "spp" else ()
    if dry_run:
        from sppnet_cli.stages.plan import detection_steps

        show_plan(detection_steps(ws, method, sides, layer, "train-svm", out), ws, as_json)
        return
    folder = ws.detector(method, sides, layer, out)
    say(as_json, {"detector": folder}, f"detector: {folder}")
