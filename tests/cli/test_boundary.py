"""What leaves the command line whatever happens inside: one line, the right exit code, nothing running."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from sppnet_cli import cli, console
from sppnet_cli.errors import DataError

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def shell(command, **environment):
    """Run `command`, in which $SPPNET is the command line, by bash; (exit code, standard output, standard error)."""
    program = f"{sys.executable} -m sppnet_cli"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=ENVIRONMENT | {"SPPNET": program} | environment,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "--nonsense"],
        ["detect", "--seed", "x"],
        ["nonsense"],
        ["detect", "--min-score", "nan"],
        ["data", "fetch"],
        ["data", "fetch", "a", "b"],
        ["detect", "--seed", "99999999999999999999"],
        ["data", "mini", "--seed", str(2**64)],
        ["propose", "--seed", "-1"],
        ["propose", "--device", "cpu:"],
        ["propose", "--device", "cuda:"],
        ["propose", "--device", "cuda:x"],
        ["propose", "--device", "cuda:²"],
        ["propose", "--device", ""],
    ],
)
def test_a_usage_error_is_one_line(sppnet, tmp_path, arguments):
    code, out, err = sppnet(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "data" not in path.parts]


def test_a_usage_error_names_the_help_of_its_command(sppnet):
    assert sppnet("detect", "--nonsense")[2].rstrip().endswith("see `sppnet detect --help`")
    assert sppnet("data", "check")[2].rstrip().endswith("see `sppnet data check --help`")
    assert sppnet("nonsense")[2].rstrip().endswith("see `sppnet --help`")


def test_without_a_command_the_help_is_shown(sppnet):
    code, out, err = sppnet()
    assert code == 2
    assert "Usage: sppnet" in out + err


def test_a_device_that_is_not_there(sppnet):
    code, _, err = sppnet("propose", "--device", "cuda:63")
    assert code == 3
    assert "CUDA device; use --device c" in err


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK is 'x', not a number"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '', not a number"),
        ({"WORLD_SIZE": "9" * 5000}, "not a number"),
        ({"RANK": "-1"}, "RANK is '-1', not a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 of WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but there is no RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is 2, but there is no MASTER_ADDR"),
        ({"WORLD_SIZE": "0"}, "RANK 0 of WORLD_SIZE 0"),
    ],
)
def test_broken_variables_of_torchrun(sppnet, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out, err = sppnet("propose", "--dry-run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "torchrun" in err


def failing(error):
    @click.command()
    def command():
        console.tally("set", "mended", "1")
        raise error

    return command


def outcome(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sppnet"])
    with pytest.raises(SystemExit) as stop:
        cli.run(command, "sppnet")
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("x: gone"), 3, "x: gone"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to continue"),
        (click.Abort(), 130, "interrupted"),
        (BrokenPipeError(), 0, None),
        (MemoryError(), 1, "not enough memory: give a lower --max-memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 3 GiB"), 1, "not enough memory"),
        (RuntimeError("unable to write to file </torch_1>: No space left on device (28)"), 1, "the disk is full"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 1, "a worker process was ended"),
        (RuntimeError("Bus error. It is possible that dataloader's workers are out of shared memory"), 1, "memory"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly while"), 1, "a worker process"),
        (OSError(28, "No space left on device"), 1, "No space left on device; check the path"),
        (PermissionError(13, "Permission denied", "x.csv"), 1, "x.csv: Permission denied"),
    ],
)  # fmt: skip
def test_what_a_command_raises(monkeypatch, capsys, error, code, message):
    found, err = outcome(failing(error), monkeypatch, capsys)
    lines = [line for line in err.splitlines() if line]  # Click puts the terminal's ^C onto a line of its own
    assert found == code
    assert lines[-1] == "warning: set: mended in 1 image (1): mended"
    assert len(lines) == (2 if message else 1)
    assert message is None or (lines[0].startswith("error: ") and message in lines[0])


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sppnet"])
    with pytest.raises(ZeroDivisionError):
        cli.run(failing(ZeroDivisionError()), "sppnet")


def test_real_allocations_that_are_too_large(monkeypatch, capsys):
    import torch

    for allocate in (lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: bytearray(2**60)):

        @click.command()
        def command(allocate=allocate):
            allocate()

        code, err = outcome(command, monkeypatch, capsys)
        assert (code, err.count("\n")) == (1, 1)
        assert "not enough memory" in err


def test_sigterm_says_one_line_and_unwinds(monkeypatch, capsys):
    left = []

    @click.command()
    def command():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            left.append("unwound")

    before = signal.getsignal(signal.SIGTERM)
    code, err = outcome(command, monkeypatch, capsys)
    assert (code, err) == (143, "error: terminated; run the same command again to continue\n")
    assert left == ["unwound"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_forked_worker_ends_by_the_signal(monkeypatch, capsys):
    codes = []

    @click.command()
    def command():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    assert outcome(command, monkeypatch, capsys) == (0, "")
    assert codes == [-signal.SIGTERM]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$SPPNET --help | head -0", 0),
        ("$SPPNET detect --help | head -1", 0),
        ("$SPPNET --version >&-", 0),
        ("$SPPNET data check /nowhere >&-", 3),
        ("$SPPNET data check /nowhere 2>&-", 3),
        ("$SPPNET data check /nowhere 2>/dev/full", 3),
        ("$SPPNET data check /nowhere >&- 2>&-", 3),
        ("$SPPNET nonsense 2>/dev/full", 2),
        ("$SPPNET nonsense 2>&-", 2),
        ("$SPPNET --help >/dev/full", 1),
        ("$SPPNET data check /nowhere 2>&1 >/dev/null | head -0", 3),
    ],
)
def test_streams_that_are_closed_or_full(command, code):
    found, _, err = shell(command)
    assert found == code, err
    assert b"Traceback" not in err
    assert b"Exception" not in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_on_every_terminal(tmp_path, encoding):
    for name in (b"caf\xc3\xa9", b"caf\xe9", "山".encode(), b"a\nb\x1b[31m"):
        folder = tmp_path / "set" / "val" / os.fsdecode(name)
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
        (folder / "2.png").write_bytes(b"")
    code, out, err = shell(f"$SPPNET data check '{tmp_path}/set' --json", PYTHONIOENCODING=encoding)
    assert code == 3
    assert b"Traceback" not in err
    assert len(json.loads(out)["problems"]) == 4
    assert err.count(b"2.png: is empty") == 4
    assert b"\x1b" not in err


def test_a_notebooks_backend_that_is_not_installed(tmp_path):
    program = (
        "import os\nfrom sppnet_cli.cli import run\nimport click\n"
        "@click.command()\ndef command():\n"
        "    from pathlib import Path\n    from sppnet_cli.evaluation.curves import draw_curves\n"
        "    from sppnet_cli.evaluation.voc_ap import PrecisionRecall\n    import numpy as np\n"
        "    one = np.ones(1)\n    draw_curves({'cat': PrecisionRecall(one, one, one, 1)}, 'T', Path('x.png'))\n"
        "run(command, 'x')"
    )
    for backend in ("module://matplotlib_inline.backend_inline", "nonsense"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=ENVIRONMENT | {"MPLBACKEND": backend},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert Path(tmp_path / "x.png").stat().st_size > 1000
        (tmp_path / "x.png").unlink()
