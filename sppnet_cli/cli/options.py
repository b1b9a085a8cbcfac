"""Options that several commands share."""

import dataclasses
import functools
import inspect
import json
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.distributed import join, local_device, local_share, world
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.names import METHODS

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

Command = Callable[..., Any]
PATH = click.Path(path_type=Path)
_LEAST_SIDE, _MOST_SIDE = 64, 4096  # pixels: of the short side of an image


class Finite(click.types.FloatParamType):
    """A number that is neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class FiniteRange(click.FloatRange, Finite):
    """A finite number between bounds; NaN passes Click's own comparisons."""


def option(name: str, *more: str, **settings: Any) -> Callable[[Command], Command]:
    """A Click option that can also be given as SPPNET_<NAME>."""
    variable = "SPPNET_" + name.split("/")[0].strip("-").replace("-", "_").upper()
    return click.option(name, *more, envvar=variable, **settings)


def count_option(name: str, *, least: int = 1, **settings: Any) -> Callable[[Command], Command]:
    """An option that takes a whole number, `least` or more."""
    return option(name, type=click.IntRange(min=least), metavar="N", **settings)


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, everything else on standard error.",
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")

workers_option = count_option(
    "--workers",
    least=0,
    default=os.cpu_count() or 1,
    help="Processes or threads that read images and propose windows, shared by the stages that run at once.",
)

_data_option = option(
    "--data", type=PATH, help="Your data.  [default: the embedded mini data, made when needed]"
)


def shared(command: Command) -> Command:
    """Add the options that every command that makes stages takes.

    The command gets the `Workspace` that they describe as `ws`, and `--out`, `--dry-run` and `--json` unchanged.
    """
    return _shared(command, profile="mini", weights=None)


def shared_unmade(command: Command) -> Command:
    """The options of `shared` for a command that may do without a workspace, and without torch then.

    In place of `ws` it gets `given`, with which it calls `make_workspace(**given)`.
    """
    return _shared(command, profile="mini", weights=None, unmade=True)


def shared_by_trainer(command: Command) -> Command:
    """The options of `shared` for a command that takes its data as an argument and trains on published weights."""
    return _shared(command, profile="pretrained", weights="DEFAULT", has_data=False)


def _shared(
    command: Command, profile: str, weights: str | None, has_data: bool = True, unmade: bool = False
) -> Command:
    options = [
        option(
            "--profile",
            type=click.Choice(["mini", "pretrained", "paper", "tiny"]),
            default=profile,
            help="Sizes, schedules and data of all stages.",
        ),
        *([_data_option] if has_data else []),
        option(
            "--arch",
            metavar="NAME",
            help="zf5, convnet5, overfeat5, overfeat7, a torchvision classifier, or timm/NAME.  [default: the profile's]",
        ),
        option(
            "--weights",
            default=weights,
            metavar="FILE|DEFAULT",
            help="ImageNet weights of a torchvision or timm --arch.",
        ),
        option(
            "--protocol",
            type=click.Choice(["paper", "released"]),
            default="paper",
            help="Follow the paper's rules, or those of the authors' released code.",
        ),
        option("--runs", type=PATH, default=Path("runs"), help="Folder for run directories."),
        option(
            "--out", type=PATH, help="Folder for the result of this command.  [default: one under --runs]"
        ),
        option(
            "--device",
            default="auto",
            metavar="auto|cpu|cuda[:N]|mps",
            help="Device that the networks run on.",
        ),
        option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", default=0, help="Random seed."),
        count_option(
            "--jobs",
            help="Stages that run at once, each on as many threads as the profile says.  [default: as many as the "
            "cores and --max-memory allow]",
        ),
        workers_option,
        option(
            "--proposals",
            metavar="ss-fast|ss-paper|edgeboxes|A+B|DIR|FILE.mat",
            help="Proposal method, or several joined by +; a run of `sppnet propose`; or the authors' .mat file of a "
            "split, or the folder with those of both.  [default: the profile's]",
        ),
        count_option("--limit", help="Use only the first N images of each set."),
        option(
            "--max-memory",
            type=FiniteRange(min=0.1),
            default=8.0,
            metavar="GIB",
            help="Memory for features and SVM training, shared by the stages that run at once.",
        ),
        option(
            "--cache-gb",
            type=FiniteRange(min=0),
            default=50.0,
            metavar="GB",
            help="Disk space for cached features; those that do not fit are computed again.",
        ),
        option(
            "--resume/--no-resume",
            default=True,
            help="Resume a run that was cut off, or start it over.",
        ),
        option(
            "--remake",
            is_flag=True,
            help="Make the result again even if it exists, and what it needs if other code made that.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            help="Print what would be made, its size and about how long it takes; do nothing.",
        ),
        json_option,
        quiet_option,
        click.option("-v", "--verbose", is_flag=True, help="Show more messages."),
    ]

    @functools.wraps(command)
    def run(*, quiet: bool, verbose: bool, as_json: bool, **given: Any) -> Any:
        console.configure(quiet=quiet, verbose=verbose, json=as_json, silent=not world().first)
        described = {name: given.pop(name, None) for name in _WORKSPACE}
        return command(described if unmade else make_workspace(**described), as_json=as_json, **given)

    for add in reversed(options):
        run = add(run)
    return run


