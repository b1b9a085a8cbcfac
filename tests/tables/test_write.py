import csv
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from sppnet_cli.errors import SppnetError
from sppnet_cli.tables import paper
from sppnet_cli.tables.paper import LAYOUTS, empty_like_published, literature, printed, published
from sppnet_cli.tables.write import write_table

ALL = range(1, 10)
PUBLISHED = Path(paper.__file__).with_name("published")


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
    beside = (tmp_path / "table8.md").read_text().splitlines()
    assert [cell.strip() for cell in beside[4].split("|")] == ["", "DPM *", "- (33.7)", "", "", ""]
    assert beside[0].endswith("Rows with * are other groups', as published.")
    assert [cell.strip() for cell in beside[9].split("|")] == [
        "",
        "SPP ftfc7",
        "41.3 (55.2)",
        "50.0",
        "32.5",
        "",
    ]
    assert json.loads((tmp_path / "table8.json").read_text())["published"] == [
        "DPM",
        "SS",
        "Regionlet",
        "DetNet",
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


def test_markdown_puts_ours_beside_theirs(tmp_path):
    write_table(tmp_path, 6, table6(), {"notes": ["10 images.", "2,000 windows."]})
    lines = (tmp_path / "table6.md").read_text().splitlines()
    assert lines[0].startswith("**Table 6.** ")
    assert "ours (published)" in lines[0]
    cells = {
        row[0]: row[1:] for row in ([c.strip() for c in line.strip("|").split("|")] for line in lines[2:13])
    }
    assert cells["row"] == ["spp_1scale", "spp_5scale", "rcnn"]
    assert cells["pool5"] == ["41.2 (43.0)", "- (44.9)", "- (44.2)"]
    assert cells["conv time (s)"] == ["0.01235 (0.053)", "12.00 (0.293)", "1235 (8.96)"]
    assert cells["speedup vs R-CNN"] == ["64.0 (64)", "1234 (24)", ""]
    assert re.fullmatch(r"\| -+ \| -+: \| -+: \| -+: \|", lines[3])
    assert len({len(line) for line in lines[2:13]}) == 1
    assert lines[13:] == ["", "- 10 images.", "- 2,000 windows."]


def test_a_cell_that_the_paper_lacks(tmp_path):
    measured = empty_like_published(4)
    measured.loc["conv4", "spp_full224"] = 70.0
    write_table(tmp_path, 4, measured, {})
    assert "70.00 (-)" in (tmp_path / "table4.md").read_text()


def test_other_groups_keep_their_numbers_and_are_never_ours(tmp_path):
    measured = empty_like_published(1)
    measured.loc["e1"] = [30.0, 10.0]
    write_table(tmp_path, 1, measured, {})
    lines = (tmp_path / "table1.csv").read_text().splitlines()
    assert lines[1] == "a,Krizhevsky et al.,1,10,40.7,18.2,no"
    assert lines[9] == "e1,our impl of ZF (fast),1,10,30.00,10.00,yes"
    assert lines[10] == 'e2,"SPP-net4, single-size trained",1,10,,,yes'
    markdown = (tmp_path / "table1.md").read_text()
    assert "- (40.7)" in markdown
    assert "30.00 (35.99)" in markdown
    assert json.loads((tmp_path / "table1.json").read_text())["values"]["a"]["top1_error"] is None


def test_words_stay_and_the_marker_column_goes_from_what_people_read(tmp_path):
    write_table(tmp_path, 5, empty_like_published(5), {})
    markdown = (tmp_path / "table5.md").read_text()
    assert "VOC: the paper's own run, Table 3 (a)" in markdown
    assert "measured_here" not in markdown


@pytest.mark.parametrize(("number", "starred"), [(1, 4), (3, 0), (5, 4), (8, 4)])
def test_rows_of_other_groups_have_a_star_for_readers(tmp_path, number, starred):
    write_table(tmp_path, number, empty_like_published(number), {})
    published_rows = json.loads((tmp_path / f"table{number}.json").read_text())["published"]
    for kind, separator in (("md", " |"), ("tex", " &")):
        lines = (tmp_path / f"table{number}.{kind}").read_text().splitlines()
        found = [line for line in lines if f" *{separator}" in re.sub(r" +", " ", line)]
        assert len(found) == len(published_rows) >= starred
        assert ("as published" in "".join(lines)) == bool(found)
    assert "*" not in (tmp_path / f"table{number}.csv").read_text()


def test_latex_is_escaped_and_balanced(tmp_path):
    write_table(tmp_path, 5, empty_like_published(5), {"notes": [r"50% of A&B, $5, #1, a_b, {x}, ~, ^, \y"]})
    text = (tmp_path / "table5.tex").read_text()
    assert r"Zeiler \& Fergus & - (75.9)" in text
    assert r"VOC mAP (\%)" in text
    assert r"voc2007\_map" in text
    assert (
        r"50\% of A\&B, \$5, \#1, a\_b, \{x\}, \textasciitilde{}, \textasciicircum{}, \textbackslash{}y"
        in text
    )
    assert r"\begin{tabular}{lrrrl}" in text
    assert "%" not in text.replace(r"\%", "")
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {4}
    assert len(body) == 8


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
    assert len(content["values"]) == 9


def test_json_nests_rows_of_two_labels(tmp_path):
    measured = empty_like_published(7)
    measured.loc[(5, "fc6"), "mAP"] = 34.6
    write_table(tmp_path, 7, measured, {})
    assert json.loads((tmp_path / "table7.json").read_text())["values"]["5"]["fc6"]["mAP"] == 0.346


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    write_table(tmp_path / "results" / "mini", 2, empty_like_published(2), {})
    write_table(tmp_path / "results" / "mini", 2, empty_like_published(2), {})
    names = sorted(path.name for path in (tmp_path / "results" / "mini").iterdir())
    assert names == ["table2.csv", "table2.json", "table2.md", "table2.tex"]


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
