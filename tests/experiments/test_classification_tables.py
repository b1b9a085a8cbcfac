"""The experiments of Tables 1 to 5 and their ablations on the tiny profile, one after another as `make` runs them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import models

from sppnet_cli.data.mini_voc import write_voc
from sppnet_cli.runs import read_manifest
from sppnet_cli.tables.claims import COLUMNS
from sppnet_cli.tables.paper import literature, printed, published

NAMES = [f"table{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def results(make_tables):
    """The five tables, measured with two seeds."""
    return make_tables(NAMES, "--seeds", "0,1")


@pytest.mark.parametrize("number", range(1, 6))
def test_every_cell_is_measured_under_the_papers_labels(results, read, number):
    text = pd.read_csv(results / f"table{number}.csv", dtype=str, keep_default_na=False)
    assert list(text.columns) == list(printed(number).columns)
    for words in set(printed(number).columns) - set(published(number).columns):
        assert list(text[words]) == list(printed(number)[words])
    ours, theirs = read(results, number)[published(number).columns].astype(float), published(number)
    assert (ours.notna() == theirs.notna()).all(axis=None)
    others = literature(number)
    kept = (others & theirs.notna()).to_numpy()
    assert (ours.to_numpy()[kept] == theirs.to_numpy()[kept]).all()
    measured = ours.to_numpy()[(~others & ours.notna()).to_numpy()]
    assert len(measured) == {1: 10, 2: 4, 3: 16, 4: 15, 5: 4}[number]
    assert ((measured >= 0) & (measured <= 100)).all()


def test_a_dry_run_promises_the_folders_that_are_made(inside, run, made, tmp_path, capsys):
    arguments = ("--seeds", "0,1", "--workers", "1", "--dry-run", "--json")
    assert run(NAMES, *arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert all(step["ready"] for step in again["steps"])
    assert run(NAMES, *arguments, "--runs", tmp_path / "runs") == 0
    promised = json.loads(capsys.readouterr().out)
    folders = {step["out"].removeprefix(f"{tmp_path}/") for step in promised["steps"]}
    assert folders == made(inside)
    assert set(promised["writes"]) <= {str(path.relative_to(inside.parents[1])) for path in inside.iterdir()}


def test_the_record_says_how(results, read):
    record = json.loads((results / "table3.json").read_text())
    assert record["seeds"] == [0, 1]
    assert record["images"] == {"test": 20}
    assert {"device", "threads", "environment", "seconds", "by_seed", "code", "machine", "command"} <= set(
        record
    )
    assert {run["stage"] for run in record["runs"].values()} == {
        "data",
        "pretrain",
        "extract-features",
        "train-svm-images",
    }
    assert all(run["code"] == record["code"] for run in record["runs"].values())
    cells = [record["by_seed"][seed]["fc7, spp_full392"] for seed in ("0", "1")]
    assert read(results, 3).loc["fc7", "spp_full392"] == pytest.approx(100 * np.mean(cells), abs=0.005)


def test_table_5_repeats_tables_3_and_4(results, read):
    ours, voc, caltech = (read(results, number) for number in (5, 3, 4))
    assert ours.loc["ours", "voc2007_map"] == voc.loc["fc7", "spp_full392"]
    assert ours.loc["Zeiler & Fergus", "voc2007_map"] == voc.loc["fc7", "plain_crop224"]
    assert ours.loc["ours", "caltech101_accuracy"] == caltech.loc["SPP pool5", "spp_full224"]


def test_the_claims_of_the_tables_have_values_intervals_and_verdicts(inside, run):
    assert run("claims") == 0
    found = pd.read_csv(inside / "claims.csv", index_col="id")
    assert ["id", *found.columns] == list(COLUMNS)
    assert len(found) == 35
    ours = found.loc[found["table"] <= 4]
    assert len(ours) == 18
    assert ours[["ours_better", "ours_worse", "low", "high"]].notna().all(axis=None)
    assert set(ours["verdict"]) <= {"holds", "fails"}
    assert (found.loc[found["table"] > 4, "verdict"] == "not measured").all()
    assert (ours["low"] <= ours["high"]).all()


def test_measured_again_with_one_seed_the_other_is_forgotten(inside, run, tmp_path):
    for seeds in ("0,1", "1"):
        assert run("table2", "--seeds", seeds, "-q", "--out", tmp_path) == 0
    assert [path.name for path in (tmp_path / "outcomes" / "table2").iterdir()] == ["seed1"]


def test_the_corner_ablation(inside, run):
    assert run("corners", "--workers", "1", "-q") == 0
    table = pd.read_csv(inside / "corners.csv", index_col=0)
    assert list(table.columns) == ["entire_image", "central_square"]
    assert table.shape == (4, 2)
    assert table.notna().all(axis=None)
    assert (inside / "corners.md").is_file()


def test_the_scale_ablation(inside, run, tmp_path):
    # Its train half, unlike that of `tiny`, holds every class.
    write_voc(tmp_path / "VOCdevkit" / "VOC2007", seed=0, trainval=40, test=20)
    assert run("scale", "--data", tmp_path / "VOCdevkit", "--workers", "1", "-q") == 0
    table = pd.read_csv(inside / "scale.csv", index_col=0)
    assert list(table.columns) == ["voc2007_val_map", "caltech101_accuracy"]
    assert list(table.index) == [180, 224, 256, 300, 360, 392]
    assert table.notna().all(axis=None)


def test_the_picture_of_convergence(inside, run):
    assert run("convergence", "-q") == 0
    table = pd.read_csv(inside / "convergence.csv")
    assert list(table["training"].unique()) == ["single-size", "multi-size"]
    assert (inside / "convergence.png").read_bytes().startswith(b"\x89PNG")


def test_the_architectures(inside, run):
    assert run("architectures", "--workers", "1", "-q", "--limit", "20") == 0
    table = pd.read_csv(inside / "architectures.csv", index_col=["arch", "training"])
    assert table.shape == (12, 2)
    assert table.notna().all(axis=None)
    text = (inside / "architectures.md").read_text()
    assert "| zf5       | SPP single-size | journal | 34.98      | 14.14      |" in text
    assert "| convnet5  | no SPP          | ours    | " in text


def test_the_views_on_maps_beside_the_journals(inside, run):
    assert run("views", "--workers", "1", "-q", "--limit", "20") == 0
    table = pd.read_csv(inside / "views.csv", index_col="views")
    rows = ["10 views", "10 views on maps", "96 views on maps", "96 views on maps + 2 full"]
    assert list(table.index) == rows
    assert list(table.columns) == ["top1_error", "top5_error"]
    assert table.notna().all(axis=None)
    theirs = pd.read_csv(inside / "views.published.csv", index_col="views")
    assert theirs["top5_error"].fillna(0).tolist() == [10.95, 0, 9.36, 9.14]
    assert theirs["top1_error"].fillna(0).tolist() == [29.68, 0, 0, 0]
    text = (inside / "views.md").read_text()
    assert re.search(r"\| 96 views on maps \+ 2 full \| journal \| +\| 9.14 ", text)
    assert "The network is overfeat7, trained at 224 and 180 in turn." in text
    record = json.loads((inside / "views.json").read_text())
    assert record["arch"] == "overfeat7"
    networks = [run for run, of in record["runs"].items() if of["stage"] == "pretrain"]
    assert [Path(name).name.rpartition("-")[0] for name in networks] == [
        "network-overfeat7-spp6-224-180-seed0"
    ]


def test_the_warped_images_beside_the_journals(inside, run, read):
    assert run("warp", "--seeds", "0,1", "--workers", "1", "-q") == 0
    table = pd.read_csv(inside / "warp.csv", index_col="view")
    assert list(table.index) == ["warp", "full"]
    assert table.loc["full", "caltech101_accuracy"] == read(inside, 4).loc["SPP pool5", "spp_full224"]
    assert 0 <= table.loc["warp", "caltech101_accuracy"] <= 100
    theirs = pd.read_csv(inside / "warp.published.csv", index_col="view")["caltech101_accuracy"]
    assert theirs.to_dict() == {"warp": 89.91, "full": 91.44}
    text = (inside / "warp.md").read_text()
    assert re.search(r"\| warp +\| journal \| 89.91 ", text)
    assert "- 2 random splits of 2 training and up to 2 test images a category.\n" in text
    runs = json.loads((inside / "warp.json").read_text())["runs"]
    views = {read_manifest(inside.parents[1] / run)["config"]["view"] for run in runs if "/features-" in run}
    assert views == {"warp", "full"}


def test_what_decides_the_numbers_is_said_once(results):
    svms = "SVMs: C = 1, one against the rest; hinge loss, the bias not regularised, as LIBSVM's"
    mean = "minus the 224x224 mean image of the training set"
    lighting = "Training alters colours along the principal components by eigenvalues"
    ties = "right in the top k if fewer than k other classes score as high"
    levels = "AP: the mean of 11 precisions, at the devkit's recalls"
    said = {
        1: {mean, lighting, ties},
        2: {mean, lighting, ties},
        3: {svms, levels},
        4: {svms},
        5: {svms, levels},
    }
    for number, expected in said.items():
        text = (results / f"table{number}.md").read_text()
        counts = {note: text.count(note) for note in (svms, mean, lighting, ties, levels)}
        assert counts == {note: int(note in expected) for note in counts}, number


@pytest.mark.parametrize(
    "experiment", [*NAMES, "corners", "scale", "convergence", "architectures", "views", "warp"]
)
def test_a_dry_run_does_nothing(run, monkeypatch, tmp_path, experiment):
    monkeypatch.chdir(tmp_path)
    assert run(experiment, "--dry-run") == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts] == []


def test_a_trunk_without_fc_layers_leaves_its_rows_empty(run, read, monkeypatch, tmp_path, tiny_data):
    monkeypatch.chdir(tmp_path)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), "squeezenet.pth")
    given = ("--data", tiny_data / "VOCdevkit", "--weights", "squeezenet.pth", "--workers", "1", "-q")
    assert run("table3", *given, profile="pretrained") == 0
    table = read(tmp_path / "results" / "pretrained", 3)
    assert table.loc[["fc6", "fc7"]].isna().all(axis=None)
    assert table.loc["pool5 (6x6)"].notna().all()
    assert (
        "squeezenet1_1 with its ImageNet weights" in (tmp_path / "results/pretrained/table3.md").read_text()
    )


def test_bad_seeds(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("table1", "--seeds", "0,0") == 2
    assert "--seeds 0,0: write different whole numbers: 0,1,2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("experiment", "profile", "wanted"),
    [("table1", "paper", "IMAGENET=DIR"), ("table4", "pretrained", "CALTECH=DIR")],
)
def test_a_profile_on_real_images_needs_them(run, monkeypatch, tmp_path, capsys, experiment, profile, wanted):
    monkeypatch.chdir(tmp_path)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), "squeezenet.pth")
    weights = ["--weights", "squeezenet.pth"] if profile == "pretrained" else []
    assert run(experiment, *weights, profile=profile) == 3
    assert wanted in capsys.readouterr().err
