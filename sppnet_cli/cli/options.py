"""Options that commands share; one name means one thing everywhere."""

import dataclasses
import functools
import inspect
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.distributed import join, local_device, local_share, world
from sppnet_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

Command = Callable[..., Any]
PATH = click.Path(path_type=Path)
_LEAST_SIDE, _MOST_SIDE = 64, 4096  # pixels: of the short side of an image


class FiniteRange(click.FloatRange):
    """Click's range of numbers, without NaN, which no bound keeps out, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def option(name: str, *more: str, **settings: Any) -> Callable[[Command], Command]:
    """A Click option that can also be given as SPPNET_<NAME>."""
    variable = "SPPNET_" + name.split("/")[0].strip("-").replace("-", "_").upper()
    return click.option(name, *more, envvar=variable, **settings)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output, all else on standard error."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress.")


_data_option = option(
    "--data", type=PATH, help="Your data; without it the embedded mini data is made and used."
)


def shared(command: Command) -> Command:
    """Add the options of every command that runs stages, and give it the `Workspace` they describe.

    The command is called with `ws` first; `--out`, `--dry-run` and `--json` reach it as they are.
    """
    return _shared(command, profile="mini", weights=None)


def shared_by_trainer(command: Command) -> Command:
    """The options of `shared` for a command that takes its data as an argument and trains on published weights."""
    return _shared(command, profile="pretrained", weights="DEFAULT", has_data=False)


def _shared(command: Command, profile: str, weights: str | None, has_data: bool = True) -> Command:
    options = [
        option(
            "--profile",
            type=click.Choice(["mini", "pretrained", "paper", "tiny"]),
            default=profile,
            help="Sizes, schedules and data of the whole chain.",
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
            help="The paper's rules or those of the authors' released code.",
        ),
        option("--runs", type=PATH, default=Path("runs"), help="Where run directories go."),
        option("--out", type=PATH, help="This command's own output.  [default: a folder under --runs]"),
        option("--device", default="auto", metavar="auto|cpu|cuda[:N]|mps", help="Where the networks run."),
        option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of all that is random."),
        option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Stages made side by side, each on the threads of its profile.  [default: what cores and --max-memory "
            "allow]",
        ),
        option(
            "--workers",
            type=click.IntRange(min=0),
            default=os.cpu_count() or 1,
            help="Processes or threads that load and propose; stages side by side share them.",
        ),
        option(
            "--proposals",
            metavar="ss-fast|ss-paper|edgeboxes|A+B|DIR|FILE.mat",
            help="How windows are proposed, several ways together, a run of `sppnet propose`, or the authors' .mat files "
            "(the folder of both, or that of a split).  [default: the profile's]",
        ),
        option("--limit", type=click.IntRange(min=1), help="Use the first N images of a set."),
        option(
            "--max-memory",
            type=FiniteRange(min=0.1),
            default=8.0,
            metavar="GIB",
            help="Bound of feature buffers and SVM rows, and of how many stages run at once.",
        ),
        option(
            "--cache-gb",
            type=FiniteRange(min=0),
            default=50.0,
            metavar="GB",
            help="Disk for cached feature maps; what does not fit is computed each time.",
        ),
        option(
            "--resume/--no-resume",
            default=True,
            help="Resume what an earlier call left when it was cut off, or start over.",
        ),
        option(
            "--remake",
            is_flag=True,
            help="Make the result anew though it is there, and what it needs that other code made.",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Print what would be done, written and take; do nothing."
        ),
        json_option,
        quiet_option,
        click.option("-v", "--verbose", is_flag=True, help="More messages."),
    ]

    @functools.wraps(command)
    def run(*, quiet: bool, verbose: bool, as_json: bool, **given: Any) -> Any:
        console.configure(quiet=quiet, verbose=verbose, json=as_json, silent=not world().first)
        ws = make_workspace(**{name: given.pop(name, None) for name in _WORKSPACE})
        return command(ws, as_json=as_json, **given)

    for add in reversed(options):
        run = add(run)
    return run


min_confidence_option = option(
    "--min-confidence",
    type=FiniteRange(0, 1),
    help="Draw what a calibrated detector is so sure of; of a photograph in which that is nothing, the surest, marked as "
    "weak.  [default: 0.5]",
)
min_score_option = option(
    "--min-score",
    type=FiniteRange(),
    help="Draw what scores above, whatever its confidence.  [default: 0, of a detector without calibration]",
)
method_option = option(
    "--method", type=click.Choice(["spp", "rcnn"]), default="spp", help="SPP-net, or R-CNN on its weights."
)
scales_option = option(
    "--scales",
    default="480..1200",
    metavar="480..1200|688|480,688",
    help="Short sides of the image: the protocol's in a range, or a list.",
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
    from sppnet_cli.data.proposals import METHODS
    from sppnet_cli.network.backbones import is_own
    from sppnet_cli.protocols import find_protocol
    from sppnet_cli.stages.profiles import find_profile
    from sppnet_cli.stages.workspace import Workspace

    numbers = find_profile(profile)
    for part in (proposals or "").split("+"):
        if part and part not in METHODS and not Path(part).is_dir() and not part.endswith(".mat"):
            known = ", ".join(METHODS)
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
    """`auto` becomes `cuda` where there is one; others are checked.  Raises `UsageError` or `DataError`."""
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
    """`--scales` as numbers, by the workspace's protocol.

    Raises `UsageError` for one at which some trunk has no map left, or no machine the memory.
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


def clock(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
