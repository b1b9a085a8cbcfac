"""What the experiments share: measuring with every seed, and writing the files.

An experiment is a generator function of a workspace.  It yields the stages that it needs; they are made for all seeds
together.  Then it resumes, reads them and returns what it `Measured`.  A dry run stops at the yield.
"""

import math
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sppnet_cli import console
from sppnet_cli.chain import Plan, Stage, path_of
from sppnet_cli.distributed import world
from sppnet_cli.errors import UsageError
from sppnet_cli.evaluation.outcomes import Outcome
from sppnet_cli.provenance import code_digest, command_line, commit, environment, machine
from sppnet_cli.runs import is_run, read_manifest
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.claims import outcomes_folder, write_outcomes
from sppnet_cli.tables.paper import CONV_SPEEDUP, VOC_CLASSES, empty_like_published, unit
from sppnet_cli.tables.render import format_mean, fraction
from sppnet_cli.tables.write import mean_and_deviation, write_small_table, write_table

Cell = tuple[Any, str]  # row and column of a table
AP_NOTE = (
    "AP: the mean of 11 precisions, at the devkit's recalls: MATLAB's 0:0.1:1, whose fourth is just above .3."
)
_MOST_COLUMNS, _ROWS_ABREAST = 10, 5  # of a table on a terminal of 80 characters
KINDS = ("csv", "md", "tex", "json", "published.csv")  # of a table's files


@dataclass
class Measured:
    """The result of one seed: the outcome on the test images behind each cell, cells without one, and notes."""

    outcomes: dict[Cell, Outcome] = field(default_factory=dict)
    values: dict[Cell, float] = field(default_factory=dict)  # in the units printed
    images: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = VOC_CLASSES  # columns of Tables 7 to 9
    more: dict[str, Any] = field(default_factory=dict)  # for the record

    def cells(self) -> dict[Cell, float]:
        """Every measured cell, in the units printed."""
        scale = {"percent": 100, "seconds": 1}
        cells = {cell: scale[unit(cell[0])] * outcome.value() for cell, outcome in self.outcomes.items()}
        return cells | self.values


Steps = Generator[Sequence[Stage], None, Measured]
BySeed = Mapping[int, Measured]


