"""`sppnet reproduce`."""

import importlib
import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, option, say, shared
from sppnet_cli.cli.plan import make, show
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError, SppnetError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

ALL = (*(f"table{number}" for number in range(1, 10)), "claims")
NAMES = (
    *ALL,
    "architectures",
    "complexity",
    "convergence",
    "corners",
    "fc_size",
    "scale",
    "scale_pooling",
    "views",
    "warp",
)
DATA_OPTIONS = {
    "ImageNet": ("--imagenet", "IMAGENET"),
    "VOC 2007": ("--data", "VOC"),
    "Caltech101": ("--caltech", "CALTECH"),
}


@click.command("reproduce", short_help="Reproduce tables, ablations and claims of the paper.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=click.Choice([*NAMES, "all"]))
@option("--results", type=PATH, default=Path("results"), help="Folder for the tables.")
@option("--imagenet", type=PATH, help="ImageNet folder, for a profile that trains on it.")
@option("--caltech", type=PATH, help="Caltech101 folder, for a profile that uses real images.")
@option(
    "--seeds", metavar="0,1,2", help="Repeat with each of these seeds and report the mean.  [default: --seed]"
)
@option(
    "--rcnn",
    type=click.Choice(["timing", "full"]),
    help="Measure only R-CNN's time, or its mAP too.  [default: the profile's]",
)
@shared
def command(
    ws: "Workspace",
    *,
    names: tuple[str, ...],
    results: Path,
    imagenet: Path | None,
    caltech: Path | None,
    seeds: str | None,
    rcnn: str | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Reproduce the paper's tables (table1 to table9), its claims, ablations and the journal edition's comparison.

    `all` is the nine tables and the claims.  Stages that several of them need are made once.  Tables are written to
    RESULTS/PROFILE, and report.html, a page with all of them (`sppnet report`).

    \b
      sppnet reproduce table6
      sppnet reproduce table1 table2 claims --seeds 0,1,2
      sppnet reproduce table6 --profile pretrained --data VOCdevkit --arch squeezenet1_1 --weights DEFAULT
    """
    from sppnet_cli.report.page import PAGE
    from sppnet_cli.stages.workspace import NeedsData

    names = tuple(dict.fromkeys(each for name in names for each in (ALL if name == "all" else (name,))))
    runner = experiment_module("runner")
    ws = replace(ws, imagenet=imagenet, caltech=caltech, rcnn_map=None if rcnn is None else rcnn == "full")
    folder = tables_folder(ws, results, out)
    workspaces = runner.of_seeds(ws, runner.parse_seeds(seeds, ws.seed))
    experiments = [experiment_module(name).EXPERIMENT for name in names if name != "claims"]
    try:
        stages = [stage for each in experiments for stage in each.stages(workspaces)]
        if dry_run:
            files = [file for each in experiments for file in each.files]
            files += experiment_module("claims").FILES if "claims" in names else ()
            files += [PAGE] if any(file.endswith(".json") for file in files) else []
            show(ws, stages, as_json, writes=[folder / file for file in files])
            return
        if stages:
            make(ws, *stages)
        workspaces = [replace(each, remake=False) for each in workspaces]  # just made again
        written: list[dict[str, Any]] = []
        for each in experiments:
            start = time.perf_counter()
            made = each.run(workspaces, folder)
            console.status(str(made))
            written.append(made.as_dict() | {"seconds": round(time.perf_counter() - start, 2)})
    except NeedsData as error:
        name, variable = DATA_OPTIONS[error.what]
        raise DataError(
            f"profile {ws.profile.name} needs {error.what}: give {name} DIR (make: {variable}=DIR)"
        ) from None
    if "claims" in names:
        written.append(experiment_module("claims").write(folder, ws.profile.name))
    if world().first:
        _write_page(folder)
    say(as_json, written[0] if len(written) == 1 else {"experiments": written})


def _write_page(folder: Path) -> None:
    """Write the page of all tables in a folder; what is wrong with an older one of them costs no new result."""
    from sppnet_cli.report.page import PAGE, write_results_page
    from sppnet_cli.report.results import has_tables

    if not has_tables(folder):
        return
    try:
        write_results_page(folder)
    except SppnetError as error:
        console.warn(f"no page was written: {error}")
    else:
        console.status(f"all of it on one page, for a browser: {folder / PAGE}")


def tables_folder(ws: "Workspace", results: Path, out: Path | None) -> Path:
    """The folder for an experiment's files.  Raises `UsageError` for an `out` that is or looks like a file."""
    if out is not None and (out.is_file() or out.suffix[1:] in ("csv", "md", "tex", "json", "png")):
        raise UsageError(f"--out {out}: several files are written; give the folder that they go to")
    return out or results / ws.profile.name


def experiment_module(name: str) -> ModuleType:
    """A module of `experiments/`, which is part of the installed package and beside it in the source tree."""
    package = "sppnet_cli.experiments"
    beside = Path(__file__).parents[2] / "experiments"
    inside = Path(__file__).parents[1] / "experiments"
    if package not in sys.modules and not inside.is_dir():
        spec = importlib.util.spec_from_file_location(
            package, beside / "__init__.py", submodule_search_locations=[str(beside)]
        )
        if spec is None or spec.loader is None or not beside.is_dir():
            raise DataError(f"{inside}: the experiments are missing; install sppnet anew")
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        spec.loader.exec_module(module)
    return importlib.import_module(f"{package}.{name}")
