"""Writes tables that the report does not number: ablations, and the journal edition's comparison."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli.atomic import write_text

_DECIMALS = 2


def write_small_table(
    results_dir: Path, name: str, measured: pd.DataFrame, published: pd.DataFrame, record: Mapping[str, Any]
) -> None:
    """Write `<name>.csv` (ours, percent), `.md` (ours beside the published) and `.json` (the record and fractions).

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
    write_text(results_dir / f"{name}.csv", measured.round(_DECIMALS).to_csv(lineterminator="\n"))
    write_text(results_dir / f"{name}.md", _markdown(measured, published, record.get("notes", ())))
    values = [
        {str(column): _fraction(value) for column, value in row.items()}
        for row in measured.to_dict("records")
    ]
    keys = measured.index.to_frame(index=False).astype(str).to_dict("records")
    rows = [key | value for key, value in zip(keys, values, strict=True)]
    text = json.dumps({"table": name, **record, "values": rows}, indent=2, allow_nan=False)
    write_text(results_dir / f"{name}.json", text + "\n")


def _markdown(measured: pd.DataFrame, published: pd.DataFrame, notes: Any) -> str:
    heads = [*map(str, measured.index.names), *map(str, measured.columns)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for key, ours, theirs in zip(measured.index, measured.to_numpy(), published.to_numpy(), strict=True):
        names = key if isinstance(key, tuple) else (key,)
        cells = [_cell(own, other) for own, other in zip(ours, theirs, strict=True)]
        lines.append(f"| {' | '.join([*map(str, names), *cells])} |")
    lines += ["", "Percent; in brackets what was published."] + [f"\n- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _cell(own: float, other: float) -> str:
    text = "-" if math.isnan(own) else f"{own:.{_DECIMALS}f}"
    return text if math.isnan(other) else f"{text} ({other:.{_DECIMALS}f})"


def _fraction(value: float) -> float | None:
    return None if math.isnan(value) else round(value / 100, 12)
