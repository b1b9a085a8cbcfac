"""What all experiments share: what they print for scripts, and what they refuse before any work."""

import json
import pickle
import time
from datetime import UTC, datetime, timedelta

import pytest

from sppnet_cli.cli.reproduce import experiment_module
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import NeedsData, Workspace
from sppnet_cli.tables.paper import published

runner = experiment_module("runner")
Measured, numbered, small = runner.Measured, runner.numbered, runner.small


@pytest.fixture(autouse=True)
def inside(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measure(_ws):
    yield []
    time.sleep(0.02)
    row = ("SPP-net6, multi-size trained", "1 full")
    return Measured(values={(row, "top1_error"): 37.0}, images={"val": 1})


def test_json_is_one_object(run, capsys, inside, monkeypatch):
    monkeypatch.setattr(experiment_module("table2"), "EXPERIMENT", numbered(2, "Table 2.", measure))
    assert run("table2", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result.pop("seconds") >= 0.02
    kinds = ("csv", "md", "tex", "json", "published.csv")
    assert result == {
        "table": 2,
        "cells": 1,
        "files": [f"results/tiny/table2.{kind}" for kind in kinds],
    }
    assert all((inside / file).is_file() for file in result["files"])
    assert "written to results/tiny/table2.csv, .md, .tex, .json and .published.csv" in err


def test_json_of_a_table_without_a_number(run, capsys, monkeypatch):
    empty = small("small", "Small.", measure, lambda _ws: published(2) * float("nan"))
    monkeypatch.setattr(experiment_module("scale"), "EXPERIMENT", empty)
    assert run("scale", "--json", "--out", "here") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["table"], result["cells"]) == ("small", 1)
    assert result["files"] == [f"here/small.{kind}" for kind in ("csv", "md", "json", "published.csv")]


def test_json_of_an_experiment_that_trains_nothing(run, capsys):
    assert run("complexity", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["table"], result["cells"]) == ("complexity", 12)
    assert result["files"][0] == "results/tiny/complexity.csv"


def measure_by_seed(ws):
    yield []
    row = ("SPP-net6, multi-size trained", "1 full")
    return Measured(values={(row, "top1_error"): 37.0 + ws.seed}, images={"val": 1})


def test_several_seeds_give_mean_and_deviation(run, capsys, inside, monkeypatch):
    monkeypatch.setattr(experiment_module("table2"), "EXPERIMENT", numbered(2, "Table 2.", measure_by_seed))
    assert run("table2", "--seeds", "0,1,5") == 0
    label = "SPP-net6, multi-size trained, 1 full, top1_error"
    record = json.loads((inside / "results/tiny/table2.json").read_text())
    assert record["seeds"] == [0, 1, 5]
    assert record["by_seed"] == {"0": {label: 0.37}, "1": {label: 0.38}, "5": {label: 0.42}}
    cell = {key: record[key]["SPP-net6, multi-size trained"]["1 full"] for key in ("values", "deviation")}
    assert cell["values"] == {"top1_error": 0.39}
    assert cell["deviation"] == {"top1_error": pytest.approx(0.07**0.5 / 10)}  # of 37, 38 and 42: sqrt(7)
    text = (inside / "results/tiny/table2.md").read_text()
    assert "| ours   | 39.00 ± 2.65 |" in text
    assert "mean ± sample standard deviation over 3 seeds" in text
    assert "- 3 seeds (0, 1, 5) of the networks and detectors, on the same images and windows." in text
    assert f"- Deviations of the cells in percent: median 2.65, largest 2.65 ({label})." in text
    assert "39.00 ± 2.65" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["foo.csv", "foo.json", "foo.tex", "there"])
@pytest.mark.parametrize("which", ["table1", "complexity", "convergence"])
def test_out_is_a_folder(run, capsys, inside, untrained, name, which):
    (inside / "there").write_text("")
    assert run(which, "--out", name) == 2
    assert f"--out {name}: several files are written; give the folder that they go to" in (
        capsys.readouterr().err
    )
    assert [path.name for path in inside.iterdir()] == ["there"]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("which", "given", "message"),
    [
        ("table1", (), "needs ImageNet: give --imagenet DIR (make: IMAGENET=DIR)"),
        ("architectures", (), "needs ImageNet: give --imagenet DIR (make: IMAGENET=DIR)"),
        ("convergence", (), "needs ImageNet: give --imagenet DIR (make: IMAGENET=DIR)"),
        ("table6", (), "needs VOC 2007: give --data DIR (make: VOC=DIR)"),
        ("table4", (), "needs Caltech101: give --caltech DIR (make: CALTECH=DIR)"),
    ],
)
def test_missing_data_name_the_experiments_own_option(run, capsys, dry, which, given, message):
    assert run(which, *given, *dry, profile="paper") == 3
    err = capsys.readouterr().err
    assert message in err or (dry and "needs ImageNet: give --imagenet" in err)
    assert "--network" not in err


