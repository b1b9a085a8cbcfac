"""Tests the paper's claims on measured tables: two numbers, the interval of their difference, and a verdict."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli import console
from sppnet_cli.atomic import write_text
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.evaluation.bootstrap import Best, Resampled, Times, Wins, paired_interval
from sppnet_cli.evaluation.outcomes import DetectionOutcome, Outcome, load_outcome, save_outcome
from sppnet_cli.tables.claimed import (
    CONTROL,
    TABLES,
    Cell,
    cell_name,
    claimed_cells,
    read_limits,
    read_table,
    speedup_cell,
)
from sppnet_cli.tables.paper import claims, journal, published
from sppnet_cli.tables.render import TextTable

SPEED_COLUMNS = ("factor", "ours_factor", "journal_factor", "limit")
COLUMNS = (
    "id", "table", "claim", "better", "worse", "ours_better", "ours_worse", "low", "high", "verdict", "images",
    *SPEED_COLUMNS,
)  # fmt: skip
VERDICTS = ("holds", "fails", "not measured")

_LOWER_IS_BETTER = ("top1_error", "seconds")
_FRACTIONS = ("top1_error", "mAP", "accuracy")
_FEWEST = 5  # test images; with fewer there is no interval
_TIES_HOLD = ("T6.9", "T8.1", "T9.3")  # "no worse than", "in at least half of the categories", "no gain"
_SAME = 1e-6  # largest difference (a fraction) between a cell and the value of its outcomes


def write_outcomes(results: Path, number: int, seed: int, outcomes: Mapping[Cell, Outcome]) -> None:
    """Write what each test image contributed to cells of a table, replacing that seed's earlier outcomes.

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
    known = [*table.index, *(CONTROL if number == 9 else ())]
    for row, column in outcomes:
        if row not in known or column not in table.columns:
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
    """Test every claim of the paper on the tables in `results`, in the order of `claims()`.

    Columns:
        id, table, claim, better, worse: as in `claims()`.
        ours_better, ours_worse: percent, seconds or categories, NaN where not measured.
        low, high: the 95% interval of how much better (`paired_interval`), in percentage points, categories, or
            seconds saved beyond the claimed factor; NaN without outcomes that belong to the table, or with those of
            too few test images.
        verdict: `holds`, `fails` or `not measured`, from the numbers alone: is one strictly better, does it win most
            categories, or is it `factor` times better after rounding the ratio as the paper does?
        images: number of test images behind the outcomes, 0 without outcomes.
        factor, ours_factor, journal_factor, limit: for claims with a factor, how many times better: in the paper, as
            measured, in the journal edition (R-CNN with SPP-net's weights), and at most, by the arithmetic at equal
            efficiency (`claimed.read_limits`); else NaN.

    Raises:
        DataError: there is no such folder, or a file in it is broken.
    """
    if not results.is_dir():
        raise DataError(f"{results}: no tables there; measure one first: sppnet reproduce table6")
    tables = {number: read_table(results, number) for number in TABLES}
    limits = read_limits(results)
    rows = []
    for claim_id, claim in zip(claims().index, claims().to_dict("records"), strict=True):
        number, measure, factor = claim["table"], claim["measure"], claim["factor"]
        sides = [claimed_cells(number, claim[side]) for side in ("better", "worse")]
        better, worse, classes = _values(tables[number], sides, measure)
        interval, images, outcome = (math.nan, math.nan), 0, "not measured"
        if not (math.isnan(better) or math.isnan(worse)):
            least = classes / 2 if classes else math.nan
            holds = _holds(better, worse, measure, factor, least, ties=claim_id in _TIES_HOLD)
            outcome = "holds" if holds else "fails"
            interval, images = _interval(results, number, tables[number], sides, measure, factor)
        scale = 100 if measure in _FRACTIONS else 1
        numbers = (round(scale * value, 10) + 0.0 for value in (better, worse, *interval))  # + 0.0: no -0.0
        words = (claim["claim"], claim["better"], claim["worse"])
        speed = (
            factor,
            *(
                [math.nan] * 3
                if math.isnan(factor)
                else _speed(sides[0][0], tables[number], better, worse, limits)
            ),
        )
        rows.append((claim_id, number, *words, *numbers, outcome, images, *speed))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_claims(results: Path) -> pd.DataFrame:
    """Evaluate the claims and write `claims.csv`, exactly what is returned, and `claims.md` into `results`.

    The Markdown has the paper's two numbers beside ours, the verdict with its `certainty`, and a table of the speed-ups.
    Raises as `evaluate_claims` does, and `SppnetError` if a file cannot be written.
    """
    table = evaluate_claims(results)
    write_text(results / "claims.csv", table.to_csv(index=False))
    write_text(results / "claims.md", _markdown(table))
    return table


