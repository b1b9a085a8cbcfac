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
    """Call an experiment on the tiny profile, or another, in the current folder: its exit code."""

    def call(experiment, *arguments, profile="tiny"):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(
                sys, "argv", [experiment.__name__, "--profile", profile, *map(str, arguments)]
            )
            with pytest.raises(SystemExit) as stop:
                cli.run(experiment.command)
        return stop.value.code

    return call


@pytest.fixture(scope="session")
def make_tables(run, tmp_path_factory):
    """Run experiments one after another in a folder of their own; returns where their tables are."""

    def make(experiments, *arguments):
        folder = tmp_path_factory.mktemp("tables")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(folder)
            torch.set_num_threads(1)
            for experiment in experiments:
                assert run(experiment, *arguments, "--workers", "1", "-q") == 0
        return folder / "results" / "tiny"

    return make


@pytest.fixture
def inside(results, monkeypatch):
    """A module's `results`, in whose folder the test goes on."""
    monkeypatch.chdir(results.parents[1])
    return results


@pytest.fixture
def planned():
    """The folders that experiments would make, of the workspaces of their seeds."""

    def call(experiments, workspaces):
        return {
            step.out
            for each in experiments
            for ws in workspaces
            for step in each.plan(ws)
            if step.name != "data"
        }

    return call


@pytest.fixture
def made():
    """The run directories beside the tables in `results`."""

    def call(results):
        root = results.parents[1]
        return {path.parent.relative_to(root) for path in (root / "runs").rglob(MANIFEST)}

    return call


@pytest.fixture(scope="session")
def read():
    """A table that was written, by the row keys of its layout."""
    return lambda folder, number: pd.read_csv(
        folder / f"table{number}.csv", index_col=list(LAYOUTS[number].keys)
    )
