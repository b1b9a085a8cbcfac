"""Writes measured tables: CSV, Markdown and LaTeX beside the published numbers, and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.errors import SppnetError
from sppnet_cli.tables.paper import (
    CONV_SPEEDUP,
    LAYOUTS,
    PER_CLASS,
    PRINTED_CONV_SPEEDUP,
    SPEEDUPS,
    VOC_CLASSES,
    journal,
    literature,
    printed,
    published,
    unit,
)
from sppnet_cli.tables.render import by_source, format_mean, format_number, fraction, parts, with_notes

_STAR = "*"  # after the label of another group's row
_STARRED = f"Rows with {_STAR} are other groups', as published."
_SOURCES = {
    "paper": "as published",
    "journal": "the journal edition, whose R-CNN has SPP-net's weights, as here",
    "arithmetic": "R-CNN's floating-point operations over SPP-net's: the limit at equal efficiency",
}


def mean_and_deviation(tables: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and sample standard deviation (n - 1) of each cell over the seeds' tables; NaN deviations for one seed."""
    cells = np.stack([table.to_numpy(float) for table in tables])
    deviation = cells.std(axis=0, ddof=1) if len(tables) > 1 else np.full(cells.shape[1:], math.nan)
    rows, columns = tables[0].index, tables[0].columns
    return pd.DataFrame(cells.mean(axis=0), rows, columns), pd.DataFrame(deviation, rows, columns)


def write_table(
    results_dir: Path,
    number: int,
    measured: pd.DataFrame,
    record: Mapping[str, Any],
    *,
    deviation: pd.DataFrame | None = None,
    seeds: int = 1,
) -> list[Path]:
    """Write `table<number>.csv`, `.md`, `.tex`, `.json` and `.published.csv` into `results_dir`; return their paths.

    - CSV: exactly the published header and row labels, and the measured means, empty where nothing was measured.  Rows
      of other groups keep their published numbers (`paper.literature`).  Percent have the decimals of the published
      column, seconds 4 significant digits, speed-ups 3.
    - `.published.csv`: the paper's numbers with the same header and labels, so that one can subtract the two.
    - Markdown and LaTeX: a caption; for each row a line `ours` (mean ± deviation) and a line `paper`; a star at the rows
      of other groups; `record["notes"]`.  Table 6 also has lines `journal` (`paper.journal`) and `arithmetic`, and a row
      with the speed-up of the convolutions.
    - JSON: the record; "values", the unrounded means by row and column, as fractions, seconds or ratios, null where
      nothing was measured; likewise "deviation" (with several seeds) and "published"; "others", the rows of other groups,
      if there are any; "journal" for Table 6.

    Args:
        results_dir: made if it does not exist.
        number: 1 to 9.
        measured: as `paper.empty_like_published(number, classes)`, filled in the published units (percent) except for
            the cells of other groups; means if there are several seeds.  The columns of Tables 7 to 9 name the
            classes; if they are not VOC's, other groups have only their mAP.  Table 6 may have the row `CONV_SPEEDUP`.
        record: settings and origin of the numbers, in JSON types: images, windows, seed, device, versions, seconds.
            "notes", a list of sentences, is optional.  So is "arithmetic", of Table 6: R-CNN's floating-point
            operations over SPP-net's, `{row: {column: ratio}}` for the rows "speedup vs R-CNN" and "conv speedup
            vs R-CNN" and the columns of SPP-net; these are the limits of the speed-ups.
        deviation: the cells' sample deviations over the seeds, in the units of `measured`.
        seeds: number of seeds.

    Raises:
        ValueError: `measured` has other rows or columns than the published table, an infinite value, or a value
            in a cell of other groups; or "arithmetic" has other rows or columns.
        SppnetError: a file cannot be written.
    """
    classes = tuple(map(str, measured.columns[1:])) if number in PER_CLASS else VOC_CLASSES
    theirs = published(number, classes)
    if deviation is None:
        deviation = measured * math.nan
    with_conv = measured, deviation
    if number == 6:
        measured, deviation = (table.drop(index=CONV_SPEEDUP, errors="ignore") for table in with_conv)
    others = literature(number, classes)
    if not (measured.index.equals(theirs.index) and measured.columns.equals(theirs.columns)):
        raise ValueError(f"table {number} wants the rows and columns of empty_like_published({number})")
    if measured.isin([math.inf, -math.inf]).to_numpy().any():
        raise ValueError(f"table {number} holds an infinite value")
    if (measured.notna() & others).to_numpy().any():
        raise ValueError(f"table {number}: a number of another group's was measured here")

    of_paper = printed(number, classes)
    of_numbers = of_paper[[*measured.columns]]
    decimals = _decimals(measured, of_numbers)
    ours = _as_text(measured, deviation * math.nan, decimals)
    csv = of_paper.copy()
    csv[ours.columns] = of_numbers.where(others.to_numpy(), ours)

    layout = LAYOUTS[number]
    labels = of_paper[[*layout.keys, *(name for name in layout.remarks if name != "measured_here")]]
    names = labels[layout.keys[0]]
    labels = labels.assign(
        **{layout.keys[0]: names.where(~others.all(axis=1).to_numpy(), names + f" {_STAR}")}
    )
    ours = _dashed(_as_text(measured, deviation, decimals), of_numbers.mask(others.to_numpy(), ""))
    sources = {"ours": ours, "paper": of_numbers}
    if number == 6:
        conv = _conv_speedup(*with_conv)
        labels, sources = _with_speed(labels, sources, conv, measured, record.get("arithmetic", {}))
        last = [float(text or "nan") for text in PRINTED_CONV_SPEEDUP]
        of_conv = (*conv, pd.DataFrame([last], [CONV_SPEEDUP], theirs.columns))
        measured, deviation, theirs = map(pd.concat, zip((measured, deviation, theirs), of_conv, strict=True))

    starred = [", ".join(parts(key)) for key, row in others.iterrows() if row.all()]
    values = {
        "values": _nested(measured),
        **({"deviation": _nested(deviation)} if seeds > 1 else {}),
        "published": _nested(theirs),
        **({"others": starred} if starred else {}),
        **({"journal": _journal_numbers()} if number == 6 else {}),
    }
    caption = " ".join([layout.caption, _legend(sources, seeds, _SOURCES), *([_STARRED] if starred else [])])
    notes = list(record.get("notes", ()))
    text = by_source(labels, sources)
    return _write(
        results_dir,
        f"table{number}",
        {
            "csv": csv.to_csv(index=False, lineterminator="\n"),
            "md": with_notes(text, f"**Table {number}.** {caption}", notes),
            "tex": text.latex(f"table{number}", caption, notes),
            "json": _json({"table": number, **record, **values}),
            "published.csv": of_paper.to_csv(index=False, lineterminator="\n"),
        },
    )


