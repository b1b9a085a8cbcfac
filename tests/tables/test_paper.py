import csv
from pathlib import Path

import pandas as pd
import pytest

from sppnet_cli.tables import paper
from sppnet_cli.tables.paper import claims, empty_like_published, literature, printed, published, unit

ALL = range(1, 10)
FOLDER = Path(paper.__file__).with_name("published")


@pytest.mark.parametrize("number", ALL)
def test_printed_is_the_file_to_the_letter(number):
    with (FOLDER / f"table{number}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    table = printed(number)
    assert [list(table.columns), *table.to_numpy().tolist()] == rows


@pytest.mark.parametrize("number", ALL)
def test_published_holds_floats_under_unique_rows(number):
    table = published(number)
    assert (table.dtypes == float).all()
    assert table.index.is_unique
    assert len(table) == len(printed(number))
    assert table.notna().any(axis=None)


def test_published_cells():
    assert published(1).loc["e4"].to_dict() == {"top1_error": 34.6, "top5_error": 13.64}
    assert published(2).loc[("SPP-net6, multi-size trained", "1 full"), "top1_error"] == 37.07
    assert list(published(5).columns) == ["voc2007_map", "caltech101_accuracy", "caltech101_std"]
    assert published(6).loc["total time (s)", "rcnn"] == 9.03
    assert pd.isna(published(6).loc["speedup vs R-CNN", "rcnn"])
    assert published(7).loc[(5, "ftfc7 bb"), "mAP"] == 59.2
    assert published(9).loc["combination", "tv"] == 68.8


@pytest.mark.parametrize("number", [7, 8, 9])
def test_published_map_is_the_mean_of_the_classes(number):
    table = published(number)
    mean = table.drop(columns="mAP").mean(axis=1)
    assert ((mean - table["mAP"]).abs() < 0.1).all()  # both sides are printed with one decimal


@pytest.mark.parametrize("number", ALL)
def test_empty_table_has_the_shape_and_no_number(number):
    table = empty_like_published(number)
    assert table.index.equals(published(number).index)
    assert table.columns.equals(published(number).columns)
    assert (table.dtypes == float).all()
    assert table.isna().all(axis=None)


def test_units():
    rows = published(6).index
    assert [unit(row) for row in rows] == ["percent"] * 5 + ["seconds"] * 3 + ["ratio"]
    assert unit((5, "ftfc7 bb")) == "percent"


def test_claims():
    table = claims()
    assert len(table) == 35
    assert table.index.is_unique
    assert table.loc["T6.12", "factor"] == 64
    assert table.loc["T6.5", "table"] == 6
    assert pd.isna(table.loc["T9.3", "paper_better"])
    assert set(table["measure"]) == {"top1_error", "mAP", "accuracy", "seconds", "categories"}


def test_whose_numbers_are_never_measured_here():
    others = literature(1)
    assert others.loc["a":"d2"].all(axis=None)
    assert not others.loc["e1":"e5"].any(axis=None)
    others = literature(5)
    assert others.loc["Zeiler & Fergus"].to_dict() == {
        "voc2007_map": False,
        "caltech101_accuracy": True,
        "caltech101_std": True,
    }
    assert not others.loc["ours"].any()
    assert not literature(3).any(axis=None)
