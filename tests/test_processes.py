"""Worker processes end with their parent, and no signal is lost while they start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sppnet_cli.processes import signals_held, worker_pool

POOL = """
import os, sys, time
from sppnet_cli.processes import worker_pool
from tests_of_processes import busy
if __name__ == "__main__":
    pool = worker_pool(2, busy)
    futures = [pool.submit(os.getpid) for _ in range(2)]
    pool.submit(time.sleep, 600)
    print("ready", flush=True)
    time.sleep(600)
"""
LOADING = """
import os, signal, sys
sent = []
def interrupt():
    if not sent:
        sent.append(1)
        os.kill(os.getpid(), signal.SIGINT)
os.register_at_fork(after_in_parent=interrupt)
import torch
from torch.utils.data import DataLoader, TensorDataset
from sppnet_cli.learning.crops import batches
try:
    for number, _ in enumerate(batches(DataLoader(TensorDataset(torch.zeros(9)), num_workers=2))):
        print("went on", number)
except KeyboardInterrupt:
    print("interrupted")
"""


def children_of(pid):
    """Ids of the processes below one, by /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [int(entry.name), *children_of(int(entry.name))]
    return found


def alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@needs_proc
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_the_workers_of_a_pool_end_with_it(tmp_path, kill):
    (tmp_path / "tests_of_processes.py").write_text("def busy(): pass\n")
    (tmp_path / "main.py").write_text(POOL)
    process = subprocess.Popen(
        [sys.executable, "main.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    )  # fmt: skip
    try:
        wait_for(lambda: len(children_of(process.pid)) >= 3)  # and the resource tracker
        time.sleep(1)
        workers = children_of(process.pid)
    finally:
        process.send_signal(kill)
        process.wait()
    wait_for(lambda: not any(map(alive, workers)), 20)


@needs_proc
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_those_of_propose_do_too(tmp_path, tiny_data, kill):
    command = [sys.executable, "-m", "sppnet_cli", "propose", "--data", str(tiny_data / "VOCdevkit")]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--runs", str(tmp_path / "runs")],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        wait_for(lambda: len(list(tmp_path.rglob("*.npy"))) >= 1)
        workers = children_of(process.pid)
    finally:
        process.send_signal(kill)
        _, messages = process.communicate()
    assert len(workers) >= 2, messages
    wait_for(lambda: not any(map(alive, workers)), 30)
    if kill == signal.SIGTERM:
        assert process.returncode == 143
        assert messages.decode().splitlines()[-1].startswith("error: terminated")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_dealt_with_once_it_can_be(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("handled"))
    try:
        with signals_held():
            signal.raise_signal(number)
            assert seen == []
        assert seen == ["handled"]
        with pytest.raises(ValueError, match="own"), signals_held():
            raise ValueError("own")
        assert signal.getsignal(number) not in (signal.SIG_DFL, before)
    finally:
        signal.signal(number, before)


def test_ctrl_c_while_loaders_are_forked_is_not_lost():
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.stdout == "interrupted\n"


def test_a_pool_is_prepared_and_leaves_ctrl_c_to_its_parent():
    with worker_pool(1, os.putenv, "A", "B") as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