def write_small_table(
    results_dir: Path,
    name: str,
    measured: pd.DataFrame,
    published: pd.DataFrame,
    record: Mapping[str, Any],
    *,
    source: str = "paper",
    deviation: pd.DataFrame | None = None,
    seeds: int = 1,
) -> list[Path]:
    """Write a table that the paper does not number: `<name>.csv`, `.md`, `.json` and `.published.csv`.

    As `write_table`, except that tables in the JSON are lists of rows, each with its labels.  Rows with the labels of
    Table 6's times hold seconds (`paper.unit`).  Returns the paths.

    Args:
        results_dir: made if it does not exist.
        name: of the files.
        measured: percent, NaN where nothing was measured; the index names the rows.
        published: the same rows and columns, NaN where nothing was published.
        record: settings and origin of the numbers; "notes", a list of sentences, is optional.
        source: of the published numbers: `paper` or `journal`.
        deviation: the cells' sample deviations over the seeds, in the units of `measured`.
        seeds: number of seeds.

    Raises:
        ValueError: `measured` and `published` have other rows or columns.
        SppnetError: a file cannot be written.
    """
    if not (measured.index.equals(published.index) and measured.columns.equals(published.columns)):
        raise ValueError(f"{name}: measured and published differ in rows or columns")
    none = measured * math.nan
    deviation = none if deviation is None else deviation
    labels = measured.index.to_frame(index=False).astype(str)
    theirs = _as_text(published, none)
    sources = {"ours": _dashed(_as_text(measured, deviation), theirs), source: theirs}
    in_percent = all(unit(key) == "percent" for key in measured.index)
    units = "Percent." if in_percent else "Percent, but for the rows that name their unit."
    about = f"{units} {_legend(sources, seeds, {source: 'as published'})}"
    values = {
        "values": _rows(measured),
        **({"deviation": _rows(deviation)} if seeds > 1 else {}),
        **({"published": _rows(published)} if published.notna().to_numpy().any() else {}),
    }
    return _write(
        results_dir,
        name,
        {
            "csv": _rounded(measured).to_csv(lineterminator="\n"),
            "md": with_notes(by_source(labels, sources), about, record.get("notes", ())),
            "json": _json({"table": name, **record, **values}),
            "published.csv": _rounded(published).to_csv(lineterminator="\n"),
        },
    )


def _write(folder: Path, name: str, files: Mapping[str, str]) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SppnetError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
    for suffix, text in files.items():
        write_text(folder / f"{name}.{suffix}", text)
    return [folder / f"{name}.{suffix}" for suffix in files]


