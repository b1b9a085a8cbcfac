"""The paper's claims against measured tables: both numbers, the interval of their difference, and a verdict."""

import json
import math
import re
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli import console
from sppnet_cli.atomic import write_text
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.evaluation.outcomes import Outcome, load_outcome, paired_interval, save_outcome
from sppnet_cli.tables.paper import claims, published

Cell = tuple[Hashable, str]  # row key, a tuple where a table has several key columns, and column

COLUMNS = (
    "id", "table", "claim", "better", "worse", "ours_better", "ours_worse", "low", "high", "verdict",
)  # fmt: skip
VERDICTS = ("holds", "fails", "not measured")

_LOWER_IS_BETTER = ("top1_error", "seconds")
_SAME = 1e-6  # as a fraction, between a table's value and that of its outcomes


def _cell_1(text: str) -> Cell:
    return text, "top1_error"


def _cell_2(text: str) -> Cell:
    net, training, view = text.split(" ", 2)
    row = (f"{net}, {training}-size trained", view)
    # The paper prints this row as SPP-net4; it is SPP-net6's, as in the journal edition.
    misprints = {("SPP-net6, single-size trained", "1 crop"): ("SPP-net4, single-size trained", "1 crop")}
    return misprints.get(row, row), "top1_error"


def _cell_3_4(text: str) -> Cell:
    column, layer = text.split(" ", 1)
    return "pool5 (6x6)" if layer == "pool5" else layer, column


def _cell_6(text: str) -> Cell:
    method, row = text.split(" ", 1)
    columns = {"1-scale": "spp_1scale", "5-scale": "spp_5scale", "R-CNN": "rcnn"}
    return f"{row} (s)" if row.endswith("time") else row, columns[method]


# Tables 8 and 9 are not here: their claims count categories or take the better of two rows, not two cells.
_CELLS: dict[int, Callable[[str], Cell]] = {1: _cell_1, 2: _cell_2, 3: _cell_3_4, 4: _cell_3_4, 6: _cell_6}


def claimed_cell(number: int, text: str) -> Cell | None:
    """The cell of `published(number)` that a claim's `better` or `worse` names; None for Tables 8 and 9."""
    find = _CELLS.get(number)
    return find(text) if find else None


def cell_name(row: Hashable, column: str) -> str:
    """A cell's name in files, unlike those of all other cells of its table: `pool5-6x6.spp_full224`."""
    parts = (*row, column) if isinstance(row, tuple) else (row, column)
    return ".".join(re.sub(r"[^a-z0-9_]+", "-", str(part).lower()).strip("-") for part in parts)


def write_outcomes(results: Path, number: int, seed: int, outcomes: Mapping[Cell, Outcome]) -> None:
    """Write what each test image contributed to cells of a table, in place of what was there of that seed.

    Args:
        results: the folder that `write_table` writes the table to; the files go to
            `outcomes/table<number>/seed<seed>/<cell_name>.npz` in it.
        number: of the table.
        seed: that the cells were measured with.
        outcomes: by row key and column of `published(number)`.  A cell's number in the table must be the mean of
            its outcomes' values over the seeds.

    Raises:
        ValueError: the table has no such cell.
        SppnetError: a file cannot be written.
    """
    table = published(number)
    for row, column in outcomes:
        if row not in table.index or column not in table.columns:
            raise ValueError(f"table {number} has no cell {row}, {column}")
    folder = outcomes_folder(results, number) / f"seed{seed}"
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise SppnetError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
    for cell, outcome in outcomes.items():
        save_outcome(outcome, folder / f"{cell_name(*cell)}.npz")


def evaluate_claims(results: Path) -> pd.DataFrame:
    """Every claim of the paper against the tables in `results`, in the order of `claims()`.

    Columns: id, table, claim, better, worse as in `claims()`; ours_better and ours_worse, percent or seconds, NaN
    where not measured; low and high, the 95% interval of how much better (`paired_interval`), percentage
    points, NaN where there are no outcomes that belong to the table; verdict by the numbers alone: `holds` where
    the one is strictly better, or at least `factor` times, `fails`, or `not measured`.

    Raises:
        DataError: no such folder, or a file in it is damaged.
    """
    if not results.is_dir():
        raise DataError(f"{results}: no tables there; measure one first: python -m experiments.table6")
    tables = {number: _read_table(results, number) for number in _CELLS}
    rows = []
    for claim_id, claim in zip(claims().index, claims().to_dict("records"), strict=True):
        number = claim["table"]
        cells = [claimed_cell(number, claim[side]) for side in ("better", "worse")]
        values = {cell: tables[number][cell] for cell in cells if cell is not None}
        better, worse = list(values.values()) or (math.nan, math.nan)
        interval, verdict = (math.nan, math.nan), "not measured"
        if not (math.isnan(better) or math.isnan(worse)):
            higher = claim["measure"] not in _LOWER_IS_BETTER
            verdict = "holds" if _holds(better, worse, higher, claim["factor"]) else "fails"
            interval = _interval(results, number, values, higher)
        scale = 1 if claim["measure"] == "seconds" else 100
        numbers = (round(scale * value, 10) + 0.0 for value in (better, worse, *interval))  # + 0.0: no -0.0
        rows.append((claim_id, number, claim["claim"], claim["better"], claim["worse"], *numbers, verdict))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_claims(results: Path) -> pd.DataFrame:
    """Evaluate the claims and write `claims.csv`, exactly what is returned, and `claims.md` into `results`.

    The Markdown has the paper's two numbers beside ours, and the verdict with its `certainty`.  Raises as
    `evaluate_claims`, and `SppnetError` where a file cannot be written.
    """
    table = evaluate_claims(results)
    write_text(results / "claims.csv", table.to_csv(index=False))
    write_text(results / "claims.md", _markdown(table))
    return table


