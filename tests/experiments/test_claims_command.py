"""The claims of made-up tables, as a user asks for them."""

import json
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


def test_all_claims_are_printed_and_written(ask, tables):
    code, out, err = ask()
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "Claims of the paper (mini)"
    assert len(lines) == 3 + 35
    first = lines[3].split()
    assert first[0] == "T1.1"
    assert first[-8:-6] == ["25", "50"]
    assert first[-5] == "to"
    assert first[-3:] == ["points", "holds", "clear"]
    assert lines[4].endswith("not measured")
    assert err == ("12 hold, 2 fail, 21 not measured; written to results/mini/claims.csv and .md\n")
    assert (tables / "claims.csv").is_file()
    assert (tables / "claims.md").is_file()


def test_json_is_one_object(ask, tables):
    tables.parent.rename(tables.parents[1] / "elsewhere")
    (tables.parents[1] / "elsewhere/mini").rename(tables.parents[1] / "elsewhere/tiny")
    code, out, err = ask("--profile", "tiny", "--results", "elsewhere", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["holds"], result["fails"], result["not measured"]) == (12, 2, 21)
    assert len(result["claims"]) == 35
    first, second = result["claims"][:2]
    assert (first["id"], first["ours_better"], first["ours_worse"]) == ("T1.1", 25.0, 50.0)
    assert 10 < first["low"] < 25 < first["high"] < 40
    assert second["ours_better"] is None
    assert second["low"] is None
    assert "Claims of the paper (tiny)" in err


def test_without_tables(ask, tmp_path):
    code, out, err = ask("--profile", "paper")
    assert (code, out) == (3, "")
    assert err.startswith("error: results/paper: no tables there; measure one first")
    assert list(tmp_path.iterdir()) == []
