"""A pre-training that is killed and started again ends with the bits of an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time

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
