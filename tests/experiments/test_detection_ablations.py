"""The ablations of detection on the tiny profile, as `make` runs them."""

import json
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from experiments.table6 import EXPERIMENT as TABLE6
from sppnet_cli.atomic import write_json
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.detector_files import read_description
from sppnet_cli.evaluation.timing import FeatureTime
from sppnet_cli.network.weights import load_spec
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.time_features import TIMES_FILE
from sppnet_cli.stages.workspace import Workspace

LIMITED = ("--limit", "8", "--workers", "1", "-q")
DETECTION = ("scale_pooling", "fc_size")


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Where the two experiments that train were run, one after the other."""
    folder = tmp_path_factory.mktemp("ablations")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        torch.set_num_threads(1)
        assert run(DETECTION, *LIMITED) == 0
    return folder


def runs_of(folder, stem):
    """The run directories whose names begin so, by the digest at their end."""
    return sorted((folder / "runs/tiny").glob(f"{stem}-*"))


def test_both_ways_of_pooling_are_measured(folder):
    table = pd.read_csv(folder / "results/tiny/scale_pooling.csv", index_col="layer")
    assert list(table.index) == ["pool5", "fc6", "ftfc7"]
    assert list(table.columns) == ["one_scale_map", "all_scales_map"]
    assert table.notna().all(axis=None)
    assert not table["one_scale_map"].equals(table["all_scales_map"])
    record = json.loads((folder / "results/tiny/scale_pooling.json").read_text())
    assert record["images"] == {"trainval": 8, "test": 8}


def test_detectors_carry_their_way_of_pooling(folder):
    detectors = runs_of(folder, "detector-spp-480-1200-ftfc7")
    rules = {read_description(run).protocol: Detector.load(run).extractor.mapping for run in detectors}
    assert {name: mapping.scale_rule for name, mapping in rules.items()} == {
        "paper": "closest-area",
        "all-scales": "all",
    }
    finetunings = [read_manifest(run)["config"]["windows"] for run in runs_of(folder, "finetune")]
    assert sorted(windows["mapping"]["scale_rule"] for windows in finetunings) == [
        "all",
        "closest-area",
        "closest-area",
    ]


def test_what_does_not_depend_on_the_pooling_is_made_once(folder):
    assert len(runs_of(folder, "proposals-trainval")) == len(runs_of(folder, "proposals-test")) == 1
    assert len(runs_of(folder, "network")) == 2  # one with smaller fc layers


def test_smaller_fc_layers_have_their_own_network_and_the_same_windows(folder):
    assert sorted(load_spec(run).fc for run in runs_of(folder, "network")) == [8, 32]
    inputs = [read_manifest(run)["inputs"] for run in runs_of(folder, "finetune")]
    assert len({each["network"] for each in inputs}) == 2
    assert len({each["proposals"] for each in inputs}) == 1


def test_map_and_time_of_both_sizes(folder):
    table = pd.read_csv(folder / "results/tiny/fc_size.csv", index_col="row")
    assert list(table.index) == ["ftfc7", "fc time (s)"]
    assert list(table.columns) == ["full", "quarter"]
    assert table.notna().all(axis=None)
    assert (table.loc["fc time (s)"] > 0).all()
    record = json.loads((folder / "results/tiny/fc_size.json").read_text())
    assert record["fc"] == {"full": 32, "quarter": 8}
    of_pooling = pd.read_csv(folder / "results/tiny/scale_pooling.csv", index_col="layer")
    assert table.loc["ftfc7", "full"] == of_pooling.loc["ftfc7", "one_scale_map"]
    text = (folder / "results/tiny/fc_size.md").read_text()
    assert "| ftfc7       | paper  | 55.20 " in text
    assert "| fc time (s) | paper  | 0.08900 " in text
    assert "32 outputs (full) or 8 (quarter)" in text


def shares(folder):
    return pd.read_csv(folder / "results/tiny/complexity.csv", index_col="scales")


def test_the_estimate_is_the_papers(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("complexity") == 0
    table = shares(tmp_path)
    assert list(table.index) == ["480", "576", "688", "864", "1200", "480..1200"]
    # r s^2 / (n 227^2) at 688 and at all five, r = 4/3: about 1/160 and 1/24.
    assert table.loc["688", "estimate"] == pytest.approx(100 * 4 / 3 * 688**2 / (2000 * 227**2), abs=5e-3)
    assert table.loc["480..1200", "estimate"] == pytest.approx(100 / 24, abs=5e-3)
    single = table.loc["480":"1200"]
    assert single["multiply_adds"].sum() == pytest.approx(table.loc["480..1200", "multiply_adds"], abs=0.03)
    # The layers see borders that the estimate does not, and crops of 224 in place of 227.
    assert (table["multiply_adds"] / table["estimate"]).between(1.05, 1.25).all()
    assert table["conv_time"].isna().all()
    text = (tmp_path / "results/tiny/complexity.md").read_text()
    assert "1/163 and 1/" in text
    assert "1/24 and 1/" in text


def test_the_measured_share_of_table_6(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (timed,) = (stage for stage in TABLE6.stages([Workspace(find_profile("tiny"))]) if stage.name == "time")
    timed.folder.mkdir(parents=True)
    seconds = {"spp_1scale": 0.05, "spp_5scale": 0.3, "rcnn": 10.0}
    times = {side: [asdict(FeatureTime(conv, 0.0, 0.0, 0.0))] for side, conv in seconds.items()}
    write_json(timed.folder / TIMES_FILE, times)
    write_json(timed.folder / "manifest.json", {})
    assert run("complexity") == 0
    assert shares(tmp_path)["conv_time"].dropna().to_dict() == {"688": 0.5, "480..1200": 3.0}


def test_pooling_is_compared_by_the_papers_protocol(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("scale_pooling", "--protocol", "released", *LIMITED) == 2
    assert "--protocol released" in capsys.readouterr().err


@pytest.mark.parametrize("experiment", [*DETECTION, "complexity"])
def test_a_dry_run_does_nothing(run, monkeypatch, tmp_path, experiment):
    monkeypatch.chdir(tmp_path)
    assert run(experiment, "--dry-run", "-q") == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts] == []
