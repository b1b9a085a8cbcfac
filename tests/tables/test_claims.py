import csv
import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.evaluation.bootstrap import paired_interval
from sppnet_cli.evaluation.outcomes import (
    AccuracyOutcome,
    DetectionOutcome,
    ErrorOutcome,
    MapOutcome,
    SecondsOutcome,
    load_outcome,
)
from sppnet_cli.tables.claims import (
    certainty,
    count_verdicts,
    difference,
    evaluate_claims,
    verdict,
    write_claims,
    write_outcomes,
)
from sppnet_cli.tables.paper import claims, empty_like_published, literature, published
from sppnet_cli.tables.write import write_table

HEADER = (
    "id,table,claim,better,worse,ours_better,ours_worse,low,high,verdict,images,"
    "factor,ours_factor,journal_factor,limit"
)


def of(results):
    return evaluate_claims(results).set_index("id")


def write_cells(results, number, cells):
    """A table in which only these cells, of values in the published units, are measured."""
    table = empty_like_published(number)
    for (row, column), value in cells.items():
        table.loc[row, column] = value
    write_table(results, number, table, {})


def error_of(count, n=100, seed=0):
    """An outcome of which `count` of n images are wrong."""
    wrong = np.zeros(n, bool)
    wrong[np.random.default_rng(seed).permutation(n)[:count]] = True
    return ErrorOutcome(wrong)


def test_the_papers_own_tables_hold_all_of_the_papers_claims(tmp_path):
    for number in range(1, 10):
        write_table(tmp_path, number, published(number).mask(literature(number)), {})
    table = of(tmp_path)
    assert list(table.index) == list(claims().index)
    for side in ("better", "worse"):
        np.testing.assert_allclose(table[f"ours_{side}"], claims()[f"paper_{side}"], rtol=1e-12)
    # Of T9.3, the control of the combination, the paper prints no numbers.
    assert set(table.index[table["verdict"] != "holds"]) == {"T9.3"}
    assert count_verdicts(table) == {"holds": 34, "fails": 0, "not measured": 1}
    assert table[["low", "high"]].isna().all(axis=None)


def test_nothing_is_measured_in_an_empty_folder(tmp_path):
    table = evaluate_claims(tmp_path)
    assert ",".join(table.columns) == HEADER
    assert len(table) == 35
    assert set(table["verdict"]) == {"not measured"}
    assert table[["ours_better", "ours_worse", "low", "high"]].isna().all(axis=None)


def test_one_cell_alone_is_not_enough(tmp_path):
    write_cells(tmp_path, 6, {("pool5", "spp_5scale"): 41.5})
    claim = of(tmp_path).loc["T6.1"]
    assert claim["ours_better"] == 41.5
    assert math.isnan(claim["ours_worse"])
    assert claim["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("better", "worse", "expected"), [(30.0, 31.0, "holds"), (31.0, 30.0, "fails"), (30.0, 30.0, "fails")]
)
def test_lower_errors_are_better(tmp_path, better, worse, expected):
    write_cells(tmp_path, 1, {("e2", "top1_error"): better, ("e1", "top1_error"): worse})
    assert of(tmp_path).loc["T1.1", "verdict"] == expected


@pytest.mark.parametrize(
    ("better", "worse", "expected"), [(31.0, 30.0, "holds"), (30.0, 31.0, "fails"), (30.0, 30.0, "fails")]
)
def test_higher_map_and_accuracy_are_better(tmp_path, better, worse, expected):
    write_cells(tmp_path, 3, {("fc6", "spp_crop224"): better, ("fc6", "plain_crop224"): worse})
    write_cells(tmp_path, 4, {("SPP pool5", "spp_full224"): better, ("fc7", "spp_full224"): worse})
    table = of(tmp_path)
    assert table.loc["T3.1", "verdict"] == expected
    assert table.loc["T4.4", "verdict"] == expected


