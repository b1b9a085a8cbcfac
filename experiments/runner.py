"""What the experiments share: their options, seeds, record and files."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, option, say, shared, show_plan
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.outcomes import Outcome
from sppnet_cli.runs import environment
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import NeedsData, Workspace
from sppnet_cli.tables.claims import outcomes_folder, write_outcomes
from sppnet_cli.tables.paper import VOC_CLASSES, empty_like_published, unit
from sppnet_cli.tables.render import format_mean, fraction
from sppnet_cli.tables.write import mean_and_deviation, write_small_table, write_table

Cell = tuple[Any, str]  # row and column of a table
KINDS = ("csv", "md", "tex", "json")  # of a table's files
DATA_OPTIONS = {
    "ImageNet": ("--imagenet", "IMAGENET"),
    "VOC 2007": ("--data", "VOC"),
    "Caltech101": ("--caltech", "CALTECH"),
}


@dataclass
class Measured:
    """What one seed gives: the outcome on the test images behind each cell, cells that have none, and remarks."""

    outcomes: dict[Cell, Outcome] = field(default_factory=dict)
    values: dict[Cell, float] = field(default_factory=dict)  # in the units printed
    images: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = VOC_CLASSES  # columns of Tables 7 to 9
    more: dict[str, Any] = field(default_factory=dict)  # for the record

    def cells(self) -> dict[Cell, float]:
        """Every measured cell, in the units printed."""
        scale = {"percent": 100, "seconds": 1}
        found = {cell: scale[unit(cell[0])] * outcome.value() for cell, outcome in self.outcomes.items()}
        return found | self.values


@dataclass
class Written:
    """What an experiment made."""

    name: int | str  # of the table
    table: pd.DataFrame
    files: list[Path]

    def tell(self, as_json: bool, seconds: float) -> None:
        """Say so, under `--json` as an object; `cells` counts those that were measured."""
        if not self.files:
            return  # the first process of several wrote them
        result = {
            "table": self.name,
            "cells": int(self.table.notna().to_numpy().sum()),
            "files": self.files,
            "seconds": round(seconds, 2),
        }
        names = [str(self.files[0]), *("." + path.name.partition(".")[2] for path in self.files[1:])]
        say(as_json, result, f"written to {', '.join(names[:-1])} and {names[-1]}")


def experiment(
    number: int,
    title: str,
    measure: Callable[[Workspace], Measured],
    plan: Callable[[Workspace], list[Step]],
    *,
    detection: bool = False,
) -> click.Command:
    """The command of a table of the report: `measure` for every seed, the mean written to the table."""

    def write(workspaces: list[Workspace], folder: Path) -> Written:
        return run_table(number, workspaces, measure, folder)

    return _command(title, write, plan, detection=detection)


def small_table(
    name: str,
    title: str,
    published: Callable[[], pd.DataFrame],
    measure: Callable[[Workspace], Measured],
    plan: Callable[[Workspace], list[Step]],
    *,
    source: str = "paper",
    detection: bool = False,
) -> click.Command:
    """The command of a table that the report does not number; `published` gives its rows and columns."""

    def write(workspaces: list[Workspace], folder: Path) -> Written:
        return run_small_table(name, workspaces, measure, published(), folder, source)

    return _command(title, write, plan, detection=detection)


def _command(
    title: str,
    write: Callable[[list[Workspace], Path], Written],
    plan: Callable[[Workspace], list[Step]],
    *,
    detection: bool,
) -> click.Command:
    """The options that all experiments have, and those of detection or classification alone."""
    caltech_option = option("--caltech", type=PATH, help="Caltech101, for a profile on real images.")
    rcnn_option = option(
        "--rcnn",
        "rcnn_map",
        type=click.Choice(["timing", "full"]),
        callback=lambda _context, _option, text: None if text is None else text == "full",
        help="Whether R-CNN's mAP is measured too, or its time alone.  [default: the profile's]",
    )

    @click.command(help=title)
    @shared
    @option("--results", type=PATH, default=Path("results"), help="Where tables go.")
    @option("--imagenet", type=PATH, help="ImageNet, for a profile that trains on it.")
    @option("--seeds", metavar="0,1,2", help="Measure with each and take the mean.  [default: --seed]")
    @(rcnn_option if detection else caltech_option)
    def command(
        ws: Workspace,
        *,
        results: Path,
        seeds: str | None,
        out: Path | None,
        dry_run: bool,
        as_json: bool,
        **of_workspace: Any,
    ) -> None:
        ws = replace(ws, **of_workspace)
        folder = tables_folder(ws, results, out)
        workspaces = [replace(ws, seed=seed) for seed in parse_seeds(seeds, ws.seed)]
        with own_options(ws):
            if dry_run:
                steps: dict[Path, Step] = {}
                for step in (step for each in workspaces for step in plan(each)):
                    steps.setdefault(step.out, step)
                show_plan(list(steps.values()), ws, as_json)
                return
            start = time.perf_counter()
            written = write(workspaces, folder)
        written.tell(as_json, time.perf_counter() - start)

    return command


def tables_folder(ws: Workspace, results: Path, out: Path | None) -> Path:
    """Where an experiment's files go.  Raises `UsageError` for an `out` that is or looks like a file."""
    if out is not None and (out.is_file() or out.suffix[1:] in (*KINDS, "png")):
        raise UsageError(f"--out {out}: several files are written; give the folder that they go to")
    return out or results / ws.profile.name