def test_the_error_of_missing_data_reaches_other_processes_whole():
    error = pickle.loads(pickle.dumps(NeedsData("profile paper needs it", "ImageNet")))
    assert (str(error), error.what) == ("profile paper needs it", "ImageNet")


def test_too_few_images_are_told_before_any_training(run, capsys, untrained, tmp_path):
    # Half of tiny's trainval has no room for its 20 classes.
    assert run("scale", "-q") == 3
    err = capsys.readouterr().err
    assert "the 10 images to train on hold no " in err
    assert "give --profile mini, or --data of more images" in err
    for which, few in (("table4", 3), ("table3", 1)):
        assert run(which, "--limit", "8", "-q") == 3
        err = capsys.readouterr().err
        assert "--limit 8 leaves " in err
        assert f"but {few} are needed; raise it or leave it out" in err


@pytest.mark.parametrize("which", ["table3", "table4"])
def test_enough_images_are_enough(run, untrained, which):
    with pytest.raises(AssertionError, match="a network was trained"):
        run(which, "-q")


def test_the_record_says_when_and_of_what(run, capsys, inside, monkeypatch):
    monkeypatch.setattr(experiment_module("table2"), "EXPERIMENT", numbered(2, "Table 2.", measure))
    assert run("table2") == 0
    out, _ = capsys.readouterr()
    assert "Table 2 (tiny: means nothing)" in out
    record = json.loads((inside / "results/tiny/table2.json").read_text())
    made = datetime.fromisoformat(record["date"])
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=5)
    assert record["machine"]["processor"]
    assert record["data"] == []  # nothing was made of any
    assert {"command", "commit", "code"} <= record.keys()


def test_the_data_behind_stages(inside, tiny_data):
    ws = Workspace(find_profile("tiny"), data=tiny_data / "VOCdevkit", imagenet=tiny_data / "imagenet")
    stages = [ws.proposals("test"), ws.proposals("trainval"), ws.trained_network()]
    assert runner.data_paths(stages) == [str(tiny_data / "VOCdevkit"), str(tiny_data / "imagenet")]
    (embedded,) = runner.data_paths([Workspace(find_profile("tiny")).proposals("test")])
    assert embedded.startswith(str(inside / "runs/tiny/data-"))
    assert embedded.endswith("/VOCdevkit")


def test_all_is_the_nine_tables_and_the_claims(run, capsys):
    # Named twice or not, each folder is made once.
    assert run(["all", "table6"], "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    folders = [step["out"] for step in plan["steps"]]
    assert len(folders) == len(set(folders)) > 50
    kinds = ("csv", "md", "tex", "json", "published.csv")
    tables = [f"results/tiny/table{number}.{kind}" for number in range(1, 10) for kind in kinds]
    assert plan["writes"] == [
        *tables,
        "results/tiny/claims.csv",
        "results/tiny/claims.md",
        "results/tiny/report.html",
    ]


@pytest.mark.parametrize("number", range(1, 10))
def test_tables_fit_a_terminal(number, capsys):
    """Of 80 characters, with deviations; every measured number is there."""
    table = published(number)
    runner.show(f"Table {number}", Workspace(find_profile("tiny")), table, table * 0 + 0.5)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("±") == table.notna().to_numpy().sum()


def test_a_table_by_class_leaves_out_what_was_not_measured(capsys):
    table = published(8)
    table.loc["DPM"] = float("nan")
    runner.show("Table 8", Workspace(find_profile("mini")), table, table * float("nan"))
    first, heading, _, of_map, *_ = capsys.readouterr().out.splitlines()
    assert first == "Table 8 (mini)"
    assert heading.split() == ["class", "SS", "Regionlet", "DetNet", "RCNN", "ftfc7", "SPP", "ftfc7"]
    assert of_map.split() == ["mAP", "33.8", "41.7", "30.5", "54.2", "55.2"]
