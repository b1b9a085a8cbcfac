"""What lies in a folder of runs: complete runs, what differs between them, and what could be deleted."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sppnet_cli import runs
from sppnet_cli.building import in_use
from sppnet_cli.console import warn
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.provenance import code_digest

_CACHE = "cache"


@dataclass(frozen=True)
class Run:
    """A complete run directory."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """The name of the stage that made it."""
        return str(self.manifest["stage"])

    @property
    def date(self) -> datetime | None:
        """When it was complete; None: the manifest does not say."""
        try:
            found = datetime.fromisoformat(self.manifest["date"])
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    @property
    def other_code(self) -> bool:
        """Whether other code than this made it."""
        return self.manifest.get("code") != code_digest()

    def differences(self, config: Any) -> list[tuple[str, Any, Any]]:
        """Settings that are not those of another config of JSON's types: the name, the other's value, its own."""
        return list(runs.differences(config, self.manifest["config"]))


class Removable(NamedTuple):
    """A folder that could be deleted, and why."""

    folder: Path
    why: str


def find_runs(root: Path) -> list[Run]:
    """The complete runs below `root`, by their paths; the runs inside of others are theirs.

    One whose manifest cannot be read is warned of and left out.
    """
    found = []
    for folder in filter(runs.is_run, _folders(root)):
        try:
            found.append(read_run(folder))
        except DataError as error:
            warn(f"left out: {error}")
    return found


def read_run(folder: Path) -> Run:
    """One run.  Raises `DataError` where the folder is none."""
    return Run(folder, runs.read_manifest(folder))


def folder_size(folder: Path) -> int:
    """Bytes of the files below a folder; links count as nothing."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def caches(root: Path) -> list[Removable]:
    """Feature maps and vectors that are computed again when they are needed."""
    return [Removable(folder, "cache") for folder in _folders(root) if folder.name == _CACHE]


def unfinished(root: Path) -> list[Removable]:
    """What calls that were cut off left."""
    return [Removable(folder, "unfinished") for folder in _folders(root) if runs.is_partial(folder)]


def stale(found: Sequence[Run], named: dict[str, set[Path] | None]) -> list[Removable]:
    """Runs in whose place the command that made them would make another one today.

    `named` holds, by command, the folders that it names today, None where that cannot be told.  A run is stale where
    none of the commands names it, and its own names one that differs from it in the digest alone.
    """
    current = {folder.resolve() for folders in named.values() for folder in folders or ()}
    result = []
    for run in found:
        folders = named.get(str(run.manifest.get("command"))) or set()
        stem, _, digest = run.folder.name.rpartition("-")
        others = [
            each for each in folders if each.resolve().parent == run.folder.resolve().parent and stem
            and each.name.rpartition("-")[0] == stem and each.name.rpartition("-")[2] != digest
        ]  # fmt: skip
        if others and run.folder.resolve() not in current:
            result.append(Removable(run.folder, f"stale: now {others[0].name}"))
    return result


def require_idle(root: Path) -> None:
    """Raise `SppnetError` where a process makes a run below `root` right now."""
    for folder in _folders(root):
        if runs.is_partial(folder) and in_use(folder):
            raise SppnetError(f"{folder}: is being made; wait for it or end it before you delete")


def delete(found: Iterable[Removable]) -> None:
    """Delete folders.  Raises `SppnetError` naming the first that cannot be."""
    for each in found:
        try:
            shutil.rmtree(each.folder)
        except OSError as error:
            raise SppnetError(
                f"{each.folder}: cannot be deleted ({error.strerror}); check its permissions"
            ) from None


def compare(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """What differs between two runs: the stage, settings, inputs, code, versions; name and both values as text."""
    rows = [("stage", first.stage, second.stage)] if first.stage != second.stage else []
    rows += list(runs.differences(first.manifest["config"], second.manifest["config"]))
    rows += list(runs.differences(first.manifest["inputs"], second.manifest["inputs"], "inputs."))
    for name in ("code", "commit", "environment", "machine"):
        before, now = ({name: each.manifest.get(name)} for each in (first, second))
        rows += list(runs.differences(before, now))
    return [(name, as_text(before), as_text(now)) for name, before, now in rows]


def as_text(value: Any) -> str:
    """A value of JSON's types, in short."""
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)


def _folders(root: Path) -> Iterator[Path]:
    """Folders below `root` that are runs, parts of runs or caches, and not what lies in these."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --runs names the one that holds your runs")
    for folder in sorted(root.iterdir()):
        if folder.is_symlink() or not folder.is_dir():
            continue
        if runs.is_run(folder) or runs.is_partial(folder) or folder.name == _CACHE:
            yield folder
        else:
            yield from _folders(folder)
