"""Writes tables that the report does not number: ablations, and the journal edition's comparison."""

import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.tables.paper import unit
from sppnet_cli.tables.write import format_number


def write_small_table(
    results_dir: Path, name: str, measured: pd.DataFrame, published: pd.DataFrame, record: Mapping[str, Any]
) -> None:
    """Write `<name>.csv` (ours, percent), `.md` (ours beside the published) and `.json` (the record and fractions).

    Rows with the labels of Table 6's times hold seconds (`paper.unit`) in all three.

    Args:
        results_dir: made where it does not exist.
        name: of the files.
        measured: percent, NaN where nothing was measured; the index names the rows.
        published: the same rows and columns, NaN where nothing was published.
        record: how the numbers came about; "notes", a list of sentences, is optional.

    Raises:
        ValueError: `measured` and `published` have other rows or columns.
        SppnetError: a file cannot be written.
    """
    if not (measured.index.equals(published.index) and measured.columns.equals(published.columns)):
        raise ValueError(f"{name}: measured and published differ in rows or columns")
    results_dir.mkdir(parents=True, exist_ok=True)
    write_text(results_dir / f"{name}.csv", _rounded(measured).to_csv(lineterminator="\n"))
    write_text(results_dir / f"{name}.md", _markdown(measured, published, record.get("notes", ())))
    values = [
        {str(column): _fraction(value, key) for column, value in row.items()}
        for key, row in zip(measured.index, measured.to_dict("records"), strict=True)
    ]
    keys = measured.index.to_frame(index=False).astype(str).to_dict("records")
    rows = [key | value for key, value in zip(keys, values, strict=True)]
    text = json.dumps({"table": name, **record, "values": rows}, indent=2, allow_nan=False)
    write_text(results_dir / f"{name}.json", text + "\n")


def _rounded(measured: pd.DataFrame) -> pd.DataFrame:
    cells = [
        [float(format_number(value, key) or "nan") for value in row]
        for key, row in zip(measured.index, measured.to_numpy(), strict=True)
    ]
    return pd.DataFrame(cells, index=measured.index, columns=measured.columns)


def _markdown(measured: pd.DataFrame, published: pd.DataFrame, notes: Any) -> str:
    heads = [*map(str, measured.index.names), *map(str, measured.columns)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for key, ours, theirs in zip(measured.index, measured.to_numpy(), published.to_numpy(), strict=True):
        names = key if isinstance(key, tuple) else (key,)
        cells = [_cell(own, other, key) for own, other in zip(ours, theirs, strict=True)]
        lines.append(f"| {' | '.join([*map(str, names), *cells])} |")
    in_percent = all(unit(key) == "percent" for key in measured.index)
    but = "" if in_percent else ", but for the rows that name their unit"
    lines += ["", f"Percent{but}; in brackets what was published."] + [f"\n- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _cell(own: float, other: float, key: Hashable) -> str:
    text = format_number(own, key) or "-"
    return text if math.isnan(other) else f"{text} ({format_number(other, key)})"


def _fraction(value: float, key: Hashable) -> float | None:
    if math.isnan(value):
        return None
    return round(value / 100, 12) if unit(key) == "percent" else value
