"""The experiments of Tables 6 to 9 on the tiny profile, one after another as `make` runs them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import models

from experiments import claims, table6, table7, table8, table9
from experiments.runner import run_table
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import literature, printed, published

TABLES = {6: table6, 7: table7, 8: table8, 9: table9}
NAMES = tuple(sorted(kind.name for kind in CLASSES))


@pytest.fixture(scope="module")
def results(make_tables):
    """The four tables of eight images."""
    return make_tables(TABLES.values(), "--limit", "8")


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
    assert (results / "table6.md").is_file()
    assert (results / "table6.tex").is_file()


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


def test_a_dry_run_promises_the_folders_that_are_made(inside, planned, made):
    assert planned(TABLES.values(), [Workspace(PROFILES["tiny"], limit=8)]) == made(inside)


def test_tables_agree(results, read):
    six, seven, eight, nine = (read(results, number) for number in TABLES)
    for layer in ("pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb"):
        assert seven.loc[(1, layer), "mAP"] == six.loc[layer, "spp_1scale"]
        assert seven.loc[(5, layer), "mAP"] == six.loc[layer, "spp_5scale"]
    assert eight.loc["RCNN ftfc7 bb", "mAP"] == six.loc["ftfc7 bb", "rcnn"]
    pd.testing.assert_series_equal(eight.loc["SPP ftfc7 bb"], seven.loc[(5, "ftfc7 bb")], check_names=False)
    pd.testing.assert_series_equal(nine.loc["SPP-net (1)"], seven.loc[(5, "ftfc7 bb")], check_names=False)
    assert not nine.loc["SPP-net (1)"].equals(nine.loc["SPP-net (2)"])


def test_the_claims_of_detection_have_values_intervals_and_verdicts(inside, run):
    assert run(claims) == 0
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
    assert run(table7, *arguments) == 0
    folder = inside.parents[1] / "released" / "tiny"
    assert read(folder, 7)["mAP"].notna().all()
    assert json.loads((folder / "table7.json").read_text())["protocol"] == "released"


@pytest.mark.parametrize("experiment", TABLES.values())
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
    )
    measured = run_table(6, [ws], table6.table6, tmp_path / "results").table
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
