"""Making a run directory: beside its final name, under a lock, resumed where a call was cut off, renamed when it is whole."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock

from sppnet_cli.atomic import write_json
from sppnet_cli.console import warn
from sppnet_cli.distributed import barrier, from_first, world
from sppnet_cli.errors import SppnetError, UsageError
from sppnet_cli.files import path_text
from sppnet_cli.libraries import linear_library, linear_library_of
from sppnet_cli.memory import peak_memory, return_memory
from sppnet_cli.provenance import code_digest, command_line, commit, environment, machine
from sppnet_cli.records import read_json_as
from sppnet_cli.runs import (
    CHECKPOINT,
    MANIFEST,
    UNKNOWN,
    Identity,
    Manifest,
    content,
    is_run,
    partial_of,
    read_manifest,
    require_equal,
    require_same,
)

_STARTED = "started.json"
_LOCK = ".lock"
_START, _DONE = "start", "done"


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
        build(partial_of(out))
        barrier()
        word = from_first(None)
    if isinstance(word, SppnetError):
        raise word


def discard_partial(out: Path) -> None:
    """Remove what a call that was cut off left of `out`."""
    shutil.rmtree(partial_of(out), ignore_errors=True)


def in_use(partial: Path) -> bool:
    """Whether a process makes a run in this folder right now."""
    if not (partial / _LOCK).exists():
        return False
    try:
        with filelock.FileLock(partial / _LOCK, timeout=0, thread_local=False):
            return False
    except filelock.Timeout:
        return True


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
    partial = partial_of(out)
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
        manifest = Manifest(
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


@dataclass(frozen=True)
class _Started(Identity):
    """What `started.json` says of a run that is being made; when it is resumed it keeps the code and the library."""

    code: str = UNKNOWN
    commit: str | None = None
    library: str | None = None  # that computes fully connected layers


def _begin(wanted: Identity) -> _Started:
    return _Started(
        **dataclasses.asdict(wanted), code=code_digest(), commit=commit(), library=linear_library()
    )


def _resumed(partial: Path, now: _Started, remake: bool) -> _Started | None:
    """How the run was begun that a call left here; None where there is nothing to resume.

    What other code began is resumed with a warning, and started over for `remake`.
    """
    started = partial / _STARTED
    if not (started.is_file() and _holds_work(partial)):
        return None
    found = read_json_as(_Started, started, remedy="start over with --no-resume")
    require_equal(partial, found, now)
    if found.code == now.code:
        return found
    if remake:
        return None
    warn(f"{partial}: resumed, though begun by other code; --no-resume starts over")
    return found


def _holds_work(partial: Path) -> bool:
    """Whether a call that was cut off left a file to resume from."""
    return any(
        path.is_file() and path not in (partial / _STARTED, partial / _LOCK) for path in partial.rglob("*")
    )


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
        out.rename(partial_of(out))
    except OSError as error:
        raise SppnetError(f"{out}: cannot be resumed ({error.strerror}); remove it") from None
    (partial_of(out) / MANIFEST).unlink()


def _tidy(out: Path) -> None:
    """Remove what a complete run needs no more; also what a call that was killed here left."""
    for name in (CHECKPOINT, _LOCK):
        with contextlib.suppress(OSError):
            (out / name).unlink()


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
