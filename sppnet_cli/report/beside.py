"""Every measured table beside the published one: difference, and deviation over the seeds."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sppnet_cli.errors import DataError
from sppnet_cli.report.results import NUMBERED, REMEDY, SMALL, Results
from sppnet_cli.report.section import Section
from sppnet_cli.tables.paper import (
    CONV_SPEEDUP,
    LAYOUTS,
    PER_CLASS,
    VOC_CLASSES,
    literature,
    printed,
    published,
    unit,
)
from sppnet_cli.tables.render import format_number, parts

_KINDS = ("values", "deviation", "published")  # of a record's numbers


@dataclass(frozen=True)
class Cell:
    """One cell as text; `order` is the number that sorting goes by."""

    ours: str
    deviation: str
    published: str
    difference: str
    order: float | None
    others: bool = False  # of another group, never measured here


@dataclass(frozen=True)
class Row:
    """Its labels, and a cell for each column."""

    labels: Sequence[str]
    cells: Sequence[Cell]
    others: bool = False


@dataclass(frozen=True)
class Table:
    """A table as the page shows it."""

    id: str
    title: str
    caption: str
    source: str  # of the published numbers: `paper` or `journal`
    labels: Sequence[str]  # names of the columns of words
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    about: str
    file: str


def tables(results: Results) -> Section:
    """All measured tables.  Raises `DataError` for a record that is no table's."""
    shown = []
    for name, record in results.records.items():
        try:
            shown.append(_numbered(NUMBERED[name], record) if name in NUMBERED else _small(name, record))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise DataError(f"{results.folder / name}.json: {REMEDY}") from None
    return Section(
        "tables",
        "Tables",
        "Large: measured here. Beneath it: the published number, and by how much ours is higher or lower.",
        "tables.html",
        {"tables": shown, "several": any(len(record["seeds"]) > 1 for record in results.records.values())},
    )


def cell(
    ours: float, deviation: float, theirs: float, key: Hashable, decimals: int, others: bool = False
) -> Cell:
    """Of numbers in the units printed, NaN for none, in a row called `key`."""
    difference = ""
    if not (math.isnan(ours) or math.isnan(theirs)):
        difference = ("−" if ours < theirs else "+") + format_number(abs(ours - theirs), key, decimals)
    order = next((value for value in (ours, theirs) if not math.isnan(value)), None)
    text = format_number(ours, key, decimals)
    return Cell(
        text,
        format_number(deviation, "", len(text.partition(".")[2])),
        format_number(theirs, key, decimals),
        difference,
        order,
        others,
    )


def _numbered(number: int, record: Mapping[str, Any]) -> Table:
    layout = LAYOUTS[number]
    first = published(number).index[0]
    classes = tuple(_of(record["values"], first))[1:] if number in PER_CLASS else VOC_CLASSES
    texts, foreign = printed(number, classes), literature(number, classes)
    remarks = [name for name in layout.remarks if name != "measured_here"]
    decimals = _decimals(texts[list(foreign.columns)].to_numpy().ravel().tolist(), list(foreign.index))
    more = (
        [CONV_SPEEDUP] if CONV_SPEEDUP in record["values"] else []
    )  # claimed, but no row of the paper's Table 6
    rows = []
    for place, key in enumerate([*foreign.index, *more]):
        numbers = [_of(record.get(kind, {}), key) for kind in _KINDS]
        others = [key in foreign.index and bool(foreign.iloc[place][column]) for column in foreign.columns]
        cells = [
            cell(*_printed(numbers, column, key), key, decimals, each)
            for column, each in zip(foreign.columns, others, strict=True)
        ]
        labels = [*parts(key), *(texts[name].iloc[place] for name in remarks)]
        rows.append(Row(labels, cells, all(others)))
    names, columns = [*layout.keys, *remarks], list(map(str, foreign.columns))
    caption = layout.caption
    if number in PER_CLASS:
        names, columns, rows = _classes_as_rows(columns, rows)
        caption += " The paper prints the classes as columns."
    return Table(
        f"table{number}", f"Table {number}", caption, "paper", names, columns, rows, record["notes"],
        _about(record), f"table{number}.csv",
    )  # fmt: skip


def _small(name: str, record: Mapping[str, Any]) -> Table:
    title, source = SMALL[name]
    values = record["values"]
    words = [column for column, value in values[0].items() if isinstance(value, str)]
    columns = [column for column in values[0] if column not in words]
    rows = []
    for place, ours in enumerate(values):
        labels = [ours[word] for word in words]
        key = labels[0] if len(labels) == 1 else tuple(labels)
        numbers = [record[kind][place] if kind in record else {} for kind in _KINDS]
        rows.append(Row(labels, [cell(*_printed(numbers, column, key), key, 2) for column in columns]))
    caption = "Percent, but for the rows that name their unit."
    return Table(
        name, title, caption, source, words, columns, rows, record["notes"], _about(record), f"{name}.csv"
    )


def _classes_as_rows(columns: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[str], list[Row]]:
    turned = [Row([column], [row.cells[place] for row in rows]) for place, column in enumerate(columns)]
    names = ["-scale ".join(row.labels) for row in rows]  # of Table 7; the others have one label
    return ["class"], names, turned


def _decimals(texts: Sequence[str], index: Sequence[Hashable]) -> int:
    """Decimals of percentages, as the paper prints them in this table."""
    if any(unit(key) != "percent" for key in index):
        return 1  # Table 6, whose times have more
    return max((len(text.partition(".")[2]) for text in texts), default=1)


def _of(values: Any, key: Hashable) -> Mapping[str, float | None]:
    """The cells of a row in a record; empty where there is none."""
    for part in parts(key):
        values = values.get(part, {})
    found: Mapping[str, float | None] = values
    return found


def _printed(
    rows: Sequence[Mapping[str, float | None]], column: str, key: Hashable
) -> tuple[float, float, float]:
    """Ours, deviation and published, of the column of these rows, in the unit printed; NaN where there is none."""
    scale = 100 if unit(key) == "percent" else 1
    values = (row.get(column) for row in rows)
    ours, deviation, theirs = (math.nan if value is None else scale * value for value in values)
    return ours, deviation, theirs


def _about(record: Mapping[str, Any]) -> str:
    seeds = record["seeds"]
    over = f"Seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"Seed {seeds[0]}"
    images = ", ".join(f"{count} images of {split}" for split, count in record.get("images", {}).items())
    return "; ".join(filter(None, [over, images, str(record.get("date", ""))[:10]]))