# Ratios are rounded to whole numbers, as the paper rounds: 29.5 is printed as 30.
@pytest.mark.parametrize(
    ("seconds", "expected"), [(15.0, "holds"), (14.75, "holds"), (14.74, "fails"), (16.0, "holds")]
)
def test_a_factor_must_be_reached(tmp_path, seconds, expected):
    write_cells(
        tmp_path, 6, {("conv time (s)", "spp_1scale"): 0.5, ("conv time (s)", "rcnn"): seconds}
    )  # at least 30 times
    claim = of(tmp_path).loc["T6.10"]
    assert claim["ours_better"] == 0.5
    assert claim["ours_worse"] == seconds
    assert claim["ours_factor"] == 2 * seconds
    assert claim["verdict"] == expected


def test_a_speed_up_is_the_tables_own(tmp_path):
    # The mean of two seeds' ratios, (1/.02 + 3/.04) / 2, is not the ratio of their mean times.
    cells = {("conv time (s)", "spp_1scale"): 0.03, ("conv time (s)", "rcnn"): 2.0}
    write_cells(tmp_path, 6, cells | {("conv speedup vs R-CNN", "spp_1scale"): 62.5})
    assert of(tmp_path).loc["T6.10", "ours_factor"] == 62.5


@pytest.mark.parametrize(
    ("claim_id", "row", "column", "factor", "journal"),
    [
        ("T6.10", "conv", "spp_1scale", 30, 270),
        ("T6.11", "conv", "spp_5scale", 30, 49),
        ("T6.12", "total", "spp_1scale", 64, 102),
        ("T6.13", "total", "spp_5scale", 24, 38),
    ],
)
def test_speed_claims_have_the_journals_factor_and_the_limit_beside_the_papers(
    tmp_path, claim_id, row, column, factor, journal
):
    limits = {
        "conv speedup vs R-CNN": {"spp_1scale": 145.0, "spp_5scale": 21.0},
        "speedup vs R-CNN": {"spp_1scale": 23.0, "spp_5scale": 14.0},
    }
    table = empty_like_published(6)
    table.loc[f"{row} time (s)", ["rcnn", column]] = [100.0, 4.0]
    write_table(tmp_path, 6, table, {"arithmetic": limits})
    claim = of(tmp_path).loc[claim_id]
    speedup = "speedup vs R-CNN" if row == "total" else "conv speedup vs R-CNN"
    expected = [factor, 25, journal, limits[speedup][column]]
    assert claim[["factor", "ours_factor", "journal_factor", "limit"]].tolist() == expected
    assert claim["verdict"] == ("holds" if factor == 24 else "fails")
    others = of(tmp_path).drop(index=["T6.10", "T6.11", "T6.12", "T6.13"])
    assert others[["factor", "ours_factor", "journal_factor", "limit"]].isna().all(axis=None)

    write_claims(tmp_path)
    text = (tmp_path / "claims.md").read_text()
    (line,) = (line for line in text.splitlines()[40:] if line.startswith(f"| {claim_id} "))
    cells = [cell.strip() for cell in line.strip("|").split("|")][2:]
    assert cells == [f"{number:.3g}x" for number in expected]


# The claim is 24 times; 23.5 would be printed so.
@pytest.mark.parametrize(
    ("rcnn", "limit", "words"),
    [
        (88.0, 23.46, "fails: arithmetic 23.5x"),
        (88.0, 23.5, "fails"),
        (96.0, 14.0, "holds"),
        (88.0, None, "fails"),
    ],
)
def test_a_factor_that_the_arithmetic_forbids_is_told(tmp_path, rcnn, limit, words):
    table = empty_like_published(6)
    table.loc["total time (s)", ["rcnn", "spp_5scale"]] = [rcnn, 4.0]
    limits = {} if limit is None else {"speedup vs R-CNN": {"spp_5scale": limit}}
    write_table(tmp_path, 6, table, {"arithmetic": limits})
    (row,) = (row for row in write_claims(tmp_path).to_dict("records") if row["id"] == "T6.13")
    assert verdict(row) == words
    assert f"| {words} " in (tmp_path / "claims.md").read_text()