def certainty(low: float, high: float, images: int) -> str:
    """`clear` if the interval excludes 0, else `within noise`; without an interval `too few images` or ""."""
    if 0 < images < _FEWEST:
        return "too few images"
    if math.isnan(low) or math.isnan(high):
        return ""
    return "clear" if low > 0 or high < 0 else "within noise"


def verdict(row: Mapping[Any, Any]) -> str:
    """The verdict of a row of `evaluate_claims` as words: `holds, clear`; `fails, clear: arithmetic 21.1x`.

    The last where R-CNN's operations over SPP-net's are themselves below the factor, so that no comparison of equally
    efficient code reaches it.
    """
    words = ", ".join(filter(None, (row["verdict"], certainty(row["low"], row["high"], row["images"]))))
    if row["verdict"] == "fails" and row["limit"] < _least_ratio(row["factor"]):
        words += f": arithmetic {row['limit']:.3g}x"
    return words


def difference(claim_id: str, low: float, high: float) -> str:
    """An interval of `evaluate_claims` with its unit: `+1.20 to +3.40 points`; "" for NaN."""
    if math.isnan(low) or math.isnan(high):
        return ""
    measure = claims().loc[claim_id, "measure"]
    if measure in _FRACTIONS:
        return f"{low:+.2f} to {high:+.2f} points"
    if measure == "seconds":
        return f"{low:+.3g} to {high:+.3g} s"
    return f"{low:+.0f} to {high:+.0f} categories"


def count_verdicts(table: pd.DataFrame) -> dict[str, int]:
    """How many claims hold, fail and are not measured."""
    return {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS}


def summary(table: pd.DataFrame) -> str:
    """`29 hold, 2 fail, 4 not measured`."""
    counts = count_verdicts(table)
    return f"{counts['holds']} hold, {counts['fails']} fail, {counts['not measured']} not measured"


def speed_table(table: pd.DataFrame) -> TextTable:
    """The measured claims with a factor: as claimed, as measured, in the journal, and at most."""
    rows = table[table["factor"].notna() & table["ours_factor"].notna()]
    cells = [
        [
            row["id"],
            row["claim"],
            *("" if math.isnan(row[name]) else f"{row[name]:.3g}x" for name in SPEED_COLUMNS),
        ]
        for row in rows.to_dict("records")
    ]
    return TextTable(["id", "claim", "claimed", "ours", "journal", "arithmetic"], cells, words=2)


def outcomes_folder(results: Path, number: int) -> Path:
    """Where `write_outcomes` writes the outcomes of a table, in a folder per seed."""
    return results / "outcomes" / f"table{number}"


def _values(
    table: Mapping[Cell, float], sides: Sequence[Sequence[Cell]], measure: str
) -> tuple[float, float, int]:
    """The two numbers that a claim compares, NaN if not measured, and the number of categories."""
    # Python's max would ignore a NaN that is not the first.
    better, worse = (float(np.max([table.get(cell, math.nan) for cell in side])) for side in sides)
    if measure != "categories":
        return better, worse, 0
    if math.isnan(better) or math.isnan(worse):
        return math.nan, math.nan, 0
    classes = [name for row, name in table if row == sides[0][0][0] and name != "mAP"]
    aps = [[max(table[row, name] for row, _ in side) for name in classes] for side in sides]
    won = sum(a > b for a, b in zip(*aps, strict=True))
    lost = sum(a < b for a, b in zip(*aps, strict=True))
    return won, lost, len(classes)


def _holds(better: float, worse: float, measure: str, factor: float, least: float, *, ties: bool) -> bool:
    if not math.isnan(least):
        return better >= least if ties else better > least
    larger, smaller = (worse, better) if measure in _LOWER_IS_BETTER else (better, worse)
    if not math.isnan(factor):
        return larger >= _least_ratio(factor) * smaller
    return larger >= smaller if ties else larger > smaller


def _least_ratio(factor: float) -> float:
    """The smallest ratio that the paper would print as `factor`: it rounds to whole numbers (63.6 is 64)."""
    return factor - 0.5


def _speed(
    time: Cell, table: Mapping[Cell, float], better: float, worse: float, limits: Mapping[Cell, float]
) -> tuple[float, float, float]:
    """How many times faster: as measured, in the journal, and by the arithmetic; NaN where unknown.

    As measured: the table's own cell, the mean over seeds; else from the times.
    """
    cell = speedup_cell(time)
    ours = table.get(cell, math.nan)
    if math.isnan(ours) and better:
        ours = worse / better
    printed = str(journal().loc[str(cell[0]), cell[1]])
    return ours, float(printed or "nan"), limits.get(cell, math.nan)


