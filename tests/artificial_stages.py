"""Stages that take no time, for tests of how stages are made; apart, since each process that makes one imports this."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from sppnet_cli import console
from sppnet_cli.chain import Cost, Stage, named
from sppnet_cli.errors import DataError

PATIENCE = 60.0  # seconds that a stage waits for others to begin


@dataclass(frozen=True)
class Work:
    """What an artificial stage does."""

    text: str = ""
    beside: tuple[str, ...] = ()  # other stages that must have begun before it goes on
    seconds: float = 0.0  # that it then takes
    then: str = "write"  # or what it does in place of ending well: fail, die
    said: str = ""


@dataclass(frozen=True)
class Gibs:
    """A cost function that another process can be given."""

    memory: float
    seconds: float = 1.0

    def __call__(self):
        return Cost(self.seconds, {}, self.memory)


def work(config, inputs, folder, how):
    """`result.txt` follows from the config and the inputs; when, where and on what it ran is noted in `how.cache`."""
    begin = time.time()
    how.cache.mkdir(parents=True, exist_ok=True)
    (folder / "begun.txt").write_text(config.text)
    (how.cache / f"{config.text}.begun").touch()
    if config.said:
        console.status(config.said)
    numbers = torch.rand(200, generator=torch.Generator().manual_seed(len(config.text)))
    while not all((how.cache / f"{name}.begun").exists() for name in config.beside):
        assert time.time() - begin < PATIENCE, config
        time.sleep(0.01)
    time.sleep(config.seconds)
    if config.then == "fail":
        raise DataError("x.jpg: broken; restore it")
    if config.then == "die":
        os._exit(9)
    texts = [(path / "result.txt").read_text() for _, path in sorted(inputs.items())]
    (folder / "result.txt").write_text(f"{config.text} {numbers.sum()} {texts}")
    note = {"begin": begin, "end": time.time(), "pid": os.getpid(), "threads": torch.get_num_threads()}
    note |= {"numpy": [pool["num_threads"] for pool in threadpool_info()], "workers": how.workers}
    (how.cache / f"{config.text}.json").write_text(json.dumps(note))


def stage(root, name, needs=(), *, beside=(), seconds=0.0, then="write", said="", gib=1.0, cost=1.0, **more):
    """A stage in a folder below `root / "runs"`."""
    inputs = {each.name: each for each in needs}
    config = Work(name, tuple(beside), seconds, then, said)
    made = Stage(name, config, inputs, Path(), work, Gibs(gib, cost), **more)
    return named(made, root / "runs", name)


def pairs(root):
    """Two stages side by side, each of half a second at least, and what follows from each."""
    some = [stage(root, f"s{k}", beside=[f"s{1 - k}"], seconds=0.5) for k in range(2)]
    return [stage(root, f"after{k}", [some[k]]) for k in range(2)]


def endless(root):
    """Two stages side by side that end when they are ended."""
    return [stage(root, f"s{k}", beside=[f"s{1 - k}"], seconds=120) for k in range(2)]