min_confidence_option = option(
    "--min-confidence",
    type=FiniteRange(0, 1),
    metavar="P",
    help="Draw what a calibrated detector is so sure of; of a photograph in which that is nothing, the surest, marked as "
    "weak.  [default: 0.5]",
)
min_score_option = option(
    "--min-score",
    type=Finite(),
    metavar="SCORE",
    help="Draw detections that score above this, whatever their confidence.  [default: 0 where there is no confidence]",
)
method_option = option(
    "--method", type=click.Choice(METHODS), default="spp", help="SPP-net, or R-CNN with the same weights."
)
scales_option = option(
    "--scales",
    default="480..1200",
    metavar="480..1200|688|480,688",
    help="Short sides of the image: the protocol's scales in a range, one scale, or a list.",
)


def make_workspace(
    profile: str,
    data: Path | None,
    arch: str | None,
    weights: str | None,
    protocol: str,
    runs: Path,
    device: str,
    seed: int,
    jobs: int | None,
    workers: int,
    proposals: str | None,
    limit: int | None,
    max_memory: float,
    cache_gb: float,
    resume: bool,
    remake: bool,
) -> "Workspace":
    """The workspace that the shared options describe."""
    from sppnet_cli.chain import Resources
    from sppnet_cli.data.proposals import METHODS as PROPOSAL_METHODS
    from sppnet_cli.data.proposals import proposal_parts
    from sppnet_cli.network.backbones import is_own
    from sppnet_cli.protocols import find_protocol
    from sppnet_cli.stages.profiles import find_profile
    from sppnet_cli.stages.workspace import Workspace

    numbers = find_profile(profile)
    for part in proposal_parts(proposals) if proposals else ():
        if part not in PROPOSAL_METHODS and not Path(part).is_dir() and not part.endswith(".mat"):
            known = ", ".join(PROPOSAL_METHODS)
            raise UsageError(
                f"--proposals {part}: neither {known} nor a run of `sppnet propose` nor a .mat file"
            )
    if arch is not None and arch != numbers.arch:
        numbers = dataclasses.replace(numbers, arch=arch, width=numbers.width if is_own(arch) else 1.0)
    chosen = local_device(find_device(device))
    join(chosen)
    how = Resources(
        device=chosen,
        workers=local_share(workers),
        max_memory=max_memory,
        cache_gb=cache_gb,
        resume=resume,
    )
    return Workspace(
        numbers,
        root=runs,
        seed=seed,
        protocol=find_protocol(protocol),
        data=data,
        weights=weights,
        proposals_method=proposals,
        limit=limit,
        how=how,
        jobs=jobs,
        remake=remake,
    )


_WORKSPACE = tuple(inspect.signature(make_workspace).parameters)


def find_device(name: str) -> str:
    """The device called `name`; `auto` is `cuda` where there is one, else `cpu`.

    Raises `UsageError` for an unknown name and `DataError` for a device that this machine lacks.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|mps|cuda(?::([0-9]{1,3}))?", name)
    if not match:
        raise UsageError(f"--device {name}: write auto, cpu, cuda, cuda:N or mps")
    if name == "mps":
        from sppnet_cli.network.self_test import require_exact_pooling

        if not torch.backends.mps.is_available():
            raise DataError(f"--device mps: torch {torch.__version__} finds no MPS device; use --device cpu")
        require_exact_pooling("mps")
    count = torch.cuda.device_count()
    if name.startswith("cuda") and int(match[1] or 0) >= count:
        found, other = (
            (f"{count} CUDA device{'s' * (count > 1)}", "cuda:0") if count else ("no CUDA device", "cpu")
        )
        raise DataError(f"--device {name}: torch {torch.__version__} finds {found}; use --device {other}")
    return name


def scales_of(text: str, ws: "Workspace") -> tuple[int, ...]:
    """`--scales` as numbers, a range being that of the workspace's protocol.

    Raises `UsageError` for a scale below 64 pixels, where some trunks leave no map, or above 4,096.
    """
    from sppnet_cli.protocols import parse_scales

    scales = parse_scales(text, ws.protocol)
    if scales[0] < _LEAST_SIDE or scales[-1] > _MOST_SIDE:
        raise UsageError(f"--scales {text}: scales lie between {_LEAST_SIDE} and {_MOST_SIDE} pixels")
    return scales


def say(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """Print a result: the object on standard output under `--json`, else lines on standard error."""
    if as_json and world().first:
        click.echo(json.dumps(result, default=str))
    for line in lines:
        console.status(line)


def next_command(ws: "Workspace", *words: str | Path) -> str:
    """The line that says what to type next: the words after `sppnet`, and the options for the same profile and data."""
    command = ["sppnet", *map(str, words)]
    command += ["--profile", ws.profile.name] if ws.profile.name != "mini" else []
    data = ws.data or ws.caltech or ws.imagenet
    command += ["--data", str(data)] if data else []
    return f"next: {shlex.join(command)}"


def say_spread(ws: "Workspace") -> None:
    """Say which images of ImageNet's layout `--limit` takes: those of a VOC list are the first."""
    if ws.limit is not None:
        console.status(
            f"--limit {ws.limit}: images are taken from all classes in turn, the first of each first"
        )


def clock(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
