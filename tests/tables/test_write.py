import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.errors import SppnetError
from sppnet_cli.tables import paper
from sppnet_cli.tables.paper import LAYOUTS, empty_like_published, literature, printed, published
from sppnet_cli.tables.write import mean_and_deviation, write_table

ALL = range(1, 10)
PUBLISHED = Path(paper.__file__).with_name("published")


def markdown_rows(path):
    """The cells of a Markdown table, without its rule."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [rows[0], *rows[2:]]


def table6():
    measured = empty_like_published(6)
    measured.loc["pool5", "spp_1scale"] = 41.249
    measured.loc["fc6", "rcnn"] = 5.0
    measured.loc["conv time (s)"] = [0.0123456, 12.0, 1234.56]
    measured.loc["total time (s)", "rcnn"] = 0.0
    measured.loc["speedup vs R-CNN"] = [63.96, 1234.5, math.nan]
    return measured


def test_csv_of_table_6(tmp_path):
    write_table(tmp_path, 6, table6(), {})
    assert (tmp_path / "table6.csv").read_text() == (
        "row,spp_1scale,spp_5scale,rcnn\n"
        "pool5,41.2,,\n"
        "fc6,,,5.0\n"
        "ftfc6,,,\n"
        "ftfc7,,,\n"
        "ftfc7 bb,,,\n"
        "conv time (s),0.01235,12.00,1235\n"
        "fc time (s),,,\n"
        "total time (s),,,0.000\n"
        "speedup vs R-CNN,64.0,1234,\n"
    )


@pytest.mark.parametrize("number", ALL)
def test_header_and_labels_are_the_published_text(tmp_path, number):
    write_table(tmp_path, number, empty_like_published(number), {})
    ours = (tmp_path / f"table{number}.csv").read_text().splitlines()
    theirs = (PUBLISHED / f"table{number}.csv").read_text().splitlines()
    assert ours[0] == theirs[0]
    first = re.compile(r'"[^"]*"|[^,]*')  # a first column as it stands, quotes included
    assert [first.match(line)[0] for line in ours] == [first.match(line)[0] for line in theirs]
    words = [*LAYOUTS[number].keys, *LAYOUTS[number].remarks]
    written = pd.read_csv(tmp_path / f"table{number}.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(written[words], printed(number)[words])
    numbers = published(number).columns
    others = literature(number).to_numpy()
    assert (written[numbers].to_numpy()[~others] == "").all()
    assert (written[numbers].to_numpy()[others] == printed(number)[numbers].to_numpy()[others]).all()


@pytest.mark.parametrize("number", [7, 8, 9])
def test_published_numbers_written_back_are_the_published_file(tmp_path, number):
    write_table(tmp_path, number, published(number).mask(literature(number)), {})
    assert (tmp_path / f"table{number}.csv").read_bytes() == (PUBLISHED / f"table{number}.csv").read_bytes()


def test_other_classes_have_their_own_columns(tmp_path):
    table = empty_like_published(8, ("disk", "star"))
    assert list(table.columns) == ["mAP", "disk", "star"]
    table.loc["SPP ftfc7"] = [41.26, 50.0, 32.52]
    write_table(tmp_path, 8, table, {})
    lines = (tmp_path / "table8.csv").read_text().splitlines()
    assert lines[0] == "method,mAP,disk,star"
    assert lines[1] == "DPM,33.7,,"  # its overall number alone
    assert lines[6] == "SPP ftfc7,41.3,50.0,32.5"
    assert (
        (tmp_path / "table8.md")
        .read_text()
        .splitlines()[0]
        .endswith("Rows with * are other groups', as published.")
    )
    rows = markdown_rows(tmp_path / "table8.md")
    assert rows[0] == ["method", "source", "mAP", "disk", "star"]
    assert ["DPM *", "paper", "33.7", "", ""] in rows
    assert [row for row in rows if row[0] == "SPP ftfc7"] == [
        ["SPP ftfc7", "ours", "41.3", "50.0", "32.5"],
        ["SPP ftfc7", "paper", "55.2", "", ""],
    ]
    record = json.loads((tmp_path / "table8.json").read_text())
    assert record["others"] == ["DPM", "SS", "Regionlet", "DetNet"]
    assert record["published"]["DPM"] == {"mAP": 0.337, "disk": None, "star": None}
    assert (tmp_path / "table8.published.csv").read_text().splitlines()[:2] == [
        "method,mAP,disk,star",
        "DPM,33.7,,",
    ]


@pytest.mark.parametrize("number", ALL)
def test_pandas_subtracts_the_published_table(tmp_path, number):
    write_table(tmp_path, number, (published(number) + 1).mask(literature(number)), {})
    labels = [*LAYOUTS[number].keys, *LAYOUTS[number].remarks]
    ours = pd.read_csv(tmp_path / f"table{number}.csv", index_col=labels)
    theirs = pd.read_csv(PUBLISHED / f"table{number}.csv", index_col=labels)
    difference = ours - theirs
    assert difference.shape == theirs.shape
    percent = [paper.unit(key[0]) == "percent" for key in difference.index.to_frame().to_numpy()]
    expected = 1 - literature(number).to_numpy()[percent]  # other groups keep their numbers
    assert ((difference[percent] - expected).abs().fillna(0) < 1e-9).all(axis=None)
    assert (difference.isna() == theirs.isna()).all(axis=None)


def test_decimals_are_those_of_the_published_column(tmp_path):
    measured = empty_like_published(5)
    measured.loc["ours"] = [50.0, 60.0, 1.0]
    write_table(tmp_path, 5, measured, {})
    assert (tmp_path / "table5.csv").read_text().splitlines()[-1] == "ours,50.00,60.00,1.0,,yes"


def test_markdown_has_a_line_for_each_source(tmp_path):
    write_table(tmp_path, 6, table6(), {"notes": ["10 images.", "2,000 windows."]})
    lines = (tmp_path / "table6.md").read_text().splitlines()
    assert lines[0].startswith("**Table 6.** ")
    assert (
        "Sources: ours (measured here, a dash where it was not), paper (as published), journal (" in lines[0]
    )
    assert re.fullmatch(r"\| -+ \| -+ \| -+: \| -+: \| -+: \|", lines[3])
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert lines[-3:] == ["", "- 10 images.", "- 2,000 windows."]
    rows = markdown_rows(tmp_path / "table6.md")
    assert rows[0] == ["row", "source", "spp_1scale", "spp_5scale", "rcnn"]
    cells = {(row, source): numbers for row, source, *numbers in rows[1:]}
    assert cells["pool5", "ours"] == ["41.2", "-", "-"]
    assert cells["pool5", "paper"] == ["43.0", "44.9", "44.2"]
    assert cells["conv time (s)", "ours"] == ["0.01235", "12.00", "1235"]
    assert cells["conv time (s)", "paper"] == ["0.053", "0.293", "8.96"]
    assert cells["speedup vs R-CNN", "ours"] == ["64.0", "1234", ""]
    assert cells["speedup vs R-CNN", "paper"] == ["64", "24", ""]
    # R-CNN on SPP-net's own weights, and the speed-up of the convolutions: 1234.56 / .0123456 and / 12.
    assert cells["conv time (s)", "journal"] == ["", "", "14.37"]
    assert cells["speedup vs R-CNN", "journal"] == ["102", "38", ""]
    assert cells["conv speedup vs R-CNN", "ours"] == ["100000", "103", ""]
    assert cells["conv speedup vs R-CNN", "paper"] == ["170", "30", ""]
    assert cells["conv speedup vs R-CNN", "journal"] == ["270", "49", ""]
    assert len(cells) == 2 * 10 + 3


def test_the_arithmetic_stands_beside_the_speed_ups(tmp_path):
    limits = {
        "conv speedup vs R-CNN": {"spp_1scale": 145.04, "spp_5scale": 21.14},
        "speedup vs R-CNN": {"spp_1scale": 24.06},
    }
    write_table(tmp_path, 6, table6(), {"arithmetic": limits})
    rows = markdown_rows(tmp_path / "table6.md")
    assert [row for row in rows if row[1] == "arithmetic"] == [
        ["speedup vs R-CNN", "arithmetic", "24.1", "", ""],
        ["conv speedup vs R-CNN", "arithmetic", "145", "21.1", ""],
    ]
    assert (
        "arithmetic (R-CNN's floating-point operations over SPP-net's" in (tmp_path / "table6.md").read_text()
    )
    record = json.loads((tmp_path / "table6.json").read_text())
    assert record["arithmetic"] == limits
    assert record["journal"] == {
        "conv time (s)": {"rcnn": 14.37},
        "speedup vs R-CNN": {"spp_1scale": 102, "spp_5scale": 38},
        "conv speedup vs R-CNN": {"spp_1scale": 270, "spp_5scale": 49},
    }
    for wrong in ({"conv time (s)": {"spp_1scale": 1.0}}, {"speedup vs R-CNN": {"5-scale": 1.0}}):
        with pytest.raises(ValueError, match='"arithmetic" has rows or columns'):
            write_table(tmp_path, 6, table6(), {"arithmetic": wrong})


def test_journal_and_conv_speed_up_are_table_6s_alone(tmp_path):
    write_table(tmp_path, 3, empty_like_published(3), {})
    assert {row[1] for row in markdown_rows(tmp_path / "table3.md")[1:]} == {"ours", "paper"}
    assert "journal" not in (tmp_path / "table3.json").read_text()


def test_a_cell_that_the_paper_lacks(tmp_path):
    measured = empty_like_published(4)
    measured.loc["conv4", "spp_full224"] = 70.0
    write_table(tmp_path, 4, measured, {})
    rows = markdown_rows(tmp_path / "table4.md")
    assert ["conv4", "ours", "-", "-", "70.00"] in rows
    assert ["conv4", "paper", "80.12", "81.03", ""] in rows
    assert ["conv5", "ours", "-", "-", ""] in rows


def test_other_groups_keep_their_numbers_and_are_never_ours(tmp_path):
    measured = empty_like_published(1)
    measured.loc["e1"] = [30.0, 10.0]
    write_table(tmp_path, 1, measured, {})
    lines = (tmp_path / "table1.csv").read_text().splitlines()
    assert lines[1] == "a,Krizhevsky et al.,1,10,40.7,18.2,no"
    assert lines[9] == "e1,our impl of ZF (fast),1,10,30.00,10.00,yes"
    assert lines[10] == 'e2,"SPP-net4, single-size trained",1,10,,,yes'
    rows = markdown_rows(tmp_path / "table1.md")
    assert [row for row in rows if row[0].startswith("a")] == [
        ["a *", "Krizhevsky et al.", "1", "10", "paper", "40.7", "18.2"]
    ]
    assert [row[4:] for row in rows if row[0] == "e1"] == [
        ["ours", "30.00", "10.00"],
        ["paper", "35.99", "14.76"],
    ]
    assert json.loads((tmp_path / "table1.json").read_text())["values"]["a"]["top1_error"] is None


def measured_with_distinct_numbers(number):
    """Every cell that may be measured has a number of its own, far from the published one."""
    table = published(number)
    values = 1000 + np.arange(table.size).reshape(table.shape) / 4
    return pd.DataFrame(values, table.index, table.columns).mask(literature(number))


@pytest.mark.parametrize("number", ALL)
def test_every_number_is_in_the_cell_of_its_row_and_column(tmp_path, number):
    measured = measured_with_distinct_numbers(number)
    deviation = measured / 1000
    write_table(tmp_path, number, measured, {}, deviation=deviation, seeds=2)
    record = json.loads((tmp_path / f"table{number}.json").read_text())
    csv_table = pd.read_csv(tmp_path / f"table{number}.csv", index_col=list(LAYOUTS[number].keys))
    header, *lines = markdown_rows(tmp_path / f"table{number}.md")
    keys = len(LAYOUTS[number].keys)
    source = header.index("source")
    beside = {(*line[:keys], line[source]): dict(zip(header, line, strict=True)) for line in lines}
    for key, row in measured.iterrows():
        labels = tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
        starred = (labels[0] + " *" if literature(number).loc[key].all() else labels[0], *labels[1:])
        for column, value in row.items():
            nested = [record["values"], record["deviation"], record["published"]]
            for label in labels:
                nested = [each[label] for each in nested]
            scale = 100 if paper.unit(key) == "percent" else 1
            theirs = published(number).loc[key, column]
            if not math.isnan(theirs):
                assert scale * nested[2][column] == pytest.approx(theirs)
                assert float(beside[*starred, "paper"][column]) == theirs
            if math.isnan(value):
                assert nested[0][column] is None
                assert beside.get((*starred, "ours"), {}).get(column, "") == ""
                continue
            assert scale * nested[0][column] == pytest.approx(value, abs=1e-9)
            assert scale * nested[1][column] == pytest.approx(deviation.loc[key, column], abs=1e-9)
            assert csv_table.loc[key, column] == pytest.approx(
                value, rel=5e-3 if scale == 1 else 1e-9, abs=0.051
            )
            mean, _, spread = beside[*starred, "ours"][column].partition(" ± ")
            assert float(mean) == pytest.approx(value, rel=5e-3, abs=0.051)
            assert float(spread) == pytest.approx(deviation.loc[key, column], abs=0.51)


def test_mean_and_deviation_over_seeds():
    tables = [pd.DataFrame({"a": [1.0, math.nan], "b": [5.0, 7.0]}, index=["x", "y"]) + k for k in (0, 1, 5)]
    mean, deviation = mean_and_deviation(tables)
    assert mean.loc["x"].tolist() == [3, 7]
    assert deviation.loc["x"].tolist() == pytest.approx([7**0.5] * 2)  # (4 + 1 + 9) / 2
    assert math.isnan(mean.loc["y", "a"])
    assert mean.loc["y", "b"] == 9
    mean, deviation = mean_and_deviation(tables[:1])
    pd.testing.assert_frame_equal(mean, tables[0])
    assert deviation.isna().all(axis=None)


def test_the_spread_is_shown_beside_the_mean_and_in_json_alone(tmp_path):
    deviation = table6() / 100
    write_table(tmp_path, 6, table6(), {}, deviation=deviation, seeds=4)
    cells = {(row, source): numbers for row, source, *numbers in markdown_rows(tmp_path / "table6.md")[1:]}
    assert cells["pool5", "ours"] == ["41.2 ± 0.4", "-", "-"]
    assert cells["conv time (s)", "ours"] == ["0.01235 ± 0.00012", "12.00 ± 0.12", "1235 ± 12"]
    assert cells["pool5", "paper"] == ["43.0", "44.9", "44.2"]
    assert (
        "ours (measured here, mean ± sample standard deviation over 4 seeds"
        in (tmp_path / "table6.md").read_text()
    )
    assert r"pool5 & ours & 41.2 $\pm$ 0.4 & - & - \\" in (tmp_path / "table6.tex").read_text()
    assert "±" not in (tmp_path / "table6.tex").read_text()
    record = json.loads((tmp_path / "table6.json").read_text())
    assert record["deviation"]["pool5"] == {"spp_1scale": 0.0041249, "spp_5scale": None, "rcnn": None}
    assert record["deviation"]["conv time (s)"]["spp_5scale"] == 0.12
    alone = tmp_path / "alone"
    write_table(alone, 6, table6(), {})
    assert (tmp_path / "table6.csv").read_bytes() == (alone / "table6.csv").read_bytes()
    assert "deviation" not in (alone / "table6.json").read_text()
    assert "±" not in (alone / "table6.md").read_text()


def test_the_speed_up_of_the_convolutions_may_be_a_mean_of_its_own(tmp_path):
    measured, deviation = table6(), table6() * math.nan
    measured.loc["conv speedup vs R-CNN"] = [144.0, 21.0, math.nan]
    deviation.loc["conv speedup vs R-CNN"] = [3.0, 0.25, math.nan]
    write_table(tmp_path, 6, measured, {}, deviation=deviation, seeds=4)
    rows = markdown_rows(tmp_path / "table6.md")
    assert ["conv speedup vs R-CNN", "ours", "144 ± 3", "21.0 ± 0.2", ""] in rows
    record = json.loads((tmp_path / "table6.json").read_text())
    last = {
        key: record[key]["conv speedup vs R-CNN"] for key in ("values", "deviation", "published", "journal")
    }
    assert last == {
        "values": {"spp_1scale": 144, "spp_5scale": 21, "rcnn": None},
        "deviation": {"spp_1scale": 3, "spp_5scale": 0.25, "rcnn": None},
        "published": {"spp_1scale": 170, "spp_5scale": 30, "rcnn": None},
        "journal": {"spp_1scale": 270, "spp_5scale": 49},
    }
    write_table(tmp_path / "alone", 6, table6(), {})
    assert (tmp_path / "table6.csv").read_bytes() == (tmp_path / "alone" / "table6.csv").read_bytes()
    derived = json.loads((tmp_path / "alone" / "table6.json").read_text())["values"]["conv speedup vs R-CNN"]
    assert derived == {
        "spp_1scale": pytest.approx(1234.56 / 0.0123456),
        "spp_5scale": pytest.approx(1234.56 / 12),
        "rcnn": None,
    }


@pytest.mark.parametrize("number", ALL)
def test_the_published_numbers_lie_beside_ours(tmp_path, number):
    write_table(tmp_path, number, published(number).mask(literature(number)), {})
    theirs = (tmp_path / f"table{number}.published.csv").read_bytes()
    assert theirs == (PUBLISHED / f"table{number}.csv").read_bytes()
    keys = [*LAYOUTS[number].keys, *LAYOUTS[number].remarks]
    ours, theirs = (
        pd.read_csv(tmp_path / f"table{number}.{kind}", index_col=keys) for kind in ("csv", "published.csv")
    )
    assert ((ours - theirs).abs().fillna(0) < 0.051).all(axis=None)


def test_words_stay_and_the_marker_column_goes_from_what_people_read(tmp_path):
    write_table(tmp_path, 5, empty_like_published(5), {})
    markdown = (tmp_path / "table5.md").read_text()
    assert "VOC: the paper's own run, Table 3 (a)" in markdown
    assert "measured_here" not in markdown


@pytest.mark.parametrize(("number", "starred"), [(1, 4), (3, 0), (5, 4), (8, 4)])
def test_rows_of_other_groups_have_a_star_for_readers(tmp_path, number, starred):
    write_table(tmp_path, number, empty_like_published(number), {})
    others = json.loads((tmp_path / f"table{number}.json").read_text()).get("others", [])
    for kind, separator in (("md", " |"), ("tex", " &")):
        lines = (tmp_path / f"table{number}.{kind}").read_text().splitlines()
        found = [line for line in lines if f" *{separator}" in re.sub(r" +", " ", line)]
        assert len(found) == len(others) >= starred
        assert ("other groups" in "".join(lines)) == bool(found)
    assert "*" not in (tmp_path / f"table{number}.csv").read_text()


def test_latex_is_escaped_and_balanced(tmp_path):
    write_table(tmp_path, 5, empty_like_published(5), {"notes": [r"50% of A&B, $5, #1, a_b, {x}, ~, ^, \y"]})
    text = (tmp_path / "table5.tex").read_text()
    assert r"Zeiler \& Fergus & VOC: the paper's own run, Table 3 (a) & paper & 75.9 & 86.5 & 0.5 \\" in text
    assert r"VOC mAP (\%)" in text
    assert r"voc2007\_map" in text
    assert (
        r"50\% of A\&B, \$5, \#1, a\_b, \{x\}, \textasciitilde{}, \textasciicircum{}, \textbackslash{}y"
        in text
    )
    assert r"\begin{tabular}{lllrrr}" in text
    assert "%" not in text.replace(r"\%", "")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {5}
    assert len(body) == 10  # two rows have lines of ours and of the paper's


@pytest.mark.parametrize("number", ALL)
def test_latex_braces_balance(tmp_path, number):
    write_table(tmp_path, number, empty_like_published(number), {"notes": ["n"]})
    text = re.sub(r"\\[{}]", "", (tmp_path / f"table{number}.tex").read_text())
    assert text.count("{") == text.count("}")
    assert (r"\resizebox" in text) == (number >= 7)


def test_json_has_the_record_and_fractions(tmp_path):
    write_table(tmp_path, 6, table6(), {"seed": 0, "n_images": 10, "notes": ["a"]})
    content = json.loads((tmp_path / "table6.json").read_text())
    assert content["table"] == 6
    assert content["seed"] == 0
    assert content["notes"] == ["a"]
    assert content["values"]["pool5"] == {"spp_1scale": 0.41249, "spp_5scale": None, "rcnn": None}
    assert content["values"]["conv time (s)"]["spp_1scale"] == 0.0123456
    assert content["values"]["speedup vs R-CNN"]["spp_1scale"] == 63.96
    assert list(content["values"])[-2:] == ["speedup vs R-CNN", "conv speedup vs R-CNN"]
    assert len(content["values"]) == 10


def test_json_nests_rows_of_two_labels(tmp_path):
    measured = empty_like_published(7)
    measured.loc[(5, "fc6"), "mAP"] = 34.6
    write_table(tmp_path, 7, measured, {})
    assert json.loads((tmp_path / "table7.json").read_text())["values"]["5"]["fc6"]["mAP"] == 0.346


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    write_table(tmp_path / "results" / "mini", 2, empty_like_published(2), {})
    write_table(tmp_path / "results" / "mini", 2, empty_like_published(2), {})
    names = sorted(path.name for path in (tmp_path / "results" / "mini").iterdir())
    assert names == ["table2.csv", "table2.json", "table2.md", "table2.published.csv", "table2.tex"]


def test_every_csv_row_has_the_width_of_the_header(tmp_path):
    for number in ALL:
        write_table(tmp_path, number, published(number).mask(literature(number)), {})
        with (tmp_path / f"table{number}.csv").open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1


def test_other_rows_columns_or_infinity_are_refused(tmp_path):
    with pytest.raises(ValueError, match="wants the rows and columns"):
        write_table(tmp_path, 6, empty_like_published(6).iloc[1:], {})
    with pytest.raises(ValueError, match="wants the rows and columns"):
        write_table(tmp_path, 6, empty_like_published(3), {})
    with pytest.raises(ValueError, match="infinite"):
        write_table(tmp_path, 6, empty_like_published(6).fillna(math.inf), {})
    with pytest.raises(ValueError, match="table 5: a number of another group's was measured here"):
        write_table(tmp_path, 5, published(5), {})
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_json_cannot_hold_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_table(tmp_path, 6, table6(), {"seconds": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SppnetError, match=r"file/results: cannot be made .* choose another folder"):
        write_table(tmp_path / "file" / "results", 6, table6(), {})


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "table6.csv" / "in the way").mkdir(parents=True)
    with pytest.raises(SppnetError, match=r"table6\.csv: cannot be written"):
        write_table(tmp_path, 6, table6(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["table6.csv"]
