"""`sppnet data`."""

import dataclasses
from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, json_option, say
from sppnet_cli.errors import DataError

_SHOWN = 20  # problems that are printed


@click.group("data", short_help="Make, fetch and check data sets.")
def command() -> None:
    """Make, fetch and check data sets."""


@command.command("mini", short_help="Make the embedded data set.")
@click.option("--out", type=PATH, default=Path("runs/mini/data"), help="Folder to make.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Another seed, other images.")
@json_option
def mini(out: Path, seed: int, as_json: bool) -> None:
    """Make the embedded data: small sets in the layouts of ImageNet, VOC 2007 and Caltech101, in under a minute."""
    from sppnet_cli.data.mini import is_mini, make_mini

    console.configure(json=as_json)
    if not is_mini(out, seed):
        make_mini(out, seed)
    names = {name: out / name for name in ("imagenet", "VOCdevkit", "caltech101")}
    say(as_json, {"data": out} | names, *(f"{name}: {folder}" for name, folder in names.items()))


@command.command("fetch", short_help="Download a published data set.")
@click.argument("name", type=click.Choice(["voc2007", "caltech101", "imagenet"]))
@click.option("--out", type=PATH, default=Path("data"), help="Folder that gets VOCdevkit/ or caltech101/.")
@json_option
def fetch(name: str, out: Path, as_json: bool) -> None:
    """Download VOC 2007 (trainval and test, 0.9 GB) or Caltech101 (0.14 GB), or say how to get ImageNet.

    Archives are checked by their MD5 and removed once unpacked.  What was cut off goes on at the next call.
    """
    from sppnet_cli.data.fetch import fetch_data, imagenet_steps

    console.configure(json=as_json)
    if name == "imagenet":
        steps = imagenet_steps(out)
        if as_json:
            say(as_json, {"steps": steps})
        else:
            click.echo("\n".join(steps))
        return
    folder = fetch_data(name, out)
    say(as_json, {"data": folder}, f"{name}: {folder}")


@command.command("check", short_help="Say what a folder holds and what is wrong with it.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--full", is_flag=True, help="Decode every image, not only its header.")
@click.option("--strict", is_flag=True, help="Count as a problem what is mended otherwise.")
@json_option
def check(folder: Path, full: bool, strict: bool, as_json: bool) -> None:
    """Say which data sets DIR holds, how much of them, which of the paper's tables they can make, and what is wrong.

    DIR is in the layout of ImageNet (train and val, or class folders), VOC 2007 or Caltech101, or has such
    folders in it.  The exit code is 3 when something is missing or cannot be read; what is mended as it is read, such
    as a box one pixel over the edge, is only counted.
    """
    from sppnet_cli.data.inspect import inspect_data

    console.configure(json=as_json)
    report = inspect_data(folder, full, strict)
    rows = [
        (
            found.layout,
            split.name,
            split.images,
            "" if split.published is None else split.published,
            split.classes,
            "{}..{}".format(*split.per_class),
            "" if split.objects is None else split.objects,
        )
        for found in report.data_sets
        for split in found.splits
    ]
    columns = ["layout", "split", "images", "published", "classes", "images a class", "objects"]
    console.table(f"{folder}, the embedded mini data" if report.mini else str(folder), columns, rows)
    lines = [
        f"{found.root}: {'' if found.full else 'not '}the full published set, "
        f"{'once mended ' if found.problems else ''}good for {found.use}"
        for found in report.data_sets
    ]
    problems = report.all_problems
    result = {
        "folder": folder,
        "mini": report.mini,
        "data_sets": [dataclasses.asdict(found) | {"full": found.full} for found in report.data_sets],
        "problems": problems,
    }
    say(as_json, result, *lines)
    for problem in problems[:_SHOWN]:
        console.warn(problem)
    if problems:
        more = len(problems) - _SHOWN
        if more > 0:
            console.warn(f"and {more} more; --json lists all")
        number = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"{folder}: {number}, told above; mend them")
