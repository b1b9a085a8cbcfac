"""The ablations of detection on the tiny profile, as `make` runs them."""

import json
import sys

import pandas as pd
import pytest
import torch

from experiments import complexity, fc_size, scale_pooling
from sppnet_cli import cli
from sppnet_cli.detection.detector import Detector, read_description
from sppnet_cli.network.weights import load_spec
from sppnet_cli.runs import read_manifest
from sppnet_cli.tables.paper import empty_like_published
from sppnet_cli.tables.write import write_table

LIMITED = ("--limit", "8", "--workers", "1", "-q")
DETECTION = (scale_pooling, fc_size)


def run(monkeypatch, experiment, *arguments):
    monkeypatch.setattr(sys, "argv", [experiment.__name__, "--profile", "tiny", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.run(experiment.command)
    return stop.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the two experiments that train were run, one after the other."""
    folder = tmp_path_factory.mktemp("ablations")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        torch.set_num_threads(1)
        for experiment in DETECTION:
            assert run(monkeypatch, experiment, *LIMITED) == 0
    return folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_both_ways_of_pooling_are_measured(folder):
    table = pd.read_csv(folder / "results/tiny/scale_pooling.csv", index_col="layer")
    assert list(table.index) == ["pool5", "fc6", "ftfc7"]
    assert list(table.columns) == ["one_scale_map", "all_scales_map"]
    assert table.notna().all(axis=None)
    assert not table["one_scale_map"].equals(table["all_scales_map"])
    record = json.loads((folder / "results/tiny/scale_pooling.json").read_text())
    assert record["images"] == {"trainval": 8, "test": 8}


def test_detectors_carry_their_way_of_pooling(folder):
    runs = folder / "runs/tiny/seed0"
    name = "detector-spp-480-576-688-864-1200-ftfc7"
    detector = runs / "all-scales-limit8" / name
    assert read_description(detector).protocol == "all-scales"
    assert Detector.load(detector).protocol.scale_rule == "all"
    assert read_description(runs / "limit8" / name).protocol == "paper"
    finetuning = read_manifest(
        detector.with_name(name.replace("detector", "finetune").removesuffix("-ftfc7"))
    )
    assert finetuning["config"]["windows"]["protocol"] == "all-scales"


def test_what_the_protocol_does_not_bear_on_is_made_once(folder):
    runs = folder / "runs/tiny/seed0"
    assert {"network-spp6-224", "proposals-trainval", "proposals-test"} <= names(runs / "limit8")
    own = names(runs / "all-scales-limit8")
    assert own == {name for name in own if name.startswith(("finetune", "detector", "detections"))}


def test_smaller_fc_layers_have_their_own_network_and_the_same_windows(folder):
    runs = folder / "runs/tiny/seed0"
    assert names(runs / "fc8-limit8") == {
        "network-spp6-224",
        "finetune-spp-480-576-688-864-1200",
        "detector-spp-480-576-688-864-1200-ftfc7",
        "detections-spp-480-576-688-864-1200-ftfc7",
    }
    assert [load_spec(runs / at / "network-spp6-224").fc for at in ("limit8", "fc8-limit8")] == [32, 8]
    proposals = [
        read_manifest(runs / at / "finetune-spp-480-576-688-864-1200")["inputs"]["proposals"]
        for at in ("limit8", "fc8-limit8")
    ]
    assert proposals[0] == proposals[1]


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


def test_the_estimate_is_the_papers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, complexity) == 0
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


@pytest.mark.parametrize("arch", ["zf5", "convnet5"])
def test_the_measured_share_of_the_same_network(monkeypatch, tmp_path, arch):
    monkeypatch.chdir(tmp_path)
    times = empty_like_published(6)
    times.loc["conv time (s)"] = [0.05, 0.3, 10.0]
    write_table(tmp_path / "results/tiny", 6, times, {"arch": "zf5"})
    assert run(monkeypatch, complexity, "--arch", arch) == 0
    measured = shares(tmp_path)["conv_time"].dropna().to_dict()
    assert measured == ({"688": 0.5, "480..1200": 3.0} if arch == "zf5" else {})


def test_pooling_is_compared_by_the_papers_protocol(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, scale_pooling, "--protocol", "released", *LIMITED) == 2
    assert "--protocol released" in capsys.readouterr().err


@pytest.mark.parametrize("experiment", [*DETECTION, complexity])
def test_a_dry_run_does_nothing(monkeypatch, tmp_path, experiment):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, experiment, "--dry-run", "-q") == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts] == []
