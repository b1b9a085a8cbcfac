"""Run directories: what a stage made is complete or absent, and says what it was made from, by what, on what."""

import contextlib
import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from sppnet_cli.atomic import write_json
from sppnet_cli.console import warn
from sppnet_cli.digests import digest_of, file_digest, folder_digest
from sppnet_cli.distributed import barrier, from_first, world
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.files import path_text, visible
from sppnet_cli.libraries import linear_library, linear_library_of
from sppnet_cli.memory import peak_memory, return_memory
from sppnet_cli.provenance import code_digest, command_line, commit, environment, machine
from sppnet_cli.records import read_json_as

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.pt"  # the state that a long build saves and resumes from
_STARTED = "started.json"
_LOCK = ".lock"
_PARTIAL = ".partial"
_START, _DONE = "start", "done"
_UNKNOWN = "an unknown version"


@dataclass(frozen=True)
class Identity:
    """What decides a result: the stage's name, its config in JSON's types, and the digests of its inputs."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        return digest_of(dataclasses.asdict(self))


@dataclass(frozen=True)
class _Manifest:
    """What `manifest.json` says of a complete run; the fields with a default are for the user's information."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    content: dict[str, str] = field(default_factory=dict)
    code: str = _UNKNOWN  # with which it was begun
    commit: str | None = None
    command: str = ""
    date: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_gib: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


def identity(stage: str, config: Any, inputs: Mapping[str, str]) -> Identity:
    """The identity of a stage's result; `config` is a frozen dataclass, `inputs` maps names to digests."""
    return Identity(stage, _plain(config), dict(inputs))


@dataclass(frozen=True)
class _Started(Identity):
    """What `started.json` says of a run that is being made; when it is resumed it keeps the code and the library."""

    code: str = _UNKNOWN
    commit: str | None = None
    library: str | None = None  # that computes fully connected layers


def _begin(wanted: Identity) -> _Started:
    return _Started(
        **dataclasses.asdict(wanted), code=code_digest(), commit=commit(), library=linear_library()
    )


def make_run(
    out: Path,
    wanted: Identity,
    build: Callable[[Path], None],
    *,
    sources: Mapping[str, Path] | None = None,
    together: bool = False,
    unfinished: Callable[[Path], bool] | None = None,
    remake: bool = False,
) -> None:
    """Make the run directory `out` with `build(folder)`, unless it is there already.

    The stage writes beside the final name, in `<out>.partial`, which is renamed when it is complete.  A call that
    finds `out` of the same identity returns at once; one that finds another identity, complete or cut off, raises
    `UsageError` naming the fields and inputs that differ.  `build` may find there what an earlier call of the same
    identity left when it was cut off, and resume from it; a call that leaves nothing to resume from leaves no folder
    either, and a complete run has no `CHECKPOINT` any more.

    Of several processes of `torchrun` the first one builds while the others wait; with `together`, all call `build`
    on the same folder (on a file system that they share) and divide the work among themselves.

    Args:
        out: the run directory.
        wanted: its identity.
        build: writes what the stage makes into the folder it is given.
        sources: the paths of the inputs, for the manifest.
        together: several processes build together.
        unfinished: a complete run for which `unfinished(out)` is true is resumed.
        remake: a complete run is made anew; the old one stays until the new one is complete.
    """
    if world().size == 1:
        _make(out, wanted, build, sources or {}, unfinished, remake)
        return
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
            _make(out, wanted, start, sources or {}, unfinished, remake)
        except SppnetError as error:
            if not started:  # the others wait for a word; once they build, they notice by themselves
                from_first(error)
            raise
        from_first(_DONE)
        return
    word = from_first(None)
    if word == _START:
        build(_partial(out))
        barrier()
        word = from_first(None)
    if isinstance(word, SppnetError):
        raise word


