"""`sppnet pretrain`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli.cli.options import FiniteRange, option, say, say_spread, shared
from sppnet_cli.cli.plan import make, show
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


def parse_sizes(text: str) -> tuple[tuple[int, ...], bool]:
    """`224,180` as numbers and False; `180..224` as its ends and True.  Raises `UsageError` for anything else."""
    drawn = ".." in text
    try:
        sizes = tuple(int(part) for part in text.split(".." if drawn else ","))
    except ValueError:
        sizes = ()
    if not sizes or (drawn and (len(sizes) != 2 or sizes[0] > sizes[1])):
        raise UsageError(f"--sizes {text}: write 224, 224,180 or 180..224")
    if min(sizes) < 64 or max(sizes) > 1024:
        raise UsageError(f"--sizes {text}: sizes lie between 64 and 1024 pixels")
    return sizes, drawn


@click.command("pretrain", short_help="Train a network on images in ImageNet's layout.")
@option(
    "--sizes",
    default="224",
    metavar="224[,180]|180..224",
    help="Input sizes: a full epoch at each in turn, or at one drawn from a range.",
)
@option(
    "--pyramid",
    type=click.Choice(["spp6", "spp4", "plain"]),
    default="spp6",
    help="{6,3,2,1}, {4,3,2,1}, or the plain net without one.",
)
@option("--epochs", type=click.IntRange(min=1), help="Passes over the images.  [default: the profile's]")
@option(
    "--batch",
    type=click.IntRange(min=1),
    help="Images a batch, of all processes together.  [default: the profile's]",
)
@option(
    "--rate",
    type=FiniteRange(min=0, min_open=True),
    help="First (one-cycle: highest) learning rate.  [default: the profile's]",
)
@option(
    "--schedule",
    type=click.Choice(["plateau", "steps", "one-cycle"]),
    help="plateau: a tenth when the training error stops falling, twice; steps: after 4/7 and 29/35 of the epochs.  "
    "[default: the profile's]",
)
@option("--amp", is_flag=True, help="Mixed precision, in bfloat16.")
@option("--tensorboard", is_flag=True, help="Write TensorBoard's events too (pip install tensorboard).")
@shared
def command(
    ws: "Workspace",
    *,
    sizes: str,
    pyramid: str,
    epochs: int | None,
    batch: int | None,
    rate: float | None,
    schedule: str | None,
    amp: bool,
    tensorboard: bool,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train a network on images in ImageNet's layout (a folder per class), or take over a torchvision trunk.

    \b
      sppnet pretrain --sizes 224,180
      sppnet pretrain --profile paper --data ILSVRC2012
      torchrun --nproc-per-node 8 -m sppnet_cli pretrain --profile paper --data ILSVRC2012 --amp
      sppnet pretrain --arch squeezenet1_1 --weights DEFAULT
    """
    from sppnet_cli.stages.cost import warn_of_bf16

    parsed, drawn = parse_sizes(sizes)
    given: dict[str, Any] = {"epochs": epochs, "batch": batch, "rate": rate, "schedule": schedule}
    recipe = replace(
        ws.profile.recipe,
        sizes=parsed,
        draw_size=drawn,
        amp=amp,
        **{name: value for name, value in given.items() if value is not None},
    )
    if pyramid == "plain" and set(parsed) != {224}:
        raise UsageError("--pyramid plain takes 224 px only: without a pyramid the fc layers fit one size")
    ws = replace(
        ws,
        profile=replace(ws.profile, recipe=recipe),
        data=None,
        imagenet=ws.data,
        how=replace(ws.how, tensorboard=tensorboard),
    )
    if amp:
        warn_of_bf16("--amp", ws.network_spec(pyramid), ws.how.device)
    say_spread(ws)
    stage = ws.trained_network(pyramid, parsed).at(out)
    if dry_run:
        show(ws, [stage], as_json)
        return
    folder = make(ws, stage)
    say(as_json, {"network": folder}, f"network: {folder}")
