"""The experiment itself on the tiny profile: every cell, the paper's labels, and the same numbers twice."""

import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torchvision import models

from experiments import table6
from sppnet_cli import cli
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import printed, published


def reproduce(monkeypatch, *arguments):
    monkeypatch.setattr(
        sys, "argv", ["table6", "--profile", "tiny", "--limit", "8", "--workers", "1", "-q", *arguments]
    )
    with pytest.raises(SystemExit) as stop:
        cli.run(table6.command)
    assert stop.value.code == 0


def test_every_cell_is_measured_under_the_papers_labels(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    reproduce(monkeypatch)
    folder = tmp_path / "results" / "tiny"
    text = pd.read_csv(folder / "table6.csv", dtype=str, keep_default_na=False)
    assert list(text.columns) == list(printed(6).columns)
    assert list(text["row"]) == list(printed(6)["row"])
    measured = pd.read_csv(folder / "table6.csv", index_col="row").astype(float)
    assert (measured.notna() == published(6).notna()).all(axis=None)
    times = measured.loc[["conv time (s)", "fc time (s)"]].sum()
    assert times.to_list() == pytest.approx(measured.loc["total time (s)"].to_list(), rel=2e-3)
    record = json.loads((folder / "table6.json").read_text())
    assert record["images"] == {"trainval": 8, "test": 8}
    assert record["timing"]["windows"] == 100
    assert {"seed", "device", "threads", "environment", "seconds"} <= set(record)
    assert (folder / "table6.md").is_file()
    assert (folder / "table6.tex").is_file()

    # From nothing once more, the same accuracies.
    reproduce(monkeypatch, "--runs", "other", "--results", "again")
    again = pd.read_csv(tmp_path / "again" / "tiny" / "table6.csv", index_col="row").astype(float)
    rows = ["pool5", "fc6", "ftfc6", "ftfc7", "ftfc7 bb"]
    pd.testing.assert_frame_equal(measured.loc[rows], again.loc[rows])


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
    measured = table6.table6(ws, tmp_path / "results", "default")
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
