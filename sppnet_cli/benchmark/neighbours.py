"""Benchmark of training beside other work: in one thread, in as many as there are cores, and in two parts of a batch."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch

from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.evaluation.limits import in_threads, machine
from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.learning.pretrain import Recipe, Tally, Trainer, training_step
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.provenance import cores

# Busy until its parent is gone.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


@dataclass(frozen=True)
class NeighbourSpeed:
    """Settings; the network's are mini's."""

    batch: int = 16
    width: float = 0.25  # factor on the numbers of filters
    fc: int = 1024
    repeats: int = 5
    seed: int = 0


def benchmark_neighbours(config: NeighbourSpeed) -> Benchmark:
    """Time a training step in several ways, alone and beside a busy process on every core.  On the CPU.

    Threads of one step wait for each other after every layer: where one of them has to wait for its core, all do.  The
    parts of a batch, as mini trains (`network.parts`), meet twice.
    """
    network = SPPNet(NetworkSpec("zf5", config.width, fc=config.fc, classes=20))
    trainer = Trainer(
        network, Recipe((CROP,), 1, config.batch, 1e-4, "steps", "he", None), config.seed, "cpu"
    )
    pixels = torch.rand(config.batch, 3, CROP, CROP) * 255
    labels = torch.arange(config.batch) % 20
    tally = Tally(torch.zeros(()), torch.zeros((), dtype=torch.int64))

    def step(threads: int, parts: int) -> None:
        network.parts = parts
        with in_threads(threads):
            training_step(network, trainer.optimizer, pixels, labels, clip=None, amp=False, tally=tally)

    most = cores()
    sides: dict[str, Callable[[], object]] = {
        f"{threads}_thread{'s' * (threads > 1)}": partial(step, threads, 1) for threads in sorted({1, most})
    }
    sides["2_parts"] = partial(step, 1, 2)
    rows = []
    for neighbours in (0, most):
        with _busy(neighbours):
            seconds = take_turns(sides, config.repeats)
        rows += [
            {"side": name, "neighbours": neighbours, "images_per_second": config.batch / each}
            for name, each in seconds.items()
        ]
    about = machine()
    record = {
        "sides": rows,
        "batch": config.batch,
        "width": config.width,
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": about,
    }
    note = (
        f"Training steps of {config.batch} images of mini's network on {about['cpu']}, {most} cores.  "
        "neighbours: processes that keep a core busy.  mini trains in 2 parts of a batch, one thread each."
    )
    return Benchmark("neighbours", record, pd.DataFrame(rows), note)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