@contextmanager
def own_options(ws: Workspace) -> Iterator[None]:
    """Say of data that are missing which option of an experiment names them."""
    try:
        yield
    except NeedsData as error:
        name, variable = DATA_OPTIONS[error.what]
        raise DataError(
            f"profile {ws.profile.name} needs {error.what}: give {name} DIR (make: {variable}=DIR)"
        ) from None


def parse_seeds(text: str | None, default: int) -> tuple[int, ...]:
    """`0,1,2` as numbers.  Raises `UsageError` for anything else."""
    if text is None:
        return (default,)
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--seeds {text}: write different whole numbers: 0,1,2")
    return tuple(map(int, parts))


def run_table(
    number: int, workspaces: list[Workspace], measure: Callable[[Workspace], Measured], folder: Path
) -> Written:
    """Measure a table with every workspace (one per seed), write it to `folder` and print it."""
    by_seed, about = measure_seeds(workspaces, measure)
    classes = next(iter(by_seed.values())).classes
    table, spread = over_seeds(empty_like_published(number, classes), by_seed)
    for row, column in next(iter(by_seed.values())).cells():  # of a control, which the report does not print
        if row not in table.index:
            mean = np.mean([each.cells()[row, column] for each in by_seed.values()])
            about.setdefault("control", {}).setdefault(row, {})[column] = fraction(float(mean), row)
    files: list[Path] = []
    if world().first:
        shutil.rmtree(outcomes_folder(folder, number), ignore_errors=True)  # seeds that are not measured now
        for seed, measured in by_seed.items():
            write_outcomes(folder, number, seed, measured.outcomes)
        files = write_table(folder, number, table, about, deviation=spread, seeds=len(by_seed))
        show(f"Table {number}", workspaces[0], table, spread)
    return Written(number, table, files)


def run_small_table(
    name: str,
    workspaces: list[Workspace],
    measure: Callable[[Workspace], Measured],
    published: pd.DataFrame,
    folder: Path,
    source: str = "paper",
) -> Written:
    """Measure a table that the report does not number, write it to `folder` and print it."""
    by_seed, about = measure_seeds(workspaces, measure)
    table, spread = over_seeds(published, by_seed)
    files: list[Path] = []
    if world().first:
        files = write_small_table(
            folder, name, table, published, about, source=source, deviation=spread, seeds=len(by_seed)
        )
        show(name, workspaces[0], table, spread)
    return Written(name, table, files)


def measure_seeds(
    workspaces: list[Workspace], measure: Callable[[Workspace], Measured]
) -> tuple[dict[int, Measured], dict[str, Any]]:
    """What every seed gives, and the record of how it came about."""
    by_seed: dict[int, Measured] = {}
    seconds: dict[str, float] = {}
    for ws in workspaces:
        start = time.perf_counter()
        by_seed[ws.seed] = measure(ws)
        seconds[f"seed {ws.seed}"] = round(time.perf_counter() - start, 2)
    return by_seed, record(workspaces, by_seed, seconds)


def over_seeds(like: pd.DataFrame, by_seed: Mapping[int, Measured]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and deviation over the seeds, with the rows and columns of `like`."""
    tables = []
    for measured in by_seed.values():
        table = like * float("nan")
        for (row, column), value in measured.cells().items():
            if row in table.index:
                table.loc[[row], column] = value
        tables.append(table)
    return mean_and_deviation(tables)


def show(title: str, ws: Workspace, table: pd.DataFrame, spread: pd.DataFrame) -> None:
    """Print a measured table."""
    rows = [
        (_label(key), *(format_mean(*cell, key) for cell in zip(means, deviations, strict=True)))
        for key, means, deviations in zip(table.index, table.to_numpy(), spread.to_numpy(), strict=True)
    ]
    console.table(f"{title} ({ws.profile.name})", ["row", *map(str, table.columns)], rows)


def record(
    workspaces: list[Workspace], by_seed: dict[int, Measured], seconds: dict[str, float]
) -> dict[str, Any]:
    """How the numbers came about."""
    ws = workspaces[0]
    measured = by_seed[ws.seed]
    notes = [f"Profile {ws.profile.name}: {ws.profile.about}.", *measured.notes]
    if len(workspaces) > 1:
        notes.append(f"Mean over {len(workspaces)} seeds of the networks.")
    if ws.limit is not None:
        notes.append(f"A quick look: the first {ws.limit} images of each set.")
    return {
        "profile": ws.profile.name,
        "arch": ws.profile.arch,
        "seeds": list(by_seed),
        "limit": ws.limit,
        "images": measured.images,
        **measured.more,
        "by_seed": {
            str(seed): {
                _label((*_parts(row), column)): fraction(value, row)
                for (row, column), value in each.cells().items()
            }
            for seed, each in by_seed.items()
        },
        "device": ws.device,
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "seconds": seconds,
        "environment": environment(),
        "notes": notes,
    }


def _parts(row: Any) -> tuple[Any, ...]:
    return row if isinstance(row, tuple) else (row,)


def _label(key: Any) -> str:
    return ", ".join(map(str, _parts(key)))
