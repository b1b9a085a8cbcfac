"""`sppnet runs` as a user types it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from sppnet_cli.cli.runs import _dry_run
from sppnet_cli.data.mini import TINY
from sppnet_cli.stages import defaults, profiles

COMMAND = ("propose", "--profile", "tiny", "--limit", "2", "--workers", "1", "-q")


@pytest.fixture
def made(sppnet):
    """The tiny data and two images' windows, made by the command line."""
    code, _, err = sppnet(*COMMAND)
    assert code == 0, err

    def call(*arguments):
        code, out, err = sppnet("runs", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def stems(entries):
    return [Path(each["run"]).name.rpartition("-")[0] for each in entries]


def test_listing(made, sppnet):
    found = made()
    assert stems(found["runs"]) == ["data", "proposals-trainval-ss-fast"]
    data, proposals = found["runs"]
    assert data["differs"] == {}
    assert proposals["differs"] == {"limit": "2"}
    assert proposals["command"].endswith("sppnet " + " ".join(COMMAND))
    assert proposals["stage"] == "propose"
    assert not proposals["other_code"]
    assert data["bytes"] > 1e6
    out = sppnet("runs")[1]
    assert "limit 2" in out
    assert "0 min" in out


def test_runs_that_the_code_would_make_otherwise_are_stale(made, monkeypatch, tmp_path):
    assert made("prune", "--stale") == {"deleted": False, "folders": [], "bytes": 0}
    other = replace(profiles.PROFILES["tiny"], data=replace(TINY, voc_test=21))
    monkeypatch.setitem(profiles.PROFILES, "tiny", other)
    defaults.default_configs.cache_clear()
    found = made("prune", "--stale")
    assert stems(found["folders"]) == ["data", "proposals-trainval-ss-fast"]
    assert all("stale: now" in each["why"] for each in found["folders"])
    assert len(list((tmp_path / "runs" / "tiny").iterdir())) == 2
    assert made("prune", "--stale", "--yes")["deleted"]
    assert not list((tmp_path / "runs" / "tiny").iterdir())


def test_a_run_of_another_machine_or_command_stays(made, monkeypatch, tmp_path):
    other = replace(profiles.PROFILES["tiny"], data=replace(TINY, voc_test=21))
    monkeypatch.setitem(profiles.PROFILES, "tiny", other)
    for change in (
        {"command": "pytest -q"},
        {"command": "sppnet propose --gone"},
        {"command": "sppnet 'propose"},
        {"command": "rm -rf sppnet"},
        {"machine": {"processor": "another", "gpu": None}},
    ):
        for path in (tmp_path / "runs" / "tiny").glob("*/manifest.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        assert made("prune", "--stale")["folders"] == []


def test_pruning_needs_a_kind_and_a_yes(made, sppnet, tmp_path):
    assert sppnet("runs", "prune")[0] == 2
    assert sppnet("runs", "prune", "--yes")[0] == 2
    left = tmp_path / "runs" / "tiny" / "svm-1.partial"
    left.mkdir()
    cache = tmp_path / "runs" / "tiny" / "cache"
    cache.mkdir()
    assert stems(made()["others"]) == ["", "svm"]
    made("prune", "--runs", "runs/tiny", "--unfinished")
    assert left.is_dir()
    made("prune", "--unfinished", "--yes")
    assert not left.exists()
    assert cache.is_dir()
    made("prune", "--caches", "--yes")
    assert not cache.exists()
    assert len(made()["runs"]) == 2


def test_differences(made, sppnet, tmp_path):
    assert sppnet(*COMMAND, "--proposals", "edgeboxes")[0] == 0
    first, second = sorted(
        path for path in (tmp_path / "runs" / "tiny").iterdir() if "proposals" in path.name
    )
    found = made("diff", first, second)["differences"]
    assert found == {"method": {"A": "edgeboxes", "B": "ss-fast"}}
    assert "nothing differs" in sppnet("runs", "diff", first, first)[2]
    code, _, err = sppnet("runs", "diff", first, tmp_path)
    assert code == 3
    assert "not a complete run" in err


def test_no_runs_yet(sppnet):
    code, _, err = sppnet("runs")
    assert code == 3
    assert "runs: no such folder" in err


def test_variables_of_the_environment_belong_to_the_command(sppnet, monkeypatch):
    def stale():
        return json.loads(sppnet("runs", "prune", "--stale", "--json")[1])["folders"]

    assert sppnet(*COMMAND)[0] == 0
    monkeypatch.setenv("SPPNET_SEED", "3")
    assert stale() == []
    assert sppnet(*COMMAND)[0] == 0
    monkeypatch.delenv("SPPNET_SEED")
    assert stale() == []
    monkeypatch.setenv("SPPNET_SEED", "4")
    assert stale() == []
    assert os.environ["SPPNET_SEED"] == "4"


@pytest.mark.parametrize(
    "text", ["sppnet detect photos --", "sppnet visualize detections -- 000001", "rm -rf .", "sppnet '"]
)
def test_a_command_in_a_manifest_that_would_not_stay_a_dry_run_is_not_run(text):
    assert _dry_run(text) is None