def test_limits_are_optional(tmp_path):
    write_cells(tmp_path, 6, {("conv time (s)", "spp_1scale"): 0.5, ("conv time (s)", "rcnn"): 15.0})
    assert math.isnan(of(tmp_path).loc["T6.10", "limit"])
    assert of(tmp_path).loc["T6.10", "journal_factor"] == 270
    (tmp_path / "table6.json").write_text(
        json.dumps(json.loads((tmp_path / "table6.json").read_text()) | {"arithmetic": [1]})
    )
    with pytest.raises(DataError, match=r"table6\.json: not a table that sppnet wrote"):
        evaluate_claims(tmp_path)


def test_interval_in_percentage_points_in_the_claims_direction(tmp_path):
    better, worse = error_of(30), error_of(36)
    write_cells(tmp_path, 1, {("e2", "top1_error"): 30.0, ("e1", "top1_error"): 36.0})
    write_outcomes(tmp_path, 1, 0, {("e2", "top1_error"): better, ("e1", "top1_error"): worse})
    claim = of(tmp_path).loc["T1.1"]
    low, high = paired_interval([better], [worse], higher_is_better=False)
    assert claim["low"] == pytest.approx(100 * low, abs=1e-9)
    assert claim["high"] == pytest.approx(100 * high, abs=1e-9)
    assert low < 0.06 < high


def test_interval_over_several_seeds(tmp_path):
    better = [error_of(20, seed=k) for k in range(3)]
    worse = [error_of(60 + k, seed=k) for k in range(3)]
    write_cells(tmp_path, 1, {("e2", "top1_error"): 20.0, ("e1", "top1_error"): 61.0})
    for seed, pair in enumerate(zip(better, worse, strict=True)):
        cells = (("e2", "top1_error"), ("e1", "top1_error"))
        write_outcomes(tmp_path, 1, seed, dict(zip(cells, pair, strict=True)))
    claim = of(tmp_path).loc["T1.1"]
    low, high = paired_interval(better, worse, higher_is_better=False)
    assert [claim["low"], claim["high"]] == pytest.approx([100 * low, 100 * high], abs=1e-9)


def test_interval_of_map_accuracy_and_rows_of_two_labels(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((60, 3)) < 0.4, 1, -1).astype(np.int8)
    good, bad = (
        MapOutcome((labels + rng.normal(0, noise, labels.shape)).astype(np.float32), labels)
        for noise in (0.5, 3)
    )
    cells = (("fc6", "spp_crop224"), ("fc6", "plain_crop224"))
    write_cells(tmp_path, 3, {cells[0]: 100 * good.value(), cells[1]: 100 * bad.value()})
    write_outcomes(tmp_path, 3, 0, {cells[0]: good, cells[1]: bad})

    classes = np.repeat([0, 1], 10)
    right, wrong = (
        AccuracyOutcome(np.full((2, 20), mark, np.int8), classes) for mark in (1, 0)
    )  # every image
    cells = (("SPP pool5", "spp_full224"), ("fc7", "spp_full224"))
    write_cells(tmp_path, 4, {cells[0]: 100.0, cells[1]: 0.0})
    write_outcomes(tmp_path, 4, 0, {cells[0]: right, cells[1]: wrong})

    rows = [("SPP-net6, multi-size trained", view) for view in ("1 full", "1 crop")]
    write_cells(tmp_path, 2, {(rows[0], "top1_error"): 10.0, (rows[1], "top1_error"): 90.0})
    write_outcomes(
        tmp_path, 2, 0, {(rows[0], "top1_error"): error_of(10), (rows[1], "top1_error"): error_of(90)}
    )

    table = of(tmp_path)
    assert 0 < table.loc["T3.1", "low"] < 100 * (good.value() - bad.value()) < table.loc["T3.1", "high"]
    assert table.loc["T4.4", ["low", "high"]].tolist() == [100, 100]
    assert 60 < table.loc["T2.2", "low"] < 80 < table.loc["T2.2", "high"] < 95
    assert (table.loc[["T3.1", "T4.4", "T2.2"], "verdict"] == "holds").all()


