"""The claims of made-up tables, as a user asks for them."""

import json
import re
import sys

import numpy as np
import pytest

from sppnet_cli import cli, console
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.tables.claims import write_outcomes
from sppnet_cli.tables.paper import empty_like_published, published
from sppnet_cli.tables.write import write_table


@pytest.fixture
def ask(monkeypatch, capsys, tmp_path):
    """Run the experiment in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sppnet_cli.cli.reproduce._write_page", lambda folder: None
    )  # these tables have no record

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sppnet", "reproduce", "claims", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    yield call
    console.configure()


@pytest.fixture
def tables(tmp_path):
    """Table 1 with outcomes of two rows, and Table 6 as published."""
    folder = tmp_path / "results" / "mini"
    table = empty_like_published(1)
    table.loc[["e1", "e2"], "top1_error"] = [50.0, 25.0]
    write_table(folder, 1, table, {})
    wrong = np.arange(100)
    write_outcomes(
        folder,
        1,
        0,
        {("e1", "top1_error"): ErrorOutcome(wrong < 50), ("e2", "top1_error"): ErrorOutcome(wrong < 25)},
    )
    write_table(folder, 6, published(6), {})
    return folder


def test_measured_claims_are_printed_and_all_are_written(ask, tables):
    code, out, err = ask()
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("Claims of the paper (mini)")
    assert max(map(len, lines)) <= 80
    assert re.split("  +", lines[1]) == ["id", "claim", "ours", "better by (95%)", "verdict"]
    claims_of, speed = out.split("Speed-ups over R-CNN\n")
    found = re.findall(r"^T\d+\.\d+", claims_of, re.MULTILINE)
    assert found == ["T1.1", *(f"T6.{k}" for k in range(1, 14))]  # what was not measured is counted
    first = re.split("  +", lines[3])
    assert first[0] == "T1.1"
    assert first[2:] == ["25 / 50", first[3], "holds, clear"]
    assert re.fullmatch(r"\+1\d\.\d\d to \+3\d\.\d\d", first[3])
    assert re.split("  +", speed.splitlines()[0]) == [
        "id",
        "claim",
        "claimed",
        "ours",
        "journal",
        "arithmetic",
    ]
    assert re.findall(r"^(T6\.\d+) .*  (\d+x) +([\d.]+x) +(\d+x)$", speed, re.MULTILINE) == [
        ("T6.10", "30x", "169x", "270x"),
        ("T6.11", "30x", "30.6x", "49x"),
        ("T6.12", "64x", "64x", "102x"),
        ("T6.13", "24x", "24x", "38x"),
    ]
    assert err == ("14 hold, 0 fail, 21 not measured; written to results/mini/claims.csv and .md\n")
    assert (tables / "claims.csv").is_file()
    assert (tables / "claims.md").is_file()


def test_verdicts_are_coloured(ask, tables, monkeypatch):
    seen = []
    monkeypatch.setattr(console, "table", lambda *arguments, **options: seen.append((arguments, options)))
    table = empty_like_published(2)
    table.loc[("SPP-net6, single-size trained", "1 full"), "top1_error"] = 40.0
    table.loc[("SPP-net4, single-size trained", "1 crop"), "top1_error"] = 39.0
    write_table(tables, 2, table, {})
    ask()
    (_, _, rows), options = seen[0]
    colours = {row[0]: options["styles"][row[-1]] for row in rows}
    assert colours["T1.1"] == "bold green"  # clear
    assert colours["T6.1"] == "green"
    assert colours["T2.1"] == "red"


def test_nothing_measured_is_one_line(ask, tmp_path):
    (tmp_path / "results" / "mini").mkdir(parents=True)
    assert ask() == (0, "", "0 hold, 0 fail, 35 not measured; written to results/mini/claims.csv and .md\n")


def test_json_is_one_object(ask, tables):
    tables.parent.rename(tables.parents[1] / "elsewhere")
    (tables.parents[1] / "elsewhere/mini").rename(tables.parents[1] / "elsewhere/tiny")
    code, out, err = ask("--profile", "tiny", "--results", "elsewhere", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["holds"], result["fails"], result["not measured"]) == (14, 0, 21)
    assert len(result["claims"]) == 35
    first, second = result["claims"][:2]
    assert (first["id"], first["ours_better"], first["ours_worse"]) == ("T1.1", 25.0, 50.0)
    assert 10 < first["low"] < 25 < first["high"] < 40
    assert second["ours_better"] is None
    assert second["low"] is None
    factors = [result["claims"][28][key] for key in ("id", "factor", "journal_factor", "limit")]
    assert factors == ["T6.11", 30, 49, None]
    assert "Claims of the paper (tiny: means nothing)" in err


def test_without_tables(ask, tmp_path):
    code, out, err = ask("--profile", "paper")
    assert (code, out) == (3, "")
    assert err.startswith("error: results/paper: no tables there; measure one first")
    assert list(tmp_path.iterdir()) == []
