"""`sppnet pretrain`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import option, say, shared, show_plan
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


def parse_sizes(text: str) -> tuple[int, ...]:
    """`224,180` as numbers.  Raises `UsageError` for anything else."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--sizes {text}: write 224 or 224,180") from None
    if min(sizes) < 64 or max(sizes) > 1024:
        raise UsageError(f"--sizes {text}: sizes lie between 64 and 1024 pixels")
    return sizes


@click.command("pretrain", short_help="Train a network on images in ImageNet's layout.")
@option("--sizes", default="224", metavar="224[,180]", help="Input sizes: a full epoch at each in turn.")
@option(
    "--pyramid",
    type=click.Choice(["spp6", "spp4", "plain"]),
    default="spp6",
    help="{6,3,2,1}, {4,3,2,1}, or the plain net without one.",
)
@option("--epochs", type=click.IntRange(min=1), help="Passes over the images.  [default: the profile's]")
@shared
def command(
    ws: "Workspace",
    *,
    sizes: str,
    pyramid: str,
    epochs: int | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train a network on images in ImageNet's layout (a folder per class), or take over a torchvision trunk.

    \b
      sppnet pretrain --sizes 224,180
      sppnet pretrain --profile paper --data ILSVRC2012
      sppnet pretrain --arch squeezenet1_1 --weights DEFAULT
    """
    parsed = parse_sizes(sizes)
    recipe = replace(ws.profile.recipe, sizes=parsed, epochs=epochs or ws.profile.recipe.epochs)
    if pyramid == "plain" and set(parsed) != {224}:
        raise UsageError("--pyramid plain takes 224 px only: without a pyramid the fc layers fit one size")
    ws = replace(ws, profile=replace(ws.profile, recipe=recipe), data=None, imagenet=ws.data)
    if dry_run:
        from sppnet_cli.stages.plan import network_steps

        show_plan(network_steps(ws, pyramid, parsed, out), ws, as_json)
        return
    folder = ws.network(pyramid, parsed, out)
    say(as_json, {"network": folder}, f"network: {folder}")
