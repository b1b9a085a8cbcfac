"""Run directories: a stage's output is complete or absent, and says what it was made from."""

import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sppnet_cli import __version__
from sppnet_cli.atomic import write_text
from sppnet_cli.distributed import barrier, from_first, world
from sppnet_cli.errors import DataError, SppnetError, UsageError

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.pt"  # the state that a long build saves and goes on from
_STARTED = "started.json"
_LOCK = ".lock"
_PARTIAL = ".partial"
_START, _DONE = "start", "done"


def run_stage(
    out: Path,
    stage: str,
    config: Any,
    inputs: Mapping[str, str],
    build: Callable[[Path], None],
    *,
    together: bool = False,
    unfinished: Callable[[Path], bool] | None = None,
) -> Path:
    """Make the run directory `out` with `build(folder)`, unless it is there already.

    `config` is a frozen dataclass and `inputs` maps names to fingerprints.  The stage writes beside the final
    name, in `<out>.partial`, and is renamed when complete.  A call that finds `out` made from the same config
    and inputs returns at once; one that finds another config, complete or cut off, raises `UsageError` naming
    the fields and inputs that differ.  `build` may find there what an earlier call with the same config left when
    it was cut off, and resume; a call that leaves nothing to go on from leaves no folder either, and a complete run
    has no `CHECKPOINT` any more.  A complete run
    of which `unfinished(out)` holds is gone on with as if it had been cut off.

    Of several processes the first one builds while the others wait; with `together`, all call `build` on the
    same folder (on a file system that they share) and divide the work among themselves.
    """
    wanted = {"stage": stage, "config": _plain(config), "inputs": dict(inputs)}
    if world().size == 1:
        _make(out, wanted, build, unfinished)
        return out
    if world().first:
        started = False

        def start(folder: Path) -> None:
            nonlocal started
            if together:
                started = True
                from_first(_START)
            build(folder)
            if together:
                barrier()

        try:
            _make(out, wanted, start, unfinished)
        except SppnetError as error:
            if not started:  # the others wait for a word; once they build, they notice by themselves
                from_first(error)
            raise
        from_first(_DONE)
        return out
    word = from_first(None)
    if word == _START:
        build(_partial(out))
        barrier()
        word = from_first(None)
    if isinstance(word, SppnetError):
        raise word
    return out


def _make(
    out: Path,
    wanted: dict[str, Any],
    build: Callable[[Path], None],
    unfinished: Callable[[Path], bool] | None,
) -> None:
    if (out / MANIFEST).is_file():
        _require_same(out, read_manifest(out), wanted)
        if unfinished is None or not unfinished(out):
            _tidy(out)
            return
        _reopen(out, wanted)
    if out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out}: is there already and was not made by sppnet {wanted['stage']}; give another --out"
        )
    if out.resolve() == Path.cwd():
        raise UsageError(f"{out}: is the current folder, which a run cannot replace; give --out a new name")
    partial = _partial(out)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SppnetError(f"{out}: cannot be made ({error.strerror}); choose another folder") from None
    with _locked(partial, out):
        started = partial / _STARTED
        for left in partial.glob(".*.tmp"):  # by a writer that was killed
            left.unlink()
        found = json.loads(started.read_text() or "null") if started.is_file() else None
        if found is None or not _holds_work(partial):
            _empty(partial)
            write_text(started, json.dumps(wanted))
        else:
            _require_same(partial, found, wanted)
        begin = time.perf_counter()
        try:
            build(partial)
        except BaseException:
            if world().size == 1 and not _holds_work(partial):  # several may still write there
                shutil.rmtree(partial, ignore_errors=True)
            raise
        return_memory()
        manifest = wanted | {
            "fingerprint": _digest(wanted),
            "seconds": round(time.perf_counter() - begin, 3),
            "environment": environment(),
        }
        write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        started.unlink()
        if out.exists():
            out.rmdir()
        partial.rename(out)
    _tidy(out)


def _tidy(out: Path) -> None:
    """Remove what a complete run needs no more; also what a call that was killed here left."""
    for name in (CHECKPOINT, _LOCK):
        with contextlib.suppress(OSError):
            (out / name).unlink()


def _reopen(out: Path, wanted: dict[str, Any]) -> None:
    """Make a complete run one that was cut off."""
    write_text(out / _STARTED, json.dumps(wanted))
    try:
        out.rename(_partial(out))
    except OSError as error:
        raise SppnetError(f"{out}: cannot be gone on with ({error.strerror}); remove it") from None
    (_partial(out) / MANIFEST).unlink()


def _partial(out: Path) -> Path:
    return out.with_name(out.name + _PARTIAL)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete run directory.  Raises `DataError` where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if not {"stage", "config", "inputs", "fingerprint"} <= manifest.keys():
            raise ValueError
        return dict(manifest)
    except (OSError, ValueError, AttributeError):
        raise DataError(f"{folder}: not a complete run directory (no readable {MANIFEST})") from None


def fingerprint(path: Path) -> str:
    """What stands for `path` in a manifest: a run's own fingerprint, a file's hash, a folder's names and sizes."""
    if (path / MANIFEST).is_file():
        return str(read_manifest(path)["fingerprint"])
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    return _listing(path.resolve())


@functools.cache
def _listing(folder: Path) -> str:
    """Hash of the names and sizes below a data folder; ImageNet's is worth taking once a process."""
    names = (Path(base) / name for base, _, files in os.walk(folder) for name in files)
    return _digest(sorted((str(path.relative_to(folder)), path.stat().st_size) for path in names))


def return_memory() -> None:
    """Give freed memory back to the system: glibc keeps gigabytes of it where arrays had many sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def environment() -> dict[str, Any]:
    """Versions and machine, for manifests and table records."""
    packages = ("torch", "torchvision", "numpy", "scikit-learn", "opencv-contrib-python-headless", "numba")
    return {
        "sppnet": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _plain(config: Any) -> Any:
    # Through JSON, so that what was read back compares equal (tuples become lists).
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _require_same(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    begun = out.suffix == _PARTIAL
    if found["stage"] != wanted["stage"]:
        raise UsageError(f"{out}: holds the result of {found['stage']}; give another --out")
    settings = "; ".join(
        f"{name} was {before!r}, not {now!r}"
        for name, before, now in _differences(found["config"], wanted["config"])
    )
    sources = ", ".join(name for name, _, _ in _differences(found["inputs"], wanted["inputs"]))
    reasons = [f"with other settings: {settings}"] if settings else []
    reasons += [f"from other sources: {sources}"] if sources else []
    if reasons:
        raise UsageError(
            f"{out}: {'begun' if begun else 'made'} {', and '.join(reasons)}. "
            + ("Start over with --no-resume" if begun else "Remove it")
            + " or give another --out"
        )


def _differences(
    found: dict[str, Any], wanted: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of what differs; inside a setting that has parts the parts, as `recipe.rate`."""
    for name in sorted({*found, *wanted}):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            yield prefix + name, before, now


def _holds_work(partial: Path) -> bool:
    """Whether a call that was cut off left a file to go on from."""
    return any(
        path.is_file() and path not in (partial / _STARTED, partial / _LOCK) for path in partial.rglob("*")
    )


@contextlib.contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((partial / _LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (out / MANIFEST).is_file():  # renamed since we looked
                raise FileExistsError
        except (BlockingIOError, FileNotFoundError, FileExistsError):
            raise SppnetError(
                f"{out}: another process is making it; wait for it or give another --out"
            ) from None
        yield


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
