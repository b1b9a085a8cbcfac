import sys

import pytest

from sppnet_cli import cli


@pytest.fixture
def sppnet(monkeypatch, capsys, tmp_path):
    """Call the command line as a user does, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPPNET_JOBS", "1")  # starting processes takes longer than tiny stages

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sppnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call
