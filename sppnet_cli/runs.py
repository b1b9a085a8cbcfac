"""Run directories: a complete one says what it was made from, by what, on what."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sppnet_cli.digests import digest_of, file_digest, folder_digest
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.files import visible
from sppnet_cli.records import read_json_as

MANIFEST = "manifest.json"
CHECKPOINT = "checkpoint.pt"  # the state that a long build saves and resumes from
UNKNOWN = "an unknown version"
_PARTIAL = ".partial"


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
class Manifest:
    """What `manifest.json` says of a complete run; the fields with a default are for the user's information."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: str
    content: dict[str, str] = field(default_factory=dict)
    code: str = UNKNOWN  # with which it was begun
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


def is_partial(folder: Path) -> bool:
    """Whether a folder is what a call that was cut off left, or that is being made."""
    return folder.suffix == _PARTIAL and folder.is_dir()


def partial_of(out: Path) -> Path:
    """The folder in which a run is made until it is complete."""
    return out.with_name(out.name + _PARTIAL)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete run directory.  Raises `DataError` where there is none."""
    if not is_run(folder):
        raise DataError(f"{folder}: not a complete run directory (no {MANIFEST}); name a run of sppnet")
    remedy = f"so {folder} is not a complete run directory: remove it, or name another"
    return dataclasses.asdict(read_json_as(Manifest, folder / MANIFEST, remedy=remedy))


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
    require_equal(out, Identity(manifest["stage"], manifest["config"], manifest["inputs"]), wanted)


def require_equal(out: Path, found: Identity, wanted: Identity) -> None:
    """Raise `UsageError` naming what differs between what a folder holds, or was begun there, and what is wanted."""
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
