"""`sppnet pretrain`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli.cli.options import FiniteRange, count_option, next_command, option, say, say_spread, shared
from sppnet_cli.cli.plan import make_or_show
from sppnet_cli.errors import UsageError
from sppnet_cli.names import SCHEDULES

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
    help="Input sizes in pixels: one epoch at each in turn, or each epoch at a size drawn from a range.",
)
@option(
    "--pyramid",
    type=click.Choice(["spp6", "spp4", "plain"]),
    default="spp6",
    help="Pyramid of 6x6, 3x3, 2x2 and 1x1 bins, or of 4x4, 3x3, 2x2 and 1x1; or the plain net without one.",
)
@count_option("--epochs", help="Passes over the images.  [default: the profile's]")
@count_option("--batch", help="Images in a batch, over all processes.  [default: the profile's]")
@option(
    "--rate",
    type=FiniteRange(min=0, min_open=True),
    metavar="RATE",
    help="Initial learning rate, with one-cycle the highest.  [default: the profile's]",
)
@option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="When the learning rate drops.  plateau: to a tenth when the training error stops falling, twice; steps: to a "
    "tenth after 4/7 and after 29/35 of the epochs; one-cycle: it rises, then falls.  "
    "[default: the profile's]",
)
@option("--amp", is_flag=True, help="Train in mixed precision (bfloat16).")
@option("--tensorboard", is_flag=True, help="Also write TensorBoard events (pip install tensorboard).")
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
    """Train a network on images in ImageNet's layout (a folder per class), or take a trunk of torchvision or timm with
    its ImageNet weights.

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
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is not None:
        then = next_command(ws, "evaluate", "--network", folder)
        say(as_json, {"network": folder}, f"network: {folder}", then)
