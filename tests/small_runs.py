"""Small runs for tests of run directories."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sppnet_cli.building import make_run
from sppnet_cli.runs import identity


@dataclass(frozen=True)
class Recipe:
    batch: int = 8
    init: str = "he"


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    sizes: tuple[int, ...] = (224, 180)
    data: Path = Path("somewhere")
    recipe: Recipe = Recipe()


INPUTS = {"data": "abc"}


def write(folder):
    (folder / "result.txt").write_text("whole")


def never(folder):
    pytest.fail("was built again")


def cut_off(folder):
    (folder / "half.txt").write_text("half")
    raise KeyboardInterrupt


def make(out, build=write, stage="train", config=Config(), inputs=INPUTS, **more):
    make_run(out, identity(stage, config, inputs), build, **more)
    return out