def no_interval(results, capsys):
    claim = of(results).loc["T1.1"]
    assert claim[["low", "high"]].isna().all()
    assert claim["verdict"] == "holds"  # the table's numbers stand
    return capsys.readouterr().err


def test_outcomes_of_another_measurement_are_passed_over(tmp_path, capsys):
    cells = (("e2", "top1_error"), ("e1", "top1_error"))
    write_outcomes(tmp_path, 1, 0, {cells[0]: error_of(30), cells[1]: error_of(36)})
    write_cells(tmp_path, 1, {cells[0]: 30.0, cells[1]: 37.0})
    message = no_interval(tmp_path, capsys)
    assert message.startswith(
        f"warning: {tmp_path}/outcomes/table1: no interval between e2.top1_error and e1"
    )
    assert "e1.top1_error is 0.360000 by its outcomes and 0.370000 in the table" in message
    assert message.endswith("remove the folder and measure table 1 again\n")


def test_outcomes_left_of_more_seeds_are_passed_over(tmp_path, capsys):
    cells = (("e2", "top1_error"), ("e1", "top1_error"))
    for seed, count in ((0, 30), (1, 20)):
        write_outcomes(tmp_path, 1, seed, {cells[0]: error_of(count), cells[1]: error_of(count + 6)})
    write_cells(tmp_path, 1, {cells[0]: 30.0, cells[1]: 36.0})
    assert "e2.top1_error is 0.250000" in no_interval(tmp_path, capsys)


def test_outcomes_of_different_seeds_or_images_are_passed_over(tmp_path, capsys):
    cells = (("e2", "top1_error"), ("e1", "top1_error"))
    write_cells(tmp_path, 1, {cells[0]: 30.0, cells[1]: 36.0})
    write_outcomes(tmp_path, 1, 0, {cells[0]: error_of(30)})
    write_outcomes(tmp_path, 1, 1, {cells[1]: error_of(36)})
    assert "different seeds" in no_interval(tmp_path, capsys)
    write_outcomes(tmp_path, 1, 1, {})
    write_outcomes(tmp_path, 1, 0, {cells[0]: error_of(30), cells[1]: error_of(72, 200)})
    assert "outcomes of [100, 200] images" in no_interval(tmp_path, capsys)


def test_outcomes_with_no_value_are_not_those_of_the_table(tmp_path, capsys):
    nothing = MapOutcome(np.zeros((3, 1), np.float32), np.full((3, 1), -1, np.int8))
    cells = (("fc6", "spp_crop224"), ("fc6", "plain_crop224"))
    write_cells(tmp_path, 3, {cells[0]: 60.0, cells[1]: 50.0})
    write_outcomes(tmp_path, 3, 0, {cells[0]: nothing, cells[1]: nothing})
    assert math.isnan(of(tmp_path).loc["T3.1", "low"])
    assert "is nan by its outcomes" in capsys.readouterr().err