def _make(
    out: Path,
    wanted: Identity,
    build: Callable[[Path], None],
    sources: Mapping[str, Path],
    unfinished: Callable[[Path], bool] | None,
    remake: bool,
) -> None:
    if is_run(out):
        require_same(out, wanted)
        if not remake:
            if unfinished is None or not unfinished(out):
                _tidy(out)
                return
            _reopen(out, wanted)
    elif out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is no folder; give another --out")
    elif out.exists() and any(out.iterdir()):
        raise UsageError(
            f"{out}: is there already and was not made by sppnet {wanted.stage}; give another --out"
        )
    if out.resolve() == Path.cwd():
        raise UsageError(f"{out}: is the current folder, which a run cannot replace; give --out a new name")
    partial = _partial(out)
    new = [folder for folder in partial.parents if not folder.exists()]
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SppnetError(f"{out}: cannot be made ({error.strerror}); choose another folder") from None
    with _locked(partial, out, remake):
        started = partial / _STARTED
        for left in partial.glob(".*.tmp"):  # by a writer that was killed
            left.unlink()
        begun = _begin(wanted)
        resumed = _resumed(partial, begun, remake)
        if resumed is None:
            _empty(partial)
            write_json(started, dataclasses.asdict(begun))
        begun = resumed or begun
        begin = time.perf_counter()
        try:
            with linear_library_of(begun.library):
                build(partial)
        except BaseException:
            if world().size == 1 and not _holds_work(partial):  # several may still write there
                shutil.rmtree(partial, ignore_errors=True)
                with contextlib.suppress(OSError):  # not empty
                    for folder in new:
                        folder.rmdir()
            raise
        return_memory()
        started.unlink()
        manifest = _Manifest(
            **dataclasses.asdict(wanted),
            fingerprint=wanted.digest,
            content=content(partial),
            code=begun.code,
            commit=begun.commit,
            command=command_line(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            sources={name: path_text(str(path.absolute())) for name, path in sources.items()},
            seconds=round(time.perf_counter() - begin, 3),
            peak_memory_gib=round(peak_memory(), 2),
            machine=machine() | ({"library": begun.library} if begun.library else {}),
            environment=environment(),
        )
        write_json(partial / MANIFEST, dataclasses.asdict(manifest))
        if out.exists():
            shutil.rmtree(out)  # an empty folder, or the run that is made anew
        partial.rename(out)
    _tidy(out)


def _resumed(partial: Path, now: _Started, remake: bool) -> _Started | None:
    """How the run was begun that a call left here; None where there is nothing to resume.

    What other code began is resumed with a warning, and started over for `remake`.
    """
    started = partial / _STARTED
    if not (started.is_file() and _holds_work(partial)):
        return None
    found = read_json_as(_Started, started, remedy="start over with --no-resume")
    _require_equal(partial, found, now)
    if found.code == now.code:
        return found
    if remake:
        return None
    warn(f"{partial}: resumed, though begun by other code; --no-resume starts over")
    return found


def content(folder: Path) -> dict[str, str]:
    """The hash of each file right in a run directory; of a folder in it, of the names and sizes below."""
    entries = [path for path in visible(folder) if path.name not in (MANIFEST, CHECKPOINT)]
    return {path.name: folder_digest(path) if path.is_dir() else file_digest(path) for path in entries}


def require_intact(run: Path) -> None:
    """Raise `DataError` where a file of a run is missing or, for weights and tables, was changed since it was made."""
    recorded = read_manifest(run).get("content", {})
    for name, written in recorded.items():
        path = run / name
        if not path.exists():
            raise DataError(f"{path}: is missing; remove {run} and repeat the command that made it")
        if path.suffix in (".safetensors", ".json", ".csv") and file_digest(path) != written:
            raise DataError(
                f"{path}: was changed after sppnet wrote it; restore it, or remove {run} to have it made anew"
            )


def is_run(folder: Path) -> bool:
    """Whether a folder is a complete run directory."""
    return (folder / MANIFEST).is_file()


def _tidy(out: Path) -> None:
    """Remove what a complete run needs no more; also what a call that was killed here left."""
    for name in (CHECKPOINT, _LOCK):
        with contextlib.suppress(OSError):
            (out / name).unlink()


def _reopen(out: Path, wanted: Identity) -> None:
    """Turn a complete run into one that was cut off."""
    made = read_manifest(out)
    begun = _Started(
        **dataclasses.asdict(wanted),
        code=made["code"],
        commit=made["commit"],
        library=made["machine"].get("library"),
    )
    write_json(out / _STARTED, dataclasses.asdict(begun))
    try:
        out.rename(_partial(out))
    except OSError as error:
        raise SppnetError(f"{out}: cannot be resumed ({error.strerror}); remove it") from None
    (_partial(out) / MANIFEST).unlink()


def is_partial(folder: Path) -> bool:
    """Whether a folder is what a call that was cut off left, or that is being made."""
    return folder.suffix == _PARTIAL and folder.is_dir()


def in_use(partial: Path) -> bool:
    """Whether a process makes a run in this folder right now."""
    if not (partial / _LOCK).exists():
        return False
    try:
        with filelock.FileLock(partial / _LOCK, timeout=0, thread_local=False):
            return False
    except filelock.Timeout:
        return True


def discard_partial(out: Path) -> None:
    """Remove what a call that was cut off left of `out`."""
    shutil.rmtree(_partial(out), ignore_errors=True)


def _partial(out: Path) -> Path:
    return out.with_name(out.name + _PARTIAL)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete run directory.  Raises `DataError` where there is none."""
    if not is_run(folder):
        raise DataError(f"{folder}: not a complete run directory (no {MANIFEST}); name a run of sppnet")
    remedy = f"so {folder} is not a complete run directory: remove it, or name another"
    return dataclasses.asdict(read_json_as(_Manifest, folder / MANIFEST, remedy=remedy))


def fingerprint(path: Path) -> str:
    """What stands for a path in an identity: a run's own digest, a file's hash, a folder's names and sizes."""
    if is_run(path):
        require_intact(path)
        return str(read_manifest(path)["fingerprint"])
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        what = "is neither a regular file nor a folder" if path.exists() else "no such file or folder"
        raise DataError(f"{path}: {what}")
    return _folder_digest(path.resolve())


@functools.cache
def _folder_digest(folder: Path) -> str:
    return folder_digest(folder)  # ImageNet's is worth taking once a process


def _plain(config: Any) -> Any:
    # Through JSON, so that what was read back compares equal (tuples become lists).
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def require_same(out: Path, wanted: Identity) -> None:
    """Raise `UsageError` naming what differs where the run in `out` is not of the identity `wanted`."""
    manifest = read_manifest(out)
    _require_equal(out, Identity(manifest["stage"], manifest["config"], manifest["inputs"]), wanted)


def _require_equal(out: Path, found: Identity, wanted: Identity) -> None:
    begun = out.suffix == _PARTIAL
    if found.stage != wanted.stage:
        raise UsageError(f"{out}: holds the result of {found.stage}; give another --out")
    settings = "; ".join(
        f"{name} was {before!r}, not {now!r}"
        for name, before, now in differences(found.config, wanted.config)
    )
    sources = ", ".join(name for name, _, _ in differences(found.inputs, wanted.inputs))
    reasons = [f"with other settings: {settings}"] if settings else []
    reasons += [f"from other sources: {sources}"] if sources else []
    if reasons:
        raise UsageError(
            f"{out}: {'begun' if begun else 'made'} {', and '.join(reasons)}. "
            + ("Start over with --no-resume" if begun else "Remove it")
            + " or give another --out"
        )


def differences(
    found: dict[str, Any], wanted: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of what differs between two configs; of a setting that has parts the parts, as `recipe.rate`."""
    for name in sorted({*found, *wanted}):
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from differences(before, now, f"{prefix}{name}.")
        elif before != now:
            yield prefix + name, before, now


def _holds_work(partial: Path) -> bool:
    """Whether a call that was cut off left a file to resume from."""
    return any(
        path.is_file() and path not in (partial / _STARTED, partial / _LOCK) for path in partial.rglob("*")
    )


@contextlib.contextmanager
def _locked(partial: Path, out: Path, remake: bool) -> Iterator[None]:
    # `is_singleton=False` and a lock object a call: the lock belongs to the call, not to the process.
    lock = filelock.FileLock(partial / _LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
        if is_run(out) and not remake:  # renamed since we looked
            lock.release()
            raise filelock.Timeout(str(out))
    except (filelock.Timeout, FileNotFoundError):
        raise SppnetError(f"{out}: another process is making it; wait for it or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
