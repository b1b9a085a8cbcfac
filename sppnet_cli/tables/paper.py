"""The published numbers: Tables 1 to 9 of the paper, the claims that they support, and the journal's Table 6."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Literal

import pandas as pd

Unit = Literal["percent", "seconds", "ratio"]

_FOLDER = Path(__file__).with_name("published")


@dataclass(frozen=True)
class Layout:
    """The kinds of a table's columns; columns not named here hold measured numbers."""

    caption: str
    keys: tuple[str, ...]  # columns that together name a row
    remarks: tuple[str, ...] = ()  # other columns of text
    others: tuple[str, ...] = ()  # rows of other groups, if no column marks them


PER_CLASS = (7, 8, 9)  # tables with a column for every class

_PER_CLASS = "Detection AP (%) of every class and their mean (mAP): "

LAYOUTS = {
    1: Layout(
        "Classification error (%), each of a single network.",
        ("id",),
        ("method", "test_scales", "test_views", "measured_here"),
    ),
    2: Layout("Classification error (%) from a single view.", ("method", "test_view")),
    3: Layout("VOC classification mAP (%) by layer, network and view.", ("layer",)),
    4: Layout("Caltech101 accuracy (%) by layer, network and view.", ("layer",)),
    5: Layout(
        "Classification: VOC mAP (%), Caltech101 accuracy (%) and its deviation over the splits.",
        ("method",),
        ("note", "measured_here"),
    ),
    6: Layout(
        "Detection mAP (%) by layer (ft: fine-tuned, bb: bounding-box regression), and time per image.",
        ("row",),
    ),
    7: Layout(_PER_CLASS + "SPP-net by number of scales and layer.", ("scales", "layer")),
    8: Layout(
        _PER_CLASS + "SPP-net and other methods.",
        ("method",),
        others=("DPM", "SS", "Regionlet", "DetNet"),
    ),
    9: Layout(_PER_CLASS + "two SPP-nets and their combination.", ("method",)),
}

# VOC's classes in the devkit's order, under the paper's short names.
_VOC = {
    "aeroplane": "aero", "bicycle": "bike", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "diningtable": "table", "dog": "dog",
    "horse": "horse", "motorbike": "mbike", "person": "person", "pottedplant": "plant", "sheep": "sheep",
    "sofa": "sofa", "train": "train", "tvmonitor": "tv",
}  # fmt: skip
VOC_CLASSES = tuple(_VOC.values())

CONV_SPEEDUP = "conv speedup vs R-CNN"  # not a row of the paper's Table 6, but claimed in its section 1
PRINTED_CONV_SPEEDUP = ("170", "30", "")  # "30-170x faster", by column of Table 6
SPEEDUPS = {
    "conv time (s)": CONV_SPEEDUP,
    "total time (s)": "speedup vs R-CNN",
}  # by the times that they compare

_UNITS: dict[str, Unit] = {
    "conv time (s)": "seconds",
    "fc time (s)": "seconds",
    "total time (s)": "seconds",
    "speedup vs R-CNN": "ratio",
    CONV_SPEEDUP: "ratio",
}


@cache
def _text(name: str) -> str:
    return (_FOLDER / f"{name}.csv").read_text(encoding="utf-8")


def class_columns(class_names: Sequence[str]) -> tuple[str, ...]:
    """The columns of Tables 7 to 9 for a data set's classes: the paper's short names for VOC's, else the names."""
    return VOC_CLASSES if tuple(class_names) == tuple(_VOC) else tuple(class_names)


def printed(number: int, classes: Sequence[str] = VOC_CLASSES) -> pd.DataFrame:
    """Table `number` as in its file: every column, every cell as text, "" for an empty one.

    With other `classes` than VOC's, Tables 7 to 9 have an empty column for each class.
    """
    table = pd.read_csv(StringIO(_text(f"table{number}")), dtype=str, keep_default_na=False)
    if number in PER_CLASS and tuple(classes) != VOC_CLASSES:
        table = table.drop(columns=list(VOC_CLASSES))
        table[list(classes)] = ""
    return table


def published(number: int, classes: Sequence[str] = VOC_CLASSES) -> pd.DataFrame:
    """The numbers of table `number`, float64, NaN where the paper has none, in the units printed (percent).

    Rows are indexed by the table's key columns (`LAYOUTS`): `published(6).loc["pool5", "spp_1scale"]`,
    `published(7).loc[(5, "ftfc7 bb"), "mAP"]`; `measured - published(number)` subtracts cell by cell.
    """
    layout = LAYOUTS[number]
    table = pd.read_csv(StringIO(_text(f"table{number}")), index_col=list(layout.keys))
    columns = [name for name in printed(number, classes) if name not in layout.keys + layout.remarks]
    return table.reindex(columns=columns).astype(float)


def empty_like_published(number: int, classes: Sequence[str] = VOC_CLASSES) -> pd.DataFrame:
    """The rows and columns of `published(number)` with every cell NaN, for an experiment to fill."""
    table = published(number, classes)
    return pd.DataFrame(float("nan"), index=table.index, columns=table.columns)


def journal() -> pd.DataFrame:
    """The journal edition's Table 6 as text, "" for an empty cell: there R-CNN has SPP-net's weights (ZF-5).

    Rows and columns are those of Table 6, and the row `CONV_SPEEDUP`.
    """
    return pd.read_csv(StringIO(_text("journal6")), dtype=str, keep_default_na=False, index_col="row")


def literature(number: int, classes: Sequence[str] = VOC_CLASSES) -> pd.DataFrame:
    """Bool: which cells of `published(number)` are other groups' numbers, never measured here."""
    marks = printed(number)
    table = published(number, classes)
    flags = pd.DataFrame(False, index=table.index, columns=table.columns)
    flags.loc[list(LAYOUTS[number].others)] = True
    if "measured_here" in marks:
        # "voc only": the authors measured the row's VOC columns themselves.
        for row, mark in enumerate(marks["measured_here"]):
            others = {"yes": [], "no": list(table.columns)}.get(mark)
            if others is None:
                others = [column for column in table.columns if not column.startswith(mark.split()[0])]
            flags.iloc[row] = table.columns.isin(others)
    return flags


def unit(row: object) -> Unit:
    """The unit of a row by its label: percent except for Table 6's times and speed-ups."""
    return _UNITS.get(str(row), "percent")


def claims() -> pd.DataFrame:
    """The paper's claims, each a comparison of cells of a table, indexed by id (`T6.5`).

    Columns: table (int), claim, better and worse (the cells), paper_better and paper_worse (float, NaN where the
    paper prints none), measure (errors and seconds: lower is better; mAP and accuracy: higher; categories: how
    many are won and lost), factor (float, how many times better as printed; NaN: by any amount).
    """
    return pd.read_csv(StringIO(_text("claims")), index_col="id")
