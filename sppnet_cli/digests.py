"""What stands for values, files and folders in the identity of a result: hashes of 16 hexadecimal digits."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sppnet_cli.files import is_hidden


def digest_of(value: Any) -> str:
    """Hash of a value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Hash of a file's bytes."""
    status = path.stat()
    return _file_digest(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.cache
def _file_digest(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def files_digest(paths: Sequence[Path]) -> str:
    """What stands for files, in their order: a hash of their folders' names, their own and their sizes."""
    digest = hashlib.sha256()
    for path in paths:
        # Names are bytes, which need not be text.
        digest.update(os.fsencode(f"{path.absolute().parent.name}/{path.name} {_size(path)}\n"))
    return digest.hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Hash of the names and sizes of all visible files below: what a system hides in a folder changes nothing."""
    found = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        paths = [Path(base) / name for name in files if not is_hidden(name)]
        found += [(str(path.relative_to(folder)), _size(path)) for path in paths]
    return digest_of(sorted(found))


def _size(path: Path) -> int:
    """Bytes of a file; -1 for a link to nothing."""
    return path.stat().st_size if os.path.exists(path) else -1  # noqa: PTH110 - `Path.exists` may raise
