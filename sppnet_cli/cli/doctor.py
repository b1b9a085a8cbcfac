"""`sppnet doctor`."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from sppnet_cli import __version__, console
from sppnet_cli.cli.options import PATH, json_option, option, say

_OPENCVS = (
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
)
_PYTHONS = (3, 11, 4), (3, 15)
_LEAST_DISK, _LEAST_MEMORY, _LEAST_SHARED = 5e9, 4e9, 5e8  # bytes
_MEMORY_LIMITS = (  # of a container
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_SHARED_MEMORY = Path("/dev/shm")


class Found(NamedTuple):
    """What a check found, and what to do about it if that is a fault."""

    value: str
    remedy: str | None = None


@click.command("doctor", short_help="Look for what is wrong with this machine's set-up.")
@option("--runs", "root", type=PATH, default=Path("runs"), help="Where run directories go.")
@json_option
@click.pass_context
def command(context: click.Context, root: Path, as_json: bool) -> None:
    """Say what sppnet runs on, what is wrong with it and how to mend that, as text to paste into a report.

    The exit code is 1 where something is wrong.
    """
    console.configure(json=as_json)
    found = dict(_examine(root))
    faults = {name: each for name, each in found.items() if each.remedy}
    if not as_json:
        width = max(map(len, found))
        for name, each in found.items():
            click.echo(f"{name:{width}}  {each.value}")
        for name, each in faults.items():
            click.echo(f"fault: {name}: {each.value}\n  {each.remedy}")
        click.echo(f"{len(faults)} fault{'s' * (len(faults) != 1)}" if faults else "no faults")
    say(as_json, {"checks": {name: each._asdict() for name, each in found.items()}, "faults": len(faults)})
    if faults:
        context.exit(1)


def _examine(root: Path) -> Iterator[tuple[str, Found]]:
    """Every check by its name; one that breaks is a fault."""
    checks: dict[str, Callable[[], Found]] = {
        "sppnet": _sppnet,
        "Python": lambda: check_python(sys.version_info[:3]),
        "system": _system,
        "torch": _torch,
        "devices": _devices,
        "OpenCV": lambda: check_opencv({name: _version(name) for name in _OPENCVS}),
        "libraries": _libraries,
        "threads": _threads,
        "linear library": _linear,
        "memory": lambda: check_memory(memory()),
        "shared memory": lambda: check_shared_memory(_SHARED_MEMORY),
        "disk": lambda: check_disk(root),
        "weights cache": _weights,
    }
    for name, check in checks.items():
        try:
            yield name, check()
        except Exception as error:  # noqa: BLE001 - whatever is broken here is what it looks for
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            yield name, Found(f"broken: {reason}", "install sppnet anew in a new environment: python -m venv")


def check_python(version: tuple[int, ...]) -> Found:
    """Python's version."""
    text = ".".join(map(str, version))
    value = f"{text} ({platform.python_implementation()}), {sys.executable}"
    if not _PYTHONS[0] <= version < _PYTHONS[1]:
        return Found(value, "sppnet wants Python 3.11.4 to 3.14: make a new environment with python3.12")
    return Found(value)


def check_opencv(versions: dict[str, str | None]) -> Found:
    """OpenCV's builds, which overwrite each other's files; only the first has what selective search needs."""
    installed = [name for name, version in versions.items() if version]
    value = ", ".join(f"{name} {versions[name]}" for name in installed) or "not installed"
    remedy = f"pip uninstall -y {' '.join(installed)}" if installed else ""
    remedy = f"{remedy}{'; ' * bool(remedy)}pip install {_OPENCVS[0]}"
    if installed != [_OPENCVS[0]]:
        return Found(value, remedy)
    import cv2

    if not hasattr(cv2, "ximgproc"):
        return Found(f"{value}, without ximgproc", remedy)
    return Found(value)


def check_torch(torch: str, torchvision: str, wanted: str | None) -> Found:
    """Versions of torch and torchvision, and the version of torch that this torchvision is built for."""
    value = f"{torch}, torchvision {torchvision}"
    if wanted is not None and torch.partition("+")[0] != wanted.partition("+")[0]:
        return Found(
            f"{value}, which is built for torch {wanted}",
            "pip install --upgrade --force-reinstall torch torchvision",
        )
    return Found(value)


