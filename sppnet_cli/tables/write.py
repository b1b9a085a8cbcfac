"""Writes a measured table: CSV with the paper's labels, Markdown and LaTeX beside its numbers, and JSON."""

import csv
import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from sppnet_cli.atomic import atomic_path
from sppnet_cli.errors import SppnetError
from sppnet_cli.tables.paper import LAYOUTS, PER_CLASS, VOC_CLASSES, literature, printed, published, unit

_LEGEND = "Each cell: ours (published); a dash: not measured, or not published."
_STAR = "*"  # behind the label of a row that is not ours
_STARRED = f"Rows with {_STAR} are other groups', as published."
_WIDE = 10  # columns from which on a LaTeX table is shrunk to the width of the text


def write_table(results_dir: Path, number: int, measured: pd.DataFrame, record: Mapping[str, Any]) -> None:
    """Write `table<number>.csv`, `.md`, `.tex` and `.json` into `results_dir`, each file whole or not at all.

    - CSV: the published header and row labels to the letter, measured numbers alone, empty where nothing was
      measured, but for the rows of other groups, which keep their published numbers (`paper.literature`); percent
      with the decimals of the published column, seconds with 4 significant digits, speed-ups with 3.
    - Markdown and LaTeX: each measured cell beside the published one, a star at the rows of other groups, a caption,
      `record["notes"]` beneath.
    - JSON: the record, and under "values" the measured numbers unrounded, by row and column: fractions,
      seconds or ratios, null where nothing was measured; under "published" the rows that hold no number of ours,
      which the CSV of Table 8, with the paper's columns, does not tell.

    Args:
        results_dir: made where it does not exist.
        number: 1 to 9.
        measured: as `paper.empty_like_published(number, classes)`, filled in the published units (percent),
            but for the cells of other groups.  Of Tables 7 to 9 its columns name the classes; where they are
            not VOC's, the numbers of other groups are their overall ones alone.
        record: how the numbers came about, of JSON types: images, windows, seed, device, versions, seconds.
            "notes", a list of sentences, is optional; "table" and "values" are taken.

    Raises:
        ValueError: `measured` has other rows or columns than the published table, an infinite value, or one in
            a cell of other groups.
        SppnetError: a file cannot be written.
    """
    classes = tuple(map(str, measured.columns[1:])) if number in PER_CLASS else VOC_CLASSES
    expected = published(number, classes)
    if not (measured.index.equals(expected.index) and measured.columns.equals(expected.columns)):
        raise ValueError(f"table {number} wants the rows and columns of empty_like_published({number})")
    if measured.isin([math.inf, -math.inf]).to_numpy().any():
        raise ValueError(f"table {number} holds an infinite value")
    if (measured.notna() & literature(number, classes)).to_numpy().any():
        raise ValueError(f"table {number}: a number of another group's was measured here")
    notes = list(record.get("notes", ()))
    ours = _format(number, measured, classes)
    beside = _beside(number, ours, classes)
    files = {
        "csv": _csv(ours),
        "md": _markdown(number, beside, notes),
        "tex": _latex(number, beside, notes),
        "json": _json(number, measured, classes, record),
    }
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SppnetError(
            f"{results_dir}: cannot be made ({error.strerror}); choose another folder"
        ) from None
    for suffix, text in files.items():
        with atomic_path(results_dir / f"table{number}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def _format(number: int, measured: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The printed table with the measured numbers, as text, in place of the published ones."""
    table = printed(number, classes)
    others = literature(number, classes)
    decimals = 1
    for column in measured.columns:
        percent = [
            text for key, text in zip(measured.index, table[column], strict=True) if unit(key) == "percent"
        ]
        if any(percent):  # else those of the column before, mAP's
            decimals = max(len(text.partition(".")[2]) for text in percent)
        table[column] = [
            text if of_others else format_number(value, key, decimals)
            for key, value, text, of_others in zip(
                measured.index, measured[column], table[column], others[column], strict=True
            )
        ]
    return table


def format_number(value: float, key: Hashable, decimals: int = 2) -> str:
    """A cell's number as text, by the unit of its row: percent with `decimals`; "" for NaN."""
    if math.isnan(value):
        return ""
    if unit(key) == "percent":
        return f"{value:.{decimals}f}"
    digits = 4 if unit(key) == "seconds" else 3
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def _beside(number: int, ours: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Each measured cell with the published one in brackets, as text; words as printed."""
    theirs = printed(number, classes)
    others = literature(number, classes)
    table = theirs.drop(columns="measured_here", errors="ignore")
    label = LAYOUTS[number].keys[0]
    table[label] = [
        f"{name} {_STAR}" if starred else name
        for name, starred in zip(table[label], others.all(axis=1), strict=True)
    ]
    for column in published(number, classes).columns:
        if not any(theirs[column]):
            table[column] = ours[column]
            continue
        table[column] = [
            f"{'-' if of_others else own or '-'} ({other or '-'})" if own or other else ""
            for own, other, of_others in zip(ours[column], theirs[column], others[column], strict=True)
        ]
    return table


def _caption(number: int) -> str:
    starred = literature(number).all(axis=1).any()
    return " ".join([LAYOUTS[number].caption, _LEGEND, *([_STARRED] if starred else [])])


def _csv(table: pd.DataFrame) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(table.columns), *table.to_numpy().tolist()])
    return text.getvalue()


def _markdown(number: int, table: pd.DataFrame, notes: Sequence[str]) -> str:
    numeric = set(table.columns) - set(LAYOUTS[number].keys + LAYOUTS[number].remarks)
    widths = [max(3, len(name), *table[name].map(len)) for name in table.columns]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = [
        "-" * (width - 1) + (":" if name in numeric else "-")
        for name, width in zip(table.columns, widths, strict=True)
    ]
    lines = [
        f"**Table {number}.** {_caption(number)}",
        "",
        line(list(table.columns)),
        line(rule),
        *(line(row) for row in table.to_numpy().tolist()),
    ]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _latex(number: int, table: pd.DataFrame, notes: Sequence[str]) -> str:
    numeric = set(table.columns) - set(LAYOUTS[number].keys + LAYOUTS[number].remarks)
    rows = [
        " & ".join(map(_escape, row)) + r" \\" for row in [list(table.columns), *table.to_numpy().tolist()]
    ]
    wide = len(table.columns) >= _WIDE
    lines = [
        *([r"% needs \usepackage{graphicx}"] if wide else []),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(_caption(number))}}}",
        rf"\label{{tab:table{number}}}",
        *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{''.join('r' if name in numeric else 'l' for name in table.columns)}}}",
        r"\hline",
        rows[0],
        r"\hline",
        *rows[1:],
        r"\hline",
        r"\end{tabular}" + ("}" if wide else ""),
        *(rf"\par{{\footnotesize {_escape(note)}\par}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escape(text: str) -> str:
    return re.sub(r"[\\~^%&$#_{}]", lambda found: _LATEX.get(found[0], "\\" + found[0]), text)


def _json(number: int, measured: pd.DataFrame, classes: Sequence[str], record: Mapping[str, Any]) -> str:
    values: dict[str, Any] = {}
    for key, row in measured.iterrows():
        inner = values
        for part in _parts(key):
            inner = inner.setdefault(part, {})
        inner.update({str(column): _fraction(float(value), key) for column, value in row.items()})
    others = [", ".join(_parts(key)) for key, row in literature(number, classes).iterrows() if row.all()]
    return (
        json.dumps(
            {"table": number, **record, "published": others, "values": values}, indent=2, allow_nan=False
        )
        + "\n"
    )


def _parts(key: Hashable) -> tuple[str, ...]:
    return tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)


def _fraction(value: float, key: Hashable) -> float | None:
    if math.isnan(value):
        return None
    return (
        round(value / 100, 12) if unit(key) == "percent" else value
    )  # 12: 34.6 is .346, not .34600000000000003
