"""`sppnet data`."""

from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, say


@click.group("data", short_help="Make data sets.")
def command() -> None:
    """Make data sets."""


@command.command("mini", short_help="Make the embedded data set.")
@click.option("--out", type=PATH, default=Path("runs/mini/data"), help="Folder to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed, other images.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def mini(out: Path, seed: int, as_json: bool) -> None:
    """Make the embedded data: small sets in the layouts of ImageNet, VOC 2007 and Caltech101, in under a minute."""
    from sppnet_cli.data.mini import is_mini, make_mini

    console.configure(json=as_json)
    if not is_mini(out, seed):
        make_mini(out, seed)
    names = {name: out / name for name in ("imagenet", "VOCdevkit", "caltech101")}
    say(as_json, {"data": out} | names, *(f"{name}: {folder}" for name, folder in names.items()))
