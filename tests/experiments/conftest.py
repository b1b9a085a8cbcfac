"""The experiments as `make` runs them, and the tables that they write."""

import sys

import pandas as pd
import pytest
import torch

from sppnet_cli import cli
from sppnet_cli.runs import MANIFEST
from sppnet_cli.tables.paper import LAYOUTS


@pytest.fixture(scope="session")
def run():
    """Call `sppnet reproduce` on the tiny profile, or another, in the current folder: its exit code."""

    def call(names, *arguments, profile="tiny"):
        names = [names] if isinstance(names, str) else names
        line = ["sppnet", "reproduce", *names, "--profile", profile, "--jobs", "1", *map(str, arguments)]
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(sys, "argv", line)
            # The page takes seconds; tests/report looks at it.
            monkeypatch.setattr(
                "sppnet_cli.cli.reproduce._write_page", lambda folder: (folder / "report.html").touch()
            )
            with pytest.raises(SystemExit) as stop:
                cli.main()
        return stop.value.code

    return call


@pytest.fixture(scope="session")
def make_tables(run, tmp_path_factory):
    """Run experiments in a folder of their own; returns where their tables are."""

    def make(names, *arguments):
        folder = tmp_path_factory.mktemp("tables")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(folder)
            torch.set_num_threads(1)
            assert run(names, *arguments, "--workers", "1", "-q") == 0
        return folder / "results" / "tiny"

    return make


@pytest.fixture
def inside(results, monkeypatch):
    """A module's `results`, in whose folder the test runs."""
    monkeypatch.chdir(results.parents[1])
    return results


@pytest.fixture
def untrained(monkeypatch):
    """Fails where a network would be trained."""

    def build(*_arguments):
        raise AssertionError("a network was trained")

    monkeypatch.setattr("sppnet_cli.stages.pretrain.make_network", build)


@pytest.fixture
def made():
    """The run directories beside the tables in `results`."""

    def call(results):
        root = results.parents[1]
        return {str(path.parent.relative_to(root)) for path in (root / "runs").rglob(MANIFEST)}

    return call


@pytest.fixture(scope="session")
def read():
    """A table that was written, by the row keys of its layout."""
    return lambda folder, number: pd.read_csv(
        folder / f"table{number}.csv", index_col=list(LAYOUTS[number].keys)
    )