def test_written_outcomes_replace_those_of_that_table_and_seed(tmp_path):
    for number, seed in ((1, 0), (1, 1), (2, 0)):
        row = "e1" if number == 1 else ("SPP-net6, multi-size trained", "1 full")
        write_outcomes(tmp_path, number, seed, {(row, "top1_error"): error_of(30)})
    write_outcomes(tmp_path, 1, 0, {("e2", "top1_error"): error_of(20)})
    files = sorted(
        str(path.relative_to(tmp_path / "outcomes")) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert files == [
        "table1/seed0/e2.top1_error.npz",
        "table1/seed1/e1.top1_error.npz",
        "table2/seed0/spp-net6-multi-size-trained.1-full.top1_error.npz",
    ]
    back = load_outcome(tmp_path / "outcomes" / files[0])
    assert back.value() == pytest.approx(0.2)


def test_outcomes_of_no_cell_are_refused(tmp_path):
    with pytest.raises(ValueError, match="table 1 has no cell e9, top1_error"):
        write_outcomes(tmp_path, 1, 0, {("e9", "top1_error"): error_of(30)})
    with pytest.raises(ValueError, match="table 1 has no cell e1, mAP"):
        write_outcomes(tmp_path, 1, 0, {("e1", "mAP"): error_of(30)})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "outcomes").write_text("")
    with pytest.raises(SppnetError, match="table1/seed0: cannot be made"):
        write_outcomes(tmp_path, 1, 0, {("e1", "top1_error"): error_of(30)})


def test_certainty():
    assert certainty(0.1, 2.0, 5) == "clear"
    assert certainty(-2.0, -0.1, 5) == "clear"
    assert certainty(-0.1, 2.0, 5) == "within noise"
    assert certainty(0.0, 2.0, 5) == "within noise"
    assert certainty(math.nan, math.nan, 0) == ""
    assert certainty(math.nan, math.nan, 4) == "too few images"


def test_a_difference_has_the_unit_of_its_claim():
    assert difference("T1.1", -1.234, 2.0) == "-1.23 to +2.00 points"
    assert difference("T6.10", 0.01234, 12.345) == "+0.0123 to +12.3 s"
    assert difference("T8.1", -1.0, 3.0) == "-1 to +3 categories"
    assert difference("T1.1", math.nan, math.nan) == ""


def test_files_of_claims(tmp_path):
    cells = {("e1", "top1_error"): 60.0, ("e2", "top1_error"): 20.0, ("e3", "top1_error"): 59.0}
    write_cells(tmp_path, 1, cells)
    write_outcomes(tmp_path, 1, 0, {cell: error_of(int(value)) for cell, value in cells.items()})
    write_cells(tmp_path, 6, {("conv time (s)", "spp_1scale"): 0.5, ("conv time (s)", "rcnn"): 10.0})
    table = write_claims(tmp_path)

    with (tmp_path / "claims.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == HEADER
    assert [row[0] for row in rows[1:]] == list(claims().index)
    assert rows[1][5:7] == ["20.0", "60.0"]
    assert rows[1][9] == "holds"
    assert rows[1][10] == "100"
    assert rows[4][5:] == ["", "", "", "", "not measured", "0", "", "", "", ""]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "claims.csv"), table)

    lines = (tmp_path / "claims.md").read_text().splitlines()
    assert lines[0].startswith("**The paper's claims: 2 hold, 1 fail, 32 not measured.**")
    assert len({len(line) for line in lines[2:39]}) == 1
    cells = {
        row[0]: row[1:] for row in ([c.strip() for c in line.strip("|").split("|")] for line in lines[2:39])
    }
    assert lines[40].startswith("**Speed-ups over R-CNN.**")
    assert len(lines) == 45  # one speed-up was measured
    assert len(cells) == 37
    assert cells["T1.1"][3:5] == ["20 / 60", "35.06 / 35.99"]
    assert cells["T1.1"][6] == "holds, clear"
    assert cells["T1.1"][5] == f"{table.loc[0, 'low']:+.2f} to {table.loc[0, 'high']:+.2f} points"
    assert cells["T1.2"][6] == "holds, within noise"
    assert cells["T6.10"][3:] == ["0.5 / 10", "0.053 / 8.96", "", "fails"]
    assert cells["T1.3"][3:] == ["- / 59", "34.6 / 34.98", "", "not measured"]
    assert cells["T9.3"][3:] == ["", "", "", "not measured"]