def _decimals(measured: pd.DataFrame, of_paper: pd.DataFrame) -> dict[str, int]:
    """Decimals of each column's percentages: as the paper prints them, or as in the column before (mAP)."""
    decimals, last = {}, 1
    for column in measured.columns:
        texts = [
            text for key, text in zip(measured.index, of_paper[column], strict=True) if unit(key) == "percent"
        ]
        if any(texts):
            last = max(len(text.partition(".")[2]) for text in texts)
        decimals[column] = last
    return decimals


def _as_text(
    mean: pd.DataFrame, deviation: pd.DataFrame, decimals: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Cells as text, rows numbered from 0."""
    cells = {
        column: [
            format_mean(value, spread, key, 2 if decimals is None else decimals[column])
            for key, value, spread in zip(mean.index, mean[column], deviation[column], strict=True)
        ]
        for column in mean.columns
    }
    return pd.DataFrame(cells, dtype=str)


def _dashed(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Our cells, with a dash in each empty one for which `theirs` has a number."""
    return ours.mask((ours.to_numpy() == "") & (theirs.to_numpy() != ""), "-")


def _conv_speedup(measured: pd.DataFrame, deviation: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and deviation of Table 6's row `CONV_SPEEDUP`: as measured, or without it from the mean times."""
    if CONV_SPEEDUP in measured.index:
        return measured.loc[[CONV_SPEEDUP]], deviation.loc[[CONV_SPEEDUP]]
    times = measured.loc["conv time (s)"]
    ratios = times["rcnn"] / times.drop("rcnn").reindex(times.index)
    row = pd.DataFrame([ratios.to_numpy()], [CONV_SPEEDUP], measured.columns)
    return row, row * math.nan


def _with_speed(
    labels: pd.DataFrame,
    sources: Mapping[str, pd.DataFrame],
    conv: tuple[pd.DataFrame, pd.DataFrame],
    measured: pd.DataFrame,
    arithmetic: Mapping[str, Mapping[str, float]],
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Table 6's labels and sources with the speed-up of the convolutions as last row; adds journal and arithmetic."""
    rows = pd.Index([*measured.index, CONV_SPEEDUP])
    known = pd.DataFrame(arithmetic).T
    if not (set(known.index) <= set(SPEEDUPS.values()) and set(known.columns) <= set(measured.columns)):
        raise ValueError('table 6: "arithmetic" has rows or columns that are no speed-ups of table 6')
    last = {"ours": _as_text(*conv).iloc[0], "paper": PRINTED_CONV_SPEEDUP}
    limits = known.reindex(index=rows, columns=measured.columns).astype(float)
    more = {
        "journal": journal().reindex(index=rows, fill_value="").reset_index(drop=True),
        "arithmetic": _as_text(limits, limits * math.nan),
    }
    labels = pd.concat([labels, pd.DataFrame({"row": [CONV_SPEEDUP]})], ignore_index=True)
    extended = {
        source: pd.concat([numbers, pd.DataFrame([last[source]], columns=numbers.columns)], ignore_index=True)
        for source, numbers in sources.items()
    }
    return labels, extended | more


def _legend(sources: Mapping[str, pd.DataFrame], seeds: int, about: Mapping[str, str]) -> str:
    mean = f"mean ± sample standard deviation over {seeds} seeds, " if seeds > 1 else ""
    about = {"ours": f"measured here, {mean}a dash where it was not"} | dict(about)
    filled = [name for name, numbers in sources.items() if (numbers.to_numpy() != "").any()]
    return f"Sources: {', '.join(f'{name} ({about[name]})' for name in filled)}."


def _nested(table: pd.DataFrame) -> dict[str, Any]:
    """A table for JSON, by row and column."""
    values: dict[str, Any] = {}
    for key, row in table.iterrows():
        inner = values
        for part in parts(key):
            inner = inner.setdefault(part, {})
        inner.update({str(column): fraction(float(value), key) for column, value in row.items()})
    return values


def _journal_numbers() -> dict[str, dict[str, float]]:
    texts = journal().to_dict("index").items()
    return {
        str(row): {str(column): float(text) for column, text in cells.items() if text} for row, cells in texts
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table for JSON, as a list of rows with their labels."""
    labels = table.index.to_frame(index=False).astype(str).to_dict("records")
    return [
        {str(name): label for name, label in of_row.items()}
        | {str(column): fraction(float(value), key) for column, value in cells.items()}
        for of_row, (key, cells) in zip(labels, table.iterrows(), strict=True)
    ]


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    cells = [
        [float(format_number(value, key) or "nan") for value in row]
        for key, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return pd.DataFrame(cells, index=table.index, columns=table.columns)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