@dataclass
class Written:
    """The table that an experiment made, and its files."""

    name: int | str  # of the table
    table: pd.DataFrame
    files: list[Path]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; `cells` counts those that were measured."""
        cells = int(self.table.notna().to_numpy().sum())
        return {"table": self.name, "cells": cells, "files": self.files}

    def __str__(self) -> str:
        names = [str(self.files[0]), *("." + path.name.partition(".")[2] for path in self.files[1:])]
        return (
            f"written to {', '.join(names[:-1])} and {names[-1]}" if names[1:] else f"written to {names[0]}"
        )


@dataclass(frozen=True)
class Experiment:
    """A table or figure: how it is measured with one seed, and how the results of all seeds are written to a folder."""

    name: str  # as in `sppnet reproduce NAME`
    title: str
    measure: Callable[[Workspace], Steps]
    write: Callable[[BySeed, dict[str, Any], Workspace, Path], Written]
    files: tuple[str, ...]

    def stages(self, workspaces: Sequence[Workspace]) -> list[Stage]:
        """What it needs, for a dry run."""
        return [stage for ws in workspaces for stage in next(self.measure(ws))]

    def run(self, workspaces: Sequence[Workspace], folder: Path) -> Written:
        """Make what it needs in a workspace per seed, measure it, print the table and write its files."""
        start = time.perf_counter()
        by_seed, made = measure_seeds(self.measure, workspaces)
        about = record(workspaces, by_seed, made, time.perf_counter() - start)
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(by_seed, about, workspaces[0], folder)


def numbered(number: int, doc: str | None, measure: Callable[[Workspace], Steps]) -> Experiment:
    """A table of the paper: the mean over the seeds of each measured cell."""

    def write(by_seed: BySeed, about: dict[str, Any], ws: Workspace, folder: Path) -> Written:
        classes = next(iter(by_seed.values())).classes
        like = empty_like_published(number, classes)
        if number == 6:
            like.loc[CONV_SPEEDUP] = math.nan
        table, spread = over_seeds(like, by_seed)
        if len(by_seed) > 1:
            about["notes"] += _note_deviations(spread)
        for row, column in next(
            iter(by_seed.values())
        ).cells():  # of a control, which the report does not print
            if row not in table.index:
                mean = np.mean([each.cells()[row, column] for each in by_seed.values()])
                about.setdefault("control", {}).setdefault(row, {})[column] = fraction(float(mean), row)
        if world().first:
            shutil.rmtree(
                outcomes_folder(folder, number), ignore_errors=True
            )  # seeds that are not measured now
            for seed, measured in by_seed.items():
                write_outcomes(folder, number, seed, measured.outcomes)
            write_table(folder, number, table, about, deviation=spread, seeds=len(by_seed))
            show(f"Table {number}", ws, table, spread)
        return Written(number, table, [folder / name for name in files])

    files = tuple(f"table{number}.{kind}" for kind in KINDS)
    return Experiment(f"table{number}", _title(doc), measure, write, files)


def small(
    name: str,
    doc: str | None,
    measure: Callable[[Workspace], Steps],
    published: Callable[[Workspace], pd.DataFrame],
    source: str = "paper",
) -> Experiment:
    """A table that the paper does not number.

    `published` gives its rows and columns, and published numbers where there are any; `source` says of what.
    """

    def write(by_seed: BySeed, about: dict[str, Any], ws: Workspace, folder: Path) -> Written:
        others = published(ws)
        table, spread = over_seeds(others, by_seed)
        if world().first:
            write_small_table(
                folder, name, table, others, about, deviation=spread, seeds=len(by_seed), source=source
            )
            show(name, ws, table, spread)
        return Written(name, table, [folder / file for file in files])

    files = tuple(f"{name}.{kind}" for kind in ("csv", "md", "json", "published.csv"))
    return Experiment(name, _title(doc), measure, write, files)


def no_published(index: pd.Index, columns: Sequence[str]) -> Callable[[Workspace], pd.DataFrame]:
    """Rows and columns of a table without published numbers."""
    return lambda _ws: pd.DataFrame(float("nan"), index=index, columns=list(columns))


def parse_seeds(text: str | None, default: int) -> tuple[int, ...]:
    """The seeds in `0,1,2`.  Raises `UsageError` for anything else."""
    if text is None:
        return (default,)
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UsageError(f"--seeds {text}: write different whole numbers: 0,1,2")
    return tuple(map(int, parts))


def of_seeds(ws: Workspace, seeds: Sequence[int]) -> list[Workspace]:
    """A workspace for each seed."""
    return [replace(ws, seed=seed) for seed in seeds]


def measure_seeds(
    measure: Callable[[Workspace], Steps], workspaces: Sequence[Workspace]
) -> tuple[dict[int, Measured], list[Stage]]:
    """The result of each seed, and the stages that were made or used for it."""
    by_seed: dict[int, Measured] = {}
    used: dict[Path, Stage] = {}
    unfinished = {ws.seed: measure(ws) for ws in workspaces}
    while unfinished:
        wanted: list[Stage] = []
        for seed, steps in list(unfinished.items()):
            try:
                wanted += next(steps)
            except StopIteration as end:
                by_seed[seed] = end.value
                del unfinished[seed]
        if wanted:
            plan: Plan = workspaces[0].make(*wanted)
            used |= {stage.folder: stage for stage in (*plan.used, *plan.to_make)}
    return {ws.seed: by_seed[ws.seed] for ws in workspaces}, list(used.values())


def over_seeds(like: pd.DataFrame, by_seed: BySeed) -> tuple[pd.DataFrame, pd.DataFrame]:
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
    """Print a measured table.

    One with a column for every class has a row for every class instead, so that it fits a terminal: measured numbers
    alone, as the paper rounds them, of a few rows at a time.
    """
    by_class = len(table.columns) > _MOST_COLUMNS
    if by_class:
        measured = table.notna().any(axis=1)
        table, spread = table[measured], spread[measured]
    cells = [
        [format_mean(*cell, key, 1 if by_class else 2) for cell in zip(means, deviations, strict=True)]
        for key, means, deviations in zip(table.index, table.to_numpy(), spread.to_numpy(), strict=True)
    ]
    title += ws.profile.caveat or f" ({ws.profile.name})"
    labels, columns = [*map(_label, table.index)], [*map(str, table.columns)]
    if not by_class:
        rows = [(label, *row) for label, row in zip(labels, cells, strict=True)]
        console.table(title, ["row", *columns], rows)
        return
    for start in range(0, len(cells), _ROWS_ABREAST):
        part = slice(start, start + _ROWS_ABREAST)
        console.table(title, ["class", *labels[part]], list(zip(columns, *cells[part], strict=True)))


def record(
    workspaces: Sequence[Workspace], by_seed: BySeed, stages: Sequence[Stage], seconds: float
) -> dict[str, Any]:
    """The settings, code, machine and runs behind the numbers."""
    ws = workspaces[0]
    measured = by_seed[ws.seed]
    notes = [f"Profile {ws.profile.name}: {ws.profile.about}.", *measured.notes]
    if len(workspaces) > 1:
        notes.append(
            f"{len(workspaces)} seeds ({', '.join(map(str, by_seed))}) of the networks and detectors, on the same images and "
            "windows."
        )
    if ws.limit is not None:
        notes.append(
            f"A quick look: {ws.limit} images of each set, the first of a list, or of all classes in turn."
        )
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
        "device": ws.how.device,
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "seconds": {"in all": round(seconds, 2)},
        "command": command_line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": data_paths(stages),
        "code": code_digest(),
        "commit": commit(),
        "machine": machine(),
        "runs": runs_behind(stages),
        "environment": environment(),
        "notes": notes,
    }


def data_paths(stages: Sequence[Stage]) -> list[str]:
    """Where the data lie that the stages take, the embedded data of the profile or the user's."""
    sources = (source for stage in stages for name, source in stage.inputs.items() if name == "data")
    return list(dict.fromkeys(str(path_of(source).absolute()) for source in sources))