def test_a_folder_or_table_that_is_no_good_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no tables there"):
        evaluate_claims(tmp_path / "nowhere")
    for text in ("", "[]", "{}", json.dumps({"values": {}}), json.dumps({"values": {"e1": 3}})):
        (tmp_path / "table1.json").write_text(text)
        with pytest.raises(
            DataError, match=r"table1\.json: .*not a table that sppnet wrote; measure it again"
        ):
            evaluate_claims(tmp_path)


def test_hidden_outcomes_are_no_outcomes(tmp_path):
    cells = (("e2", "top1_error"), ("e1", "top1_error"))
    write_cells(tmp_path, 1, {cells[0]: 30.0, cells[1]: 36.0})
    write_outcomes(tmp_path, 1, 0, {cells[0]: error_of(30), cells[1]: error_of(36)})
    expected = evaluate_claims(tmp_path)
    (tmp_path / "outcomes/table1/seed0/._e1.top1_error.npz").write_bytes(b"of a Mac")
    hidden = tmp_path / "outcomes/table1/.seed1"
    hidden.mkdir()
    (hidden / "e1.top1_error.npz").write_bytes(b"of a Mac")
    pd.testing.assert_frame_equal(evaluate_claims(tmp_path), expected)


def test_a_damaged_outcome_is_named(tmp_path):
    cells = (("e2", "top1_error"), ("e1", "top1_error"))
    write_cells(tmp_path, 1, {cells[0]: 30.0, cells[1]: 36.0})
    write_outcomes(tmp_path, 1, 0, {cells[0]: error_of(30), cells[1]: error_of(36)})
    (tmp_path / "outcomes/table1/seed0/e1.top1_error.npz").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"e1\.top1_error\.npz: holds no arrays .*; measure its table again"):
        evaluate_claims(tmp_path)


CLASSES = ("disk", "star")


def detections_of(*right, positives=(5, 5)):
    """An outcome of two classes over five images: class k's detections in images 0, 1, .. are right or not."""
    rows = [(image, label, good) for label, of in enumerate(right) for image, good in enumerate(of)]
    image, label, good = (np.array(column) for column in zip(*rows, strict=True))
    objects = np.zeros((5, 2), np.int32)
    for k, count in enumerate(positives):
        objects[:count, k] = 1
    return DetectionOutcome(image.astype(np.int32), label.astype(np.int16), good.astype(np.int8), objects)


def write_per_class(results, number, rows, control=None):
    """A table of those outcomes, and the outcomes."""
    table = empty_like_published(number, CLASSES)
    weights = np.ones((1, 5), np.int64)
    for row, outcome in rows.items():
        table.loc[row] = 100 * np.array([outcome.value(), *outcome.resampled_aps(weights)[:, 0]])
    record = {"control": {row: {"mAP": outcome.value()} for row, outcome in (control or {}).items()}}
    write_table(results, number, table, record if control else {})
    write_outcomes(results, number, 0, {(row, "mAP"): o for row, o in {**rows, **(control or {})}.items()})


def test_categories_won_and_lost(tmp_path):
    good, half, bad = (
        detections_of([1, 1], [1, 1]),
        detections_of([1, 1], [0, 1]),
        detections_of([0, 0], [1, 1]),
    )
    write_per_class(tmp_path, 8, {"SPP ftfc7 bb": good, "RCNN ftfc7 bb": half})
    row = of(tmp_path).loc["T8.1"]
    assert list(row[["ours_better", "ours_worse", "verdict"]]) == [1, 0, "holds"]  # one of two, and a tie
    assert row["low"] <= 1 <= row["high"] <= 1
    write_per_class(tmp_path, 8, {"SPP ftfc7 bb": bad, "RCNN ftfc7 bb": good})
    assert list(of(tmp_path).loc["T8.1"][["ours_better", "ours_worse", "verdict"]]) == [0, 1, "fails"]