def _interval(
    results: Path,
    number: int,
    table: Mapping[Cell, float],
    sides: Sequence[Sequence[Cell]],
    measure: str,
    factor: float,
) -> tuple[tuple[float, float], int]:
    """The interval of the difference between a claim's two sides, NaN without outcomes, and the number of images.

    Outcomes that do not belong to the table (older ones, or of other seeds) give a warning and are ignored.
    """
    none = math.nan, math.nan
    folder = outcomes_folder(results, number)
    cells = [cell for side in sides for cell in side]
    by_cell = {
        cell: {
            path.parent.name: load_outcome(path)
            for path in sorted(folder.glob(f"seed*/{cell_name(*cell)}.npz"))
        }
        for cell in cells
    }
    if not any(by_cell.values()):
        return none, 0
    try:
        _require_of_table(by_cell, table)
        seeds = list(by_cell[cells[0]])
        pairs = [
            _compared([[by_cell[cell][seed] for cell in side] for side in sides], measure, factor)
            for seed in seeds
        ]
        better, worse = map(list, zip(*pairs, strict=True))
        images = better[0].images
        if images < _FEWEST:
            return none, images
        return paired_interval(better, worse, higher_is_better=measure not in _LOWER_IS_BETTER), images
    except ValueError as error:
        names = " and ".join(cell_name(*cell) for cell in cells)
        console.warn(
            f"{folder}: no interval between {names} ({error}); remove the folder and measure table {number} again"
        )
        return none, 0


def _compared(sides: Sequence[Sequence[Outcome]], measure: str, factor: float) -> tuple[Resampled, Resampled]:
    """The two numbers of one seed that a claim compares."""
    if measure == "categories":
        detections = [tuple(o for o in side if isinstance(o, DetectionOutcome)) for side in sides]
        return Wins(detections[0], detections[1]), Wins(detections[1], detections[0])
    better, worse = (side[0] if len(side) == 1 else Best(tuple(side)) for side in sides)
    return (better, worse) if math.isnan(factor) else (Times(_least_ratio(factor), better), worse)


def _require_of_table(by_cell: Mapping[Cell, Mapping[str, Outcome]], table: Mapping[Cell, float]) -> None:
    """Raise `ValueError` unless the cells have outcomes of the same seeds, whose mean is the table's value."""
    if len({frozenset(by_seed) for by_seed in by_cell.values()}) > 1:
        raise ValueError("they were measured with different seeds")
    for cell, by_seed in by_cell.items():
        mean = np.mean([outcome.value() for outcome in by_seed.values()])
        if not abs(mean - table[cell]) <= _SAME:
            raise ValueError(
                f"{cell_name(*cell)} is {mean:.6f} by its outcomes and {table[cell]:.6f} in the table"
            )


def _markdown(table: pd.DataFrame) -> str:
    header = ["id", "claim", "better", "worse", "ours", "paper", "better by (95%)", "verdict"]
    rows = []
    for row, printed in zip(table.to_dict("records"), claims().to_dict("records"), strict=True):
        low, high = row["low"], row["high"]
        rows.append(
            [
                row["id"],
                row["claim"],
                row["better"],
                row["worse"],
                both_sides(row["ours_better"], row["ours_worse"]),
                both_sides(printed["paper_better"], printed["paper_worse"]),
                difference(row["id"], low, high),
                verdict(row),
            ]
        )
    text = (
        f"**The paper's claims: {summary(table)}.** Ours and the paper's: the better cell / the worse one, in percent, "
        "seconds or categories. Better by: the 95% interval of the difference, from resampled test images, and from "
        "resampled seeds where there are several: in percentage points, in categories, or, where a factor is claimed, "
        "in seconds saved beyond the smallest ratio that rounds to the factor. The verdict follows from the numbers "
        "alone. It is clear if the interval excludes 0, and within noise if not; fewer than "
        f"{_FEWEST} test images give no interval. A claim that fails with an arithmetic beside it asks for more than R-CNN's "
        f"floating-point operations over SPP-net's.\n\n{TextTable(header, rows, words=len(header)).markdown()}"
    )
    speed = speed_table(table)
    if speed.rows:
        text += (
            "\n**Speed-ups over R-CNN.** Claimed: by the paper, whose R-CNN is AlexNet's. Journal: as the journal "
            "edition prints them for R-CNN on SPP-net's weights, the comparison that ours is. Arithmetic: R-CNN's "
            "floating-point operations over SPP-net's, the limit at equal efficiency.\n\n" + speed.markdown()
        )
    return text


def both_sides(better: float, worse: float) -> str:
    """`59.2 / 58.5`, with a dash for NaN; "" if both are NaN."""
    if math.isnan(better) and math.isnan(worse):
        return ""
    return " / ".join("-" if math.isnan(value) else f"{value:.4g}" for value in (better, worse))
