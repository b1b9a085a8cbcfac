"""A pre-training that is killed and started again ends with the bits of an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = (
    *(sys.executable, "-m", "sppnet_cli", "pretrain"),
    *("--profile", "tiny", "--sizes", "224,180", "--epochs", "12", "--workers", "1", "-q"),
)


def start(folder, data):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, "--data", str(data / "imagenet"), "--out", "net"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
    )


def killed(folder, data, epochs):
    """Run until more than that many epochs are done, then SIGKILL; returns how many are."""
    metrics = folder / "net.partial" / "metrics.jsonl"
    process = start(folder, data)
    deadline = time.monotonic() + 120
    while not metrics.is_file() or len(metrics.read_text().splitlines()) <= epochs:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return len(metrics.read_text().splitlines())


@pytest.mark.slow
def test_killed_twice(tiny_data, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    first = killed(cut, tiny_data, 0)
    assert killed(cut, tiny_data, first) < 12
    assert not (cut / "net").exists()
    for folder in (whole, cut):
        process = start(folder, tiny_data)
        _, messages = process.communicate()
        assert process.returncode == 0, messages
    names = sorted(path.name for path in (whole / "net").iterdir())
    weights = ["mean.safetensors", "metrics.jsonl", "network.json", "network.safetensors"]
    assert names == ["classes.txt", "manifest.json", *weights]
    assert sorted(path.name for path in (cut / "net").iterdir()) == names
    a, b = ((folder / "net" / "network.safetensors").read_bytes() for folder in (whole, cut))
    assert a == b


MINI = """
import os, sys
from pathlib import Path
from sppnet_cli.data import mini
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import Workspace
left, write = int(sys.argv[1]), mini.write_jpeg
def count(path, image):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    write(path, image)
mini.write_jpeg = count
ws = Workspace(find_profile("tiny"))
ws.make(ws.embedded().at(Path("made")))
"""


def test_a_killed_data_mini_leaves_nothing_hidden(tiny_data, tmp_path):
    for images, code in ((30, 9), (70, 9), (0, 0)):
        done = subprocess.run([sys.executable, "-c", MINI, str(images)], cwd=tmp_path, check=False)
        assert done.returncode == code
        hidden = [path for path in tmp_path.rglob(".*") if path.name != ".lock"]
        assert not hidden
        assert [path.name for path in tmp_path.iterdir()] == ["made" if code == 0 else "made.partial"]
    assert not list(tmp_path.rglob(".*"))
    for path in sorted(tiny_data.rglob("*")):
        if path.is_file():
            assert (tmp_path / "made" / path.relative_to(tiny_data)).read_bytes() == path.read_bytes()
