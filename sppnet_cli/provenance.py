"""Where a result comes from: the package's code, the commit, the versions and the machine."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from sppnet_cli import __version__
from sppnet_cli.files import path_text
from sppnet_cli.libraries import linear_library

PACKAGE = Path(__file__).parent
_LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "opencv-contrib-python-headless", "numba")


@functools.cache
def code_digest(package: Path = PACKAGE) -> str:
    """Hash of the names and contents of the package's own source files, 12 hexadecimal digits.

    The experiments, which read runs and make none, lie inside of an installed package and are left out.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if package / "experiments" in path.parents:
            continue
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@functools.cache
def commit(package: Path = PACKAGE) -> str | None:
    """The git commit that is checked out, or None where the package lies in no repository of its own."""
    root = package.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def code_name(manifest: dict[str, Any]) -> str:
    """How a message calls the code that made a run: by its commit, where it lay in a repository, and its digest."""
    made_at, code = manifest.get("commit"), manifest.get("code", "an unknown version")
    return f"{made_at[:7]}, {code}" if made_at else str(code)


@functools.cache
def environment() -> dict[str, Any]:
    """Versions of what computes, for manifests and the records of tables."""
    return {
        "sppnet": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": cores(),
        **{name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None  # another build of OpenCV, for one


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """`processor` (model), `system`, `threads` of torch now, `gpu` (or None), `library` of fully connected layers."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "system": _system(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "library": linear_library(),
    }


@functools.cache
def processor() -> str:
    """The processor's model, such as `AMD EPYC`, with its family and model numbers where the system gives them."""
    from torch.utils import collect_env

    fields: dict[str, str] = {}
    for line in (collect_env.get_cpu_info(collect_env.run) or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("Model name") or platform.processor() or platform.machine()
    if "CPU family" in fields and "Model" in fields:
        name += f" (family {fields['CPU family']}, model {fields['Model']})"
    return name


@functools.cache
def _system() -> str:
    from torch.utils import collect_env

    return str(collect_env.get_os(collect_env.run))


def command_line() -> str:
    """The command that runs, fit for a shell, its program without folders, after the `SPPNET_*` variables that it had."""
    variables = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("SPPNET_")]
    program = "sppnet" if Path(sys.argv[0]).name == "__main__.py" else Path(sys.argv[0]).name
    return path_text(shlex.join([*variables, program, *sys.argv[1:]]))
