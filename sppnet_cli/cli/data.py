"""`sppnet data`."""

import dataclasses
import shlex
from pathlib import Path

import click

from sppnet_cli import console
from sppnet_cli.cli.options import (
    PATH,
    FiniteRange,
    count_option,
    json_option,
    quiet_option,
    say,
    workers_option,
)
from sppnet_cli.errors import DataError, UsageError

_SHOWN = 20  # problems that are printed


@click.group("data", short_help="Make, fetch, import and check data sets.")
def command() -> None:
    """Make, fetch, import and check data sets."""


@command.command("mini", short_help="Make the embedded data set.")
@click.option("--out", type=PATH, help="Folder to make.  [default: a folder under runs/mini]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Another seed, other images.")
@json_option
def mini(out: Path | None, seed: int, as_json: bool) -> None:
    """Make the embedded data: small sets in the layouts of ImageNet, VOC 2007 and Caltech101, in under a minute."""
    from sppnet_cli.stages.profiles import find_profile
    from sppnet_cli.stages.workspace import Workspace

    console.configure(json=as_json)
    ws = Workspace(find_profile("mini"))
    stage = ws.embedded(seed).at(out)
    ws.make(stage)
    names = {name: stage.folder / name for name in ("imagenet", "VOCdevkit", "caltech101")}
    say(as_json, {"data": stage.folder} | names, *(f"{name}: {folder}" for name, folder in names.items()))


@command.command("statistics", short_help="Measure the objects and the windows of VOC sets.")
@click.argument("folders", metavar="[DIR]...", nargs=-1, type=PATH)
@click.option(
    "--mini", "with_mini", is_flag=True, help="Show the embedded set beside them; it is made when needed."
)
@count_option(
    "--images", default=60, help="Images of each set that are searched for windows; 0: none.", least=0
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of the choice of these images."
)
@workers_option
@json_option
@quiet_option
def statistics(
    folders: tuple[Path, ...],
    with_mini: bool,
    images: int,
    seed: int,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the sizes, numbers and marks of the objects in VOC sets beside each other.

    Each DIR is a set in the layout of VOC 2007; its trainval and test images are measured together.  In some images
    selective search proposes windows, and the part of the objects that they fit is printed, too.
    """
    from sppnet_cli.evaluation.voc_statistics import voc_statistics
    from sppnet_cli.stages.profiles import find_profile
    from sppnet_cli.stages.workspace import Workspace

    console.configure(json=as_json, quiet=quiet)
    if not folders and not with_mini:
        raise UsageError("name a VOC folder, or give --mini")
    sets = {str(folder): folder for folder in folders}
    if with_mini:
        ws = Workspace(find_profile("mini"))
        data = ws.embedded()
        ws.make(data)
        sets = {"mini": data.folder / "VOCdevkit"} | sets
    measured = {name: voc_statistics(folder, images, seed, workers) for name, folder in sets.items()}
    columns = zip(*(found.rows() for found in measured.values()), strict=True)
    rows = [(row[0][0], *(value for _, value in row)) for row in columns]
    console.table("VOC sets, trainval and test together", ["", *measured], rows)
    if as_json:
        say(as_json, {name: dataclasses.asdict(found) for name, found in measured.items()})


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
    say(as_json, {"data": folder}, f"{name}: {folder}", f"next: sppnet data check {shlex.quote(str(out))}")


@command.command("import", short_help="Make a data set of a labelling tool's export.")
@click.argument("export", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to make, in the layout of VOC 2007.")
@click.option(
    "--test",
    type=FiniteRange(min=0, max=1, max_open=True),
    default=0.2,
    metavar="PART",
    help="Part of the images to hold out, where the export has no split of its own.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of that split.")
@click.option("--copy", is_flag=True, help="Copy the images instead of linking to them.")
@click.option("--strict", is_flag=True, help="Refuse an export that needs mending or loses something.")
@json_option
@quiet_option
def import_(
    export: Path, out: Path, test: float, seed: int, copy: bool, strict: bool, as_json: bool, quiet: bool
) -> None:
    """Make a data set that all commands take of EXPORT: Pascal VOC (XML), COCO (JSON) or YOLO (text files).

    EXPORT is the folder that holds images and labels, or, where it holds labels of several formats, one file of the
    labels in it.  Boxes are clipped to their images and turned with them, and what was mended or left out is
    counted.  EXPORT itself stays as it is.
    """
    from sppnet_cli.data.imports.importing import FORMAT_NAMES, import_export

    console.configure(json=as_json, quiet=quiet)
    found = import_export(export, out, test=test, seed=seed, copy=copy, strict=strict)
    console.table(
        f"{export}: {found.source}; {found.images} images, {found.splits['trainval']} in trainval, "
        f"{found.splits['test']} in test",
        ["class", "images, trainval", "objects", "images, test", "objects", "objects mended", "left out"],
        found.table,
    )
    kinds = [("mended", found.mended), ("left out", found.left_out)]
    rows = [
        (side, kind.replace("_", " "), count, found.examples[kind])
        for side, counts in kinds
        for kind, count in counts.items()
    ]
    if rows:
        console.table("Mended and left out", ["", "what", "count", "first of them"], rows)
    then = f"next: sppnet train {shlex.quote(str(out))} --out my-detector"
    say(as_json, found.as_dict(), f"{FORMAT_NAMES[found.format]}: {out}", then)


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
    published = {True: "the full published set", False: "not the full published set"}
    lines = [
        f"{found.root}: {'your own set' if found.own else published[found.full]}, "
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
        raise DataError(f"{folder}: {number}, named above; mend them")
