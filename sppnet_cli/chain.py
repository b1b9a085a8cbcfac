"""Stages as values: what is to be made, from what, where, by which function; and the walk over what must be made.

A `Stage` is described before it is made.  Its digest follows from the description alone: from the stage's name, its
config, and the digests of its inputs, which are other stages or the user's files.  So a dry run knows every folder, and
two settings never meet in one folder.  `plan` walks from what is asked for to what it needs; `sppnet_cli.making`
makes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sppnet_cli import runs
from sppnet_cli.digests import files_digest
from sppnet_cli.provenance import code_digest
from sppnet_cli.runs import Identity, identity

_SHOWN = 8  # digits of the digest in the name of a folder


@dataclass(frozen=True)
class Resources:
    """What a stage may use.  None of it changes a bit of what it makes, but for the device."""

    device: str = "cpu"
    workers: int = 1  # processes or threads of each stage that load and propose
    max_memory: float = 8.0  # GiB that all stages that run at once may take
    cache: Path = Path("runs/cache")  # of conv5 maps and R-CNN's vectors
    cache_gb: float = 50.0  # that it may hold
    resume: bool = True  # what a call that was cut off left is used
    tensorboard: bool = False  # pre-training writes its events, too


class Cost(NamedTuple):
    """About what it takes to make a stage."""

    seconds: float  # on this machine, on the stage's number of threads
    files: dict[str, int]  # names and bytes of what it writes
    memory: float = 1.0  # GiB
    flops: float = (
        0.0  # operations of its convolutions, fc layers and linear systems; 0: its time is other work's
    )


class Inputs(dict[str, Path]):
    """Where the inputs of a stage lie, by name; `images`: the user's image files, where it takes some."""

    images: tuple[Path, ...] = ()


Build = Callable[[Any, Inputs, Path, Resources], None]


@dataclass(frozen=True, eq=False)
class Stage:
    """What one run directory is made from, and how.

    Attributes:
        name: of the stage, such as `train-svm`.
        config: a frozen dataclass that holds, by value, every number that the result depends on, and nothing else.
        inputs: other stages, files and folders inside of them, or the user's paths, by the names that `build` uses.
        images: the user's image files, where it takes some.
        folder: the run directory.
        build: `build(config, paths of the inputs, folder, resources)` writes the result into an empty folder, or into
            one that holds what an earlier call left when it was cut off.  A function of a module, so that another
            process can call it.
        cost: about what making it takes; called only when somebody wants to know.
        threads: that it computes on, whatever the machine has, so that its bits are the same everywhere; None: all.
        together: the processes of `torchrun` build it together.
        alone: nothing else may run meanwhile: it measures time.
        unfinished: a complete run for which this is true is resumed.
        shares: the cache that it fills, by a name; stages that fill the same one are better not begun together.
        check: raises for what is wrong with the user's data, before anything else is made; its data are there then.
    """

    name: str
    config: Any
    inputs: Mapping[str, Source] = field(repr=False)  # whose own inputs would fill pages
    folder: Path
    build: Build = field(repr=False)
    cost: Callable[[], Cost] = field(repr=False)
    images: tuple[Path, ...] = ()
    threads: int | None = 1
    together: bool = False
    alone: bool = False
    unfinished: Callable[[Path], bool] | None = None
    shares: str | None = None
    check: Callable[[], None] | None = None

    @functools.cached_property
    def identity(self) -> Identity:
        """What decides the result."""
        digests = {name: digest(each) for name, each in self.inputs.items()}
        if self.images:
            digests["images"] = files_digest(self.images)
        return identity(self.name, self.config, digests)

    @property
    def digest(self) -> str:
        """Of the identity."""
        return self.identity.digest

    @property
    def ready(self) -> bool:
        """Whether it is made already, and nothing of it is left to be tried again."""
        return runs.is_run(self.folder) and (self.unfinished is None or not self.unfinished(self.folder))

    @property
    def needs(self) -> list[Stage]:
        """The stages among its inputs."""
        sources = (each.stage if isinstance(each, Part) else each for each in self.inputs.values())
        return [each for each in sources if isinstance(each, Stage)]

    def paths(self) -> Inputs:
        """Where the inputs lie."""
        paths = Inputs({name: path_of(each) for name, each in self.inputs.items()})
        paths.images = self.images
        return paths

    def at(self, out: Path | None) -> Stage:
        """The same stage in the folder that the user names, if one is named."""
        return self if out is None else replace(self, folder=out)


@dataclass(frozen=True)
class Part:
    """A file or folder inside what a stage makes."""

    stage: Stage
    name: str


Source = Stage | Part | Path


def digest(source: Source) -> str:
    """What stands for an input in an identity.  Raises `DataError` where a path of the user's does not exist."""
    if isinstance(source, Stage):
        return source.digest
    if isinstance(source, Part):
        return f"{source.stage.digest}/{source.name}"
    return runs.fingerprint(source)


def path_of(source: Source) -> Path:
    """Where an input lies, or will."""
    if isinstance(source, Stage):
        return source.folder
    return source.stage.folder / source.name if isinstance(source, Part) else source


def behind(stages: Iterable[Stage]) -> list[Stage]:
    """The stages and all that they follow from, made or not, each once."""
    found: dict[Path, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.folder not in found:
            found[stage.folder] = stage
            for each in stage.needs:
                visit(each)

    for stage in stages:
        visit(stage)
    return list(found.values())


def named(stage: Stage, root: Path, stem: str) -> Stage:
    """The stage in a folder below `root`, whose name is a readable stem and the first digits of the digest."""
    return replace(stage, folder=root / f"{stem}-{stage.digest[:_SHOWN]}")


@dataclass
class Plan:
    """What a call makes, inputs first, and what is there already and is used."""

    targets: list[Stage]
    to_make: list[Stage] = field(default_factory=list)
    used: list[Stage] = field(default_factory=list)


def plan(targets: Iterable[Stage], *, remake: bool = False) -> Plan:
    """What making `targets` takes: what they need and what is not there, each once, inputs first.

    What a complete run was made from is not looked for.  With `remake` the targets are made anew, and so is whatever
    they need that other code made, or that was made from such a run.

    Raises `UsageError` where a folder that the user named holds another result, `DataError` for a path that does not
    exist or a run that was changed.
    """
    found = Plan(list(targets))
    seen: set[Path] = set()

    def visit(stage: Stage, is_target: bool) -> None:
        if stage.folder in seen:
            return
        seen.add(stage.folder)
        if stage.check and _data_are_there(stage) and not stage.ready:
            stage.check()
        if runs.is_run(stage.folder):
            runs.require_same(stage.folder, stage.identity)
        else:
            assert stage.identity  # what is wrong with the user's paths is said before any work
        if stage.ready and not (remake and (is_target or outdated(stage))):
            runs.require_intact(stage.folder)
            found.used.append(stage)
            return
        for each in stage.needs:
            visit(each, False)
        found.to_make.append(stage)

    for target in found.targets:
        visit(target, True)
    return found


def _data_are_there(stage: Stage) -> bool:
    return "data" not in stage.inputs or path_of(stage.inputs["data"]).exists()


def outdated(stage: Stage) -> bool:
    """Whether a run that is there was made by other code than this, or from such a run."""
    return stage.ready and (made_by_other_code(stage) or any(map(outdated, stage.needs)))


def made_by_other_code(stage: Stage) -> bool:
    """Whether the run that is there was made by other code than this."""
    return runs.read_manifest(stage.folder).get("code") != code_digest()