def runs_behind(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Stage, code, machine and seconds of every existing run that the numbers depend on."""
    manifests: dict[str, dict[str, Any]] = {}

    def visit(stage: Stage) -> None:
        if str(stage.folder) in manifests or not is_run(stage.folder):
            return
        manifest = read_manifest(stage.folder)
        names = ("stage", "code", "commit", "machine", "date", "seconds")
        manifests[str(stage.folder)] = {name: manifest.get(name) for name in names}
        for each in stage.needs:
            visit(each)

    for stage in stages:
        visit(stage)
    return manifests


def _note_deviations(spread: pd.DataFrame) -> list[str]:
    """A sentence about the deviations over the seeds of all cells in percent; none where none was measured."""
    deviations = {
        _label((*_parts(row), column)): value
        for row, values in zip(spread.index, spread.to_numpy(), strict=True)
        for column, value in zip(spread.columns, values, strict=True)
        if unit(row) == "percent" and not math.isnan(value)
    }
    if not deviations:
        return []
    median, worst = np.median([*deviations.values()]), max(deviations, key=deviations.__getitem__)
    sentence = (
        f"Deviations of the cells in percent: median {median:.2f}, largest {deviations[worst]:.2f} ({worst})."
    )
    return [sentence]


def _title(doc: str | None) -> str:
    return (doc or "").split("\n")[0]


def _parts(row: Any) -> tuple[Any, ...]:
    return row if isinstance(row, tuple) else (row,)


def _label(key: Any) -> str:
    return ", ".join(map(str, _parts(key)))