def check_devices(gpus: list[str], built_for: str | None, driver: bool, mps: bool) -> Found:
    """The GPUs that torch sees, the CUDA that it is built for, whether NVIDIA's driver is there, and Apple's GPU."""
    value = ", ".join(["cpu", *gpus, *["mps"] * mps])
    if driver and built_for is None:
        return Found(
            f"{value}; torch is built without CUDA",
            "pip install --force-reinstall torch torchvision (from PyPI: with CUDA)",
        )
    if driver and not gpus:
        return Found(
            f"{value}; torch is built for CUDA {built_for} and sees no GPU",
            "compare `nvidia-smi`: update the driver, or unset CUDA_VISIBLE_DEVICES",
        )
    return Found(value)


def check_memory(total: float) -> Found:
    """Bytes of memory that this process may have."""
    if total < _LEAST_MEMORY:
        return Found(_gigabytes(total), "give --jobs 1 --workers 1 --max-memory 1, or a machine with 4 GB")
    return Found(_gigabytes(total))


def check_shared_memory(folder: Path) -> Found:
    """What the workers that load images share it through."""
    if not folder.is_dir():
        return Found("no limit of its own")
    total = shutil.disk_usage(folder).total
    if total < _LEAST_SHARED:
        return Found(_gigabytes(total), "docker run --shm-size 2g, or give --workers 0")
    return Found(_gigabytes(total))


def check_disk(root: Path) -> Found:
    """Room where runs go, and whether they can be written there."""
    place = next(each for each in (root.absolute(), *root.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    value = f"{_gigabytes(free)} free for {root}"
    if not os.access(place, os.W_OK):
        return Found(f"{place} cannot be written", "give --runs a folder of your own")
    if free < _LEAST_DISK:
        return Found(value, "sppnet runs prune --caches, or give --runs on another disk")
    return Found(value)


def memory() -> float:
    """Bytes of the machine, or of the container if that may have less."""
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for path in _MEMORY_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        limits += [float(text)] if text.isdecimal() else []
    return min(limits)


def _sppnet() -> Found:
    from sppnet_cli.provenance import PACKAGE, code_digest, commit

    at = commit()
    return Found(f"{__version__}, code {code_digest()}{f', commit {at[:7]}' if at else ''}, {PACKAGE}")


def _system() -> Found:
    from sppnet_cli.provenance import processor

    return Found(f"{platform.platform()}, {processor()}")


def _torch() -> Found:
    import torch
    import torchvision

    needs = importlib.metadata.requires("torchvision") or []
    wanted = next((m[1] for each in needs if (m := re.match(r"torch\s*\(?==([0-9.]+)", each))), None)
    return check_torch(torch.__version__, torchvision.__version__, wanted)


def _devices() -> Found:
    import torch

    gpus = [f"cuda:{k} {torch.cuda.get_device_name(k)}" for k in range(torch.cuda.device_count())]
    driver = shutil.which("nvidia-smi") is not None
    return check_devices(gpus, torch.version.cuda, driver, torch.backends.mps.is_available())


def _libraries() -> Found:
    names = ("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "numba", "pillow", "timm", "onnx")
    import numba  # noqa: F401 - the one of them that breaks with another NumPy

    return Found(", ".join(f"{name} {version}" for name in names if (version := _version(name))))


def _threads() -> Found:
    import torch

    from sppnet_cli.provenance import cores

    threads, given = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    value = f"torch takes {threads} of {cores()} cores" + (f" (OMP_NUM_THREADS={given})" if given else "")
    if threads > cores():
        return Found(value, "unset OMP_NUM_THREADS: more threads than cores wait for each other")
    return Found(value)


def _linear() -> Found:
    from sppnet_cli.errors import UsageError
    from sppnet_cli.kernels.linear import products
    from sppnet_cli.libraries import LIBRARY_VARIABLE, linear_library

    try:
        return Found(f"{linear_library()}, of {', '.join(products())}")
    except UsageError as error:
        return Found(str(error), f"unset {LIBRARY_VARIABLE}")


def _weights() -> Found:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    value = f"{folder}: {len(files)} files, {_gigabytes(sum(path.stat().st_size for path in files))}"
    place = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(place, os.W_OK):
        return Found(
            f"{value}; cannot be written",
            f"export TORCH_HOME={tempfile.gettempdir()}/torch, or give --weights FILE",
        )
    return Found(value)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