def test_a_combination_against_the_better_of_two(tmp_path):
    first, second = detections_of([1, 1], [0, 1]), detections_of([0, 1], [1, 1])
    both = detections_of([1, 1], [1, 1])
    rows = {"SPP-net (1)": first, "SPP-net (2)": second, "combination": both}
    control = {"control (1)": both, "control (2)": first, "control combination": second}
    write_per_class(tmp_path, 9, rows, control)
    found = of(tmp_path)
    assert found.loc["T9.1", "ours_better"] == pytest.approx(100 * both.value())
    assert found.loc["T9.1", "ours_worse"] == pytest.approx(100 * first.value())
    assert found.loc["T9.1", "verdict"] == "holds"
    assert 0 <= found.loc["T9.1", "low"] <= found.loc["T9.1", "high"]
    # In each class the better of the two is as good as the combination: it wins none.
    assert list(found.loc["T9.2"][["ours_better", "ours_worse", "verdict"]]) == [0, 0, "fails"]
    assert found.loc["T9.3", "verdict"] == "holds"
    assert found.loc["T9.3", "ours_better"] == pytest.approx(100 * both.value())


def test_no_gain_is_held_by_a_tie(tmp_path):
    same = detections_of([1, 1], [0, 1])
    names = ["control (1)", "control (2)", "control combination"]
    write_per_class(tmp_path, 9, {"SPP-net (1)": same}, dict.fromkeys(names, same))
    row = of(tmp_path).loc["T9.3"]
    assert row["verdict"] == "holds"
    assert row["low"] == row["high"] == 0


def write_times(results, seconds):
    """Table 6's conv times of images, and their outcomes."""
    cells = {("conv time (s)", name): np.array(of_method) for name, of_method in seconds.items()}
    write_cells(results, 6, {cell: own.mean() for cell, own in cells.items()})
    write_outcomes(results, 6, 0, {cell: SecondsOutcome(own) for cell, own in cells.items()})


def verdict_of(results, claim_id):
    """Interval and verdict that `claims.md` prints."""
    lines = (results / "claims.md").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"| {claim_id} "))
    return [cell.strip() for cell in line.strip("|").split("|")][-2:]


def test_a_factor_has_an_interval_of_the_seconds_beyond_it(tmp_path):
    write_times(tmp_path, {"spp_1scale": [0.1] * 3 + [0.2] * 3, "rcnn": [4.0] * 3 + [8.0] * 3})
    row = of(tmp_path).loc["T6.10"]
    assert row["verdict"] == "holds"
    assert 1.05 <= row["low"] < 1.575 < row["high"] <= 2.1  # between 4 - 29.5 x .1 and 8 - 29.5 x .2
    write_claims(tmp_path)
    interval, verdict = verdict_of(tmp_path, "T6.10")
    assert re.fullmatch(r"\+1\.\d* to \+[12]\.?\d* s", interval)
    assert verdict == "holds, clear"


def test_the_interval_of_a_factor_starts_where_the_factor_is_reached(tmp_path):
    # Every image takes .1 and 4 s: 4 - 29.5 x .1 are saved beyond the smallest ratio that rounds to 30.
    write_times(tmp_path, {"spp_1scale": [0.1] * 5, "rcnn": [4.0] * 5})
    assert of(tmp_path).loc["T6.10", ["low", "high"]].tolist() == pytest.approx([1.05, 1.05])


@pytest.mark.parametrize("images", [1, 4])
def test_a_few_images_make_nothing_sure(tmp_path, images):
    write_times(tmp_path, {"spp_1scale": [0.1] * images, "rcnn": [4.0] * images})
    row = of(tmp_path).loc["T6.10"]
    assert (row["verdict"], row["images"]) == ("holds", images)
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    write_claims(tmp_path)
    assert verdict_of(tmp_path, "T6.10") == ["", "holds, too few images"]
