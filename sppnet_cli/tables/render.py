"""Turns numbers into text, and text into Markdown and LaTeX tables."""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sppnet_cli.tables.paper import unit

_WIDE = 10  # a LaTeX table with this many columns is shrunk to the width of the text


def format_number(value: float, key: Hashable, decimals: int = 2) -> str:
    """A number of row `key` as text, in the row's unit; "" for NaN.

    Percent have `decimals`, seconds 4 significant digits, ratios 3.
    """
    if math.isnan(value):
        return ""
    if unit(key) == "percent":
        return f"{value:.{decimals}f}"
    digits = 4 if unit(key) == "seconds" else 3
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def format_mean(mean: float, deviation: float, key: Hashable, decimals: int = 2) -> str:
    """`41.2 ± 0.9` with the mean's decimals, or the mean alone if the deviation is NaN."""
    text = format_number(mean, key, decimals)
    if not text or math.isnan(deviation):
        return text
    return f"{text} ± {deviation:.{len(text.partition('.')[2])}f}"


def fraction(value: float, key: Hashable) -> float | None:
    """A number of row `key` for JSON: percent as a fraction, seconds and ratios unchanged, None for NaN."""
    if math.isnan(value):
        return None
    return (
        round(value / 100, 12) if unit(key) == "percent" else value
    )  # 12: 34.6 is .346, not .34600000000000003


def parts(key: Hashable) -> tuple[str, ...]:
    """The labels of a row, one for each key column."""
    return tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text.  The first `words` columns hold words, the rest numbers, aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int

    def markdown(self) -> str:
        """The table alone, its columns aligned."""
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.header, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
        rule = [
            "-" * (width - 1) + ("-" if column < self.words else ":") for column, width in enumerate(widths)
        ]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in (cells[0], rule, *cells[1:])
        ]
        return "\n".join(lines) + "\n"

    def latex(self, label: str, caption: str, notes: Sequence[str]) -> str:
        """A `table` environment with the caption above and the notes beneath."""
        rows = [" & ".join(map(_escape, row)) + r" \\" for row in (self.header, *self.rows)]
        columns = len(self.header)
        wide = columns >= _WIDE
        lines = [
            *([r"% needs \usepackage{graphicx}"] if wide else []),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\label{{tab:{label}}}",
            *([r"\resizebox{\textwidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{{'l' * self.words + 'r' * (columns - self.words)}}}",
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


def by_source(labels: pd.DataFrame, sources: Mapping[str, pd.DataFrame]) -> TextTable:
    """A line for each row and source (`ours`, `paper`) with a number, so that no cell holds two numbers.

    Args:
        labels: of the rows, as text.
        sources: the numbers of each source as text, "" for none; as many rows as `labels`.
    """
    columns = next(iter(sources.values())).columns
    rows = [
        [*labels.iloc[k], source, *numbers.iloc[k]]
        for k in range(len(labels))
        for source, numbers in sources.items()
        if any(numbers.iloc[k])
    ]
    return TextTable([*map(str, labels.columns), "source", *map(str, columns)], rows, labels.shape[1] + 1)


def with_notes(table: TextTable, about: str, notes: Sequence[str]) -> str:
    """A Markdown file: what the table shows, the table, and the notes as a list."""
    listed = "".join(f"- {note}\n" for note in notes)
    return f"{about}\n\n{table.markdown()}" + (f"\n{listed}" if notes else "")


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def _escape(text: str) -> str:
    return re.sub(r"[\\~^%&$#_{}±]", lambda match: _LATEX.get(match[0], "\\" + match[0]), text)
