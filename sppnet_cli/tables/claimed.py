"""The cells of the measured tables that the paper's claims compare, and their numbers."""

import math
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from sppnet_cli.errors import DataError
from sppnet_cli.records import read_json
from sppnet_cli.tables.paper import CONV_SPEEDUP, PER_CLASS, SPEEDUPS, published

Cell = tuple[Hashable, str]  # row key, a tuple where a table has several key columns, and column

# Two fine-tunings of one network and their combination: in Table 9's record, not in the table.
CONTROL = ("control (1)", "control (2)", "control combination")


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


def _cells_8_9(text: str) -> tuple[Cell, ...]:
    rows = {"max of the two": CONTROL[:2], "their combination": CONTROL[2:]}.get(text)
    if rows is None:
        rows = (
            tuple(text.removeprefix("max(").removesuffix(")").split("; ")) if text[:4] == "max(" else (text,)
        )
    return tuple((row, "mAP") for row in rows)


_CELLS: dict[int, Callable[[str], tuple[Cell, ...]]] = {
    1: lambda text: (_cell_1(text),),
    2: lambda text: (_cell_2(text),),
    3: lambda text: (_cell_3_4(text),),
    4: lambda text: (_cell_3_4(text),),
    6: lambda text: (_cell_6(text),),
    8: _cells_8_9,
    9: _cells_8_9,
}
TABLES = tuple(_CELLS)  # with claims


def claimed_cells(number: int, text: str) -> tuple[Cell, ...]:
    """The cells of table `number` that `text`, the `better` or `worse` of a claim, names; the best of them counts.

    In Tables 8 and 9 they are mAPs; a claim about categories is about the APs of the same rows.
    """
    return _CELLS[number](text)


def speedup_cell(cell: Cell) -> Cell:
    """The cell of the speed-up over R-CNN that belongs to a time of Table 6, as in `paper.journal()`."""
    row, column = cell
    return SPEEDUPS[str(row)], column


def cell_name(row: Hashable, column: str) -> str:
    """A cell's name in files, unique in its table: `pool5-6x6.spp_full224`."""
    parts = (*row, column) if isinstance(row, tuple) else (row, column)
    return ".".join(re.sub(r"[^a-z0-9_]+", "-", str(part).lower()).strip("-") for part in parts)


def read_table(results: Path, number: int) -> dict[Cell, float]:
    """The cells of `table<number>.json`, with Table 9's control: fractions or seconds, NaN where not measured.

    Without the file, every cell of the published table is NaN.  Raises `DataError` for a file that is no such table.
    """
    table = published(number)

    def cells(record: Any) -> dict[Cell, float]:
        more = [CONV_SPEEDUP] if number == 6 and CONV_SPEEDUP in record["values"] else []
        rows = {key: _row(record["values"], key) for key in [*table.index, *more]}
        if number in PER_CLASS:
            rows |= record.get("control", {})
        else:
            rows = {key: {name: row[name] for name in table.columns} for key, row in rows.items()}
        return {(key, name): _number(value) for key, row in rows.items() for name, value in row.items()}

    measured = _read(results, number, cells)
    if measured is None:
        return {(key, name): math.nan for key in table.index for name in table.columns}
    return measured


def read_limits(results: Path) -> dict[Cell, float]:
    """The limits of Table 6's speed-ups, by `speedup_cell`: "arithmetic" of its record (`write_table`).

    Empty if the table or its limits are missing.  Raises `DataError` for a file that is no such table.
    """

    def limits(record: Any) -> dict[Cell, float]:
        rows = record.get("arithmetic", {}).items()
        return {(row, column): float(ratio) for row, ratios in rows for column, ratio in ratios.items()}

    return _read(results, 6, limits) or {}


def _read(results: Path, number: int, parse: Callable[[Any], dict[Cell, float]]) -> dict[Cell, float] | None:
    """`parse` of a table's JSON; None if there is no file."""
    path = results / f"table{number}.json"
    if not path.exists():
        return None
    remedy = "not a table that sppnet wrote; measure it again"
    record = read_json(path, remedy)
    try:
        return parse(record)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise DataError(f"{path}: {remedy}") from None


def _row(values: Any, key: Hashable) -> Any:
    for part in key if isinstance(key, tuple) else (key,):
        values = values[str(part)]
    return values


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
