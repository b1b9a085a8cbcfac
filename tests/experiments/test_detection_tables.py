"""The experiments of Tables 6 to 9 on the tiny profile, one after another as `make` runs them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import models

from experiments.detection import note_on_proposals, note_rcnn
from experiments.runner import Measured
from experiments.table6 import EXPERIMENT as TABLE6
from experiments.table6 import note_arithmetic
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.report.page import write_results_page
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import literature, printed, published

TABLES = [f"table{number}" for number in range(6, 10)]
NAMES = tuple(sorted(kind.name for kind in CLASSES))


@pytest.fixture(scope="module")
def results(make_tables):
    """The four tables of eight images."""
    return make_tables(TABLES, "--limit", "8")


def test_every_cell_of_table_6_is_measured_under_the_papers_labels(results, read):
    text = pd.read_csv(results / "table6.csv", dtype=str, keep_default_na=False)
    assert list(text.columns) == list(printed(6).columns)
    assert list(text["row"]) == list(printed(6)["row"])
    measured = read(results, 6).astype(float)
    assert (measured.notna() == published(6).notna()).all(axis=None)
    times = measured.loc[["conv time (s)", "fc time (s)"]].sum()
    assert times.to_list() == pytest.approx(measured.loc["total time (s)"].to_list(), rel=2e-3)
    record = json.loads((results / "table6.json").read_text())
    assert record["images"] == {"trainval": 8, "test": 8}
    assert record["windows_per_image"] == {"trainval": 60, "test": 60}
    assert record["timing"]["windows"] == 100
    assert set(record["AP"]) == {"spp_1scale", "spp_5scale", "rcnn"}
    assert {"seeds", "device", "threads", "environment", "seconds"} <= set(record)
    assert (results / "table6.tex").is_file()
    speedup = record["values"]["conv speedup vs R-CNN"]
    seconds = record["values"]["conv time (s)"]
    assert speedup["spp_5scale"] == pytest.approx(seconds["rcnn"] / seconds["spp_5scale"])
    assert "control" not in record
    note = note_arithmetic(record["arithmetic"])
    assert f"- {note}" in (results / "table6.md").read_text()


def test_the_arithmetic_stands_beside_what_paper_and_journal_print():
    ratios = {
        "conv speedup vs R-CNN": {"spp_1scale": 145.04, "spp_5scale": 21.14},
        "speedup vs R-CNN": {"spp_1scale": 24.06, "spp_5scale": 14.0},
    }
    assert note_arithmetic(ratios).startswith(
        "R-CNN's floating-point operations over SPP-net's: "
        "145x in the convolutions at one scale (paper 170x, journal 270x), "
        "24.1x in all at one scale (paper 64x, journal 102x), "
        "21.1x in the convolutions at five scales (paper 30x, journal 49x), "
        "14x in all at five scales (paper 24x, journal 38x). "
    )


def test_the_page_shows_every_detector(inside, tmp_path):
    text = write_results_page(inside, tmp_path / "page.html").read_text(encoding="utf-8")
    for side in ("SPP-net, 1 scale", "SPP-net, 5 scales", "R-CNN"):
        for row in ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb"):
            assert f"<summary>{side}, {row} <small>mAP " in text
    for number in (6, 7, 8, 9):
        assert f'<h3 id="table{number}">' in text
    assert 'id="figure2"' in text


@pytest.mark.parametrize("number", [7, 8, 9])
def test_every_row_has_its_mean_and_the_classes_that_have_objects(results, read, number):
    table = read(results, number)
    assert list(table.columns) == ["mAP", *NAMES]
    others = literature(number, NAMES)
    assert list(table.index) == list(published(number).index)
    assert table["mAP"].notna().all()
    ours = table[~others["mAP"]]
    assert ours[list(NAMES)].notna().any(axis=None)
    assert (ours[list(NAMES)].mean(axis=1) - ours["mAP"]).abs().max() < 0.06  # printed with one decimal
    if number == 8:
        theirs = table[others["mAP"]]
        assert list(theirs["mAP"]) == [33.7, 33.8, 41.7, 30.5]
        assert theirs[list(NAMES)].isna().all(axis=None)


def test_a_dry_run_promises_the_folders_that_are_made(inside, run, made, tmp_path, capsys):
    arguments = ("--limit", "8", "--workers", "1", "--dry-run", "--json", "--runs", tmp_path / "runs")
    assert run(TABLES, *arguments) == 0
    promised = json.loads(capsys.readouterr().out)
    assert {step["out"].removeprefix(f"{tmp_path}/") for step in promised["steps"]} == made(inside)


def test_tables_agree(results, read):
    six, seven, eight, nine = (read(results, number) for number in range(6, 10))
    for layer in ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb"):
        assert seven.loc[(1, layer), "mAP"] == six.loc[layer, "spp_1scale"]
        assert seven.loc[(5, layer), "mAP"] == six.loc[layer, "spp_5scale"]
    assert eight.loc["RCNN ftfc7 bb", "mAP"] == six.loc["ftfc7 bb", "rcnn"]
    pd.testing.assert_series_equal(eight.loc["SPP ftfc7 bb"], seven.loc[(5, "ftfc7 bb")], check_names=False)
    pd.testing.assert_series_equal(nine.loc["SPP-net (1)"], seven.loc[(5, "ftfc7 bb")], check_names=False)
    assert not nine.loc["SPP-net (1)"].equals(nine.loc["SPP-net (2)"])


def test_the_claims_of_detection_have_values_intervals_and_verdicts(inside, run):
    assert run("claims") == 0
    found = pd.read_csv(inside / "claims.csv", index_col="id")
    ours = found[found["table"] >= 6]
    assert len(ours) == 17
    assert ours[["ours_better", "ours_worse"]].notna().all(axis=None)
    assert set(ours["verdict"]) <= {"holds", "fails"}
    timed = ours.index.isin([f"T6.{k}" for k in (10, 11, 12, 13)])
    assert (ours["images"] == np.where(timed, 1, 8)).all()
    assert ours.loc[timed, ["low", "high"]].isna().all(axis=None)
    assert (ours["low"] <= ours["high"])[~timed].all()
    control = json.loads((inside / "table9.json").read_text())["control"]
    best = max(control[row]["mAP"] for row in ("control (1)", "control (2)"))
    assert ours.loc["T9.3", "ours_better"] == pytest.approx(100 * best)


def test_the_released_protocol_runs_too(inside, run, read):
    arguments = ("--protocol", "released", "--limit", "8", "--workers", "1", "--results", "released", "-q")
    assert run("table7", *arguments) == 0
    folder = inside.parents[1] / "released" / "tiny"
    assert read(folder, 7)["mAP"].notna().all()
    assert json.loads((folder / "table7.json").read_text())["protocol"] == "released"
    text = (folder / "table7.md").read_text()
    assert "- Protocol released; of windows with equal scores NMS keeps the last.\n" in text


@pytest.mark.parametrize("number", range(6, 10))
def test_what_decides_the_numbers_is_said_once(results, number):
    text = (results / f"table{number}.md").read_text()
    for note in (
        "- Windows: ss-fast, at most 60 of a training and 60 of a test image.\n",
        "- Protocol paper; of windows with equal scores NMS keeps the first.\n",
        "- AP: the mean of 11 precisions, at the devkit's recalls: MATLAB's 0:0.1:1, whose fourth is just above .3.\n",
    ):
        assert text.count(note) == 1


def test_the_paper_profile_takes_all_windows_and_rcnns_own_schedule():
    ws = Workspace(PROFILES["paper"], data=Path("VOCdevkit"), proposals_method="ss-paper+edgeboxes")
    assert note_on_proposals(ws) == "Windows: ss-paper+edgeboxes, all of each image."
    assert note_on_proposals(replace(ws, proposals_method=None)) == "Windows: ss-paper, all of each image."
    measured = Measured()
    note_rcnn(measured, ws)
    assert measured.notes == ["R-CNN fine-tunes all layers, on warped windows, by its own schedule."]


@pytest.mark.parametrize("experiment", TABLES)
def test_a_dry_run_does_nothing(run, monkeypatch, tmp_path, experiment):
    monkeypatch.chdir(tmp_path)
    assert run(experiment, "--dry-run", "-q") == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts] == []


def test_a_trunk_without_fc_layers_leaves_its_rows_empty(tmp_path, tiny_data):
    """As on real VOC: a torchvision trunk with weights from a file, new fc layers, R-CNN timed only."""
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    numbers = replace(
        PROFILES["pretrained"],
        fc=16,
        finetune=((1e-3, 2),),
        flip=False,
        timing_images=1,
        timing_windows=30,
        train_windows=30,
        test_windows=30,
    )
    ws = Workspace(
        numbers,
        root=tmp_path / "runs",
        data=tiny_data / "VOCdevkit",
        weights=str(tmp_path / "squeezenet.pth"),
        limit=3,
        jobs=1,
    )
    measured = TABLE6.run([ws], tmp_path / "results").table
    assert measured.loc["fc6"].isna().all()
    assert (
        measured.loc[["pool5", "ftfc6", "ftfc7", "ftfc7 bb"], ["spp_1scale", "spp_5scale"]]
        .notna()
        .all(axis=None)
    )
    assert measured.loc[["pool5", "ftfc7 bb"], "rcnn"].isna().all()
    assert measured.loc["conv time (s)"].notna().all()
    notes = " ".join(json.loads((tmp_path / "results" / "table6.json").read_text())["notes"])
    assert "squeezenet1_1 has no fc6 and fc7" in notes
    assert "R-CNN's mAP was not measured" in notes
