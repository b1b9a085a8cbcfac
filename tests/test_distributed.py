"""Two processes under torchrun give what one gives."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.torch import load_file

from sppnet_cli.distributed import World, barrier, from_first, gather, local_device, local_share, world
from sppnet_cli.errors import UsageError

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

# Dropout is off: each process draws its own.
WORK = """
import sys
from pathlib import Path
from torch import nn
from sppnet_cli.distributed import leave, world
from sppnet_cli.learning.pretrain import Recipe
from sppnet_cli.stages.errors import ErrorsConfig, errors_stage
from sppnet_cli.stages.extract import ExtractConfig, extract_stage
from sppnet_cli.stages.pretrain import PretrainConfig, pretrain_stage

data, out, network = (Path(argument) for argument in sys.argv[1:])
nn.Dropout.forward = lambda self, x: x
recipe = Recipe((224, 180), 2, 8, 0.0005, "one-cycle", "he", 5.0)
pretrain_stage(PretrainConfig("zf5", 0.0625, (1, 2, 3, 6), 32, recipe, seed=0), data / "imagenet", out / "net")
errors_stage(ErrorsConfig("8+2full"), network, data / "imagenet", out / "errors")
images = sorted((data / "VOCdevkit" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:7]
extract_stage(ExtractConfig(("conv5", "SPP pool5"), "crop", 224), network, images, out / "features")
leave()
"""

DEATH = """
import os, sys
from sppnet_cli.cli import run
from sppnet_cli.distributed import barrier, world
barrier()
if world().rank == 1:
    os._exit(9)
run(lambda **_: barrier())
"""


def torchrun(script, *arguments, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(script), *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_give_what_one_gives(tiny_data, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    network = tmp_path / "one" / "net"
    done = subprocess.run(
        [sys.executable, str(script), str(tiny_data), str(tmp_path / "one"), str(network)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    done = torchrun(script, tiny_data, tmp_path / "two", network)
    assert done.returncode == 0, done.stderr
    # Training: the same samples and steps, but for the rounding of sums.
    one, two = (load_file(tmp_path / name / "net" / "network.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "net" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    # Evaluation and features: the same bits.
    with (
        np.load(tmp_path / "one" / "errors" / "errors.npz") as a,
        np.load(tmp_path / "two" / "errors" / "errors.npz") as b,
    ):
        assert all((a[name] == b[name]).all() for name in ("wrong1", "wrong5"))
    for name in ("conv5.npy", "SPP-pool5.npy", "index.csv"):
        a, b = ((tmp_path / k / "features" / name).read_bytes() for k in ("one", "two"))
        assert a == b
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"net", "errors", "features"}


def test_a_process_that_dies_ends_the_others(tmp_path):
    script = tmp_path / "death.py"
    script.write_text(DEATH)
    start = time.monotonic()
    done = torchrun(script)
    assert done.returncode != 0
    assert time.monotonic() - start < 120


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world() == World(0, 1)
    assert world().first
    assert gather("x") == ["x"]
    assert from_first(3) == 3
    barrier()
    assert local_device("cuda") == "cuda"


def test_every_process_has_its_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert world() == World(3, 4)
    assert not world().first
    assert local_device("cuda") == "cuda:1"
    assert local_device("cuda:0") == "cuda:0"
    assert local_device("cpu") == "cpu"


def test_workers_are_shared(monkeypatch):
    assert [local_share(count) for count in (0, 1, 8)] == [0, 1, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [local_share(count) for count in (0, 1, 8, 9)] == [0, 1, 2, 2]


def test_broken_variables(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="start the processes with torchrun"):
        world()