def certainty(low: float, high: float) -> str:
    """`clear` where an interval excludes 0, `within noise` where not, and nothing where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return "clear" if low > 0 or high < 0 else "within noise"


def count_verdicts(table: pd.DataFrame) -> dict[str, int]:
    """How many claims hold, fail and are not measured."""
    return {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS}


def summary(table: pd.DataFrame) -> str:
    """`29 hold, 2 fail, 4 not measured`."""
    counts = count_verdicts(table)
    return f"{counts['holds']} hold, {counts['fails']} fail, {counts['not measured']} not measured"


def outcomes_folder(results: Path, number: int) -> Path:
    return results / "outcomes" / f"table{number}"


def _read_table(results: Path, number: int) -> dict[Cell, float]:
    """The cells of `table<number>.json`: fractions or seconds, NaN where not measured."""
    path = results / f"table{number}.json"
    table = published(number)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["values"]
        rows = {key: _row(values, key) for key in table.index}
        return {(key, name): _number(row[name]) for key, row in rows.items() for name in table.columns}
    except FileNotFoundError:
        return {(key, name): math.nan for key in table.index for name in table.columns}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: not a table that sppnet wrote; measure it again") from None


def _row(values: Any, key: Hashable) -> Any:
    for part in key if isinstance(key, tuple) else (key,):
        values = values[str(part)]
    return values


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _holds(better: float, worse: float, higher_is_better: bool, factor: float) -> bool:
    larger, smaller = (better, worse) if higher_is_better else (worse, better)
    return larger > smaller if math.isnan(factor) else larger >= factor * smaller


def _interval(
    results: Path, number: int, values: Mapping[Cell, float], higher_is_better: bool
) -> tuple[float, float]:
    """The interval of the difference of two cells, whose values in the table are given; NaN without outcomes.

    Outcomes that are not those of the table, being older or of other seeds, are passed over with a warning.
    """
    folder = outcomes_folder(results, number)
    by_cell = [
        {
            path.parent.name: load_outcome(path)
            for path in sorted(folder.glob(f"seed*/{cell_name(*cell)}.npz"))
        }
        for cell in values
    ]
    if not any(by_cell):
        return math.nan, math.nan
    try:
        _require_of_table(by_cell, values)
        better, worse = ([*own.values()] for own in by_cell)
        return paired_interval(better, worse, higher_is_better=higher_is_better)
    except ValueError as error:
        names = " and ".join(cell_name(*cell) for cell in values)
        console.warn(
            f"{folder}: no interval between {names} ({error}); remove the folder and measure table {number} again"
        )
        return math.nan, math.nan


def _require_of_table(by_cell: Sequence[Mapping[str, Outcome]], values: Mapping[Cell, float]) -> None:
    """Raise `ValueError` unless the cells have outcomes of the same seeds, which give the table's values."""
    if len({frozenset(by_seed) for by_seed in by_cell}) > 1:
        raise ValueError("they were measured with different seeds")
    for by_seed, (cell, value) in zip(by_cell, values.items(), strict=True):
        mean = np.mean([outcome.value() for outcome in by_seed.values()])
        if not abs(mean - value) <= _SAME:
            raise ValueError(f"{cell_name(*cell)} is {mean:.6f} by its outcomes and {value:.6f} in the table")


def _markdown(table: pd.DataFrame) -> str:
    cells = [["id", "claim", "better", "worse", "ours", "paper", "better by (95%)", "verdict"]]
    for row, printed in zip(table.to_dict("records"), claims().to_dict("records"), strict=True):
        low, high = row["low"], row["high"]
        cells.append(
            [
                row["id"],
                row["claim"],
                row["better"],
                row["worse"],
                _beside(row["ours_better"], row["ours_worse"]),
                _beside(printed["paper_better"], printed["paper_worse"]),
                "" if math.isnan(low) else f"{low:+.2f} to {high:+.2f}",
                ", ".join(filter(None, (row["verdict"], certainty(low, high)))),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    about = (
        f"**The paper's claims: {summary(table)}.** Ours and the paper's: the better cell / the worse one, in percent, "
        "seconds or categories. Better by: the 95% interval of the difference in percentage points, from resampled "
        "test images, and seeds where there are several. The verdict goes by the numbers alone; it is clear where "
        "the interval excludes 0, and within noise where not."
    )
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return "\n".join([about, "", *lines]) + "\n"


def _beside(better: float, worse: float) -> str:
    if math.isnan(better) and math.isnan(worse):
        return ""
    return " / ".join("-" if math.isnan(value) else f"{value:.4g}" for value in (better, worse))
