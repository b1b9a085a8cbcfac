"""Files that are there whole or not at all."""

import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sppnet_cli.errors import SppnetError


def require_place(path: Path) -> None:
    """Raise `SppnetError` where a file `path` cannot be written, as far as that can be told before."""
    problem = None
    try:
        if not path.parent.is_dir():
            problem = "there is no such folder"
        elif not os.access(path.parent, os.W_OK):
            problem = "Permission denied"
        elif not stat.S_ISREG(path.stat().st_mode):
            problem = "it is no regular file"
    except FileNotFoundError:
        pass
    except OSError as error:
        problem = error.strerror or str(error)
    if not path.name:
        raise SppnetError(f"{path}: is no name for a file; choose another place")
    if problem:
        raise SppnetError(f"{path}: cannot be written ({problem}); choose another place")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; on leaving without an exception it becomes `path`, else it goes.

    Raises `SppnetError` naming `path` when it cannot be written (no permission, no such folder, disk full) or
    is a folder or device, which must not be replaced.
    """
    require_place(path)
    # Of a name that fills all 255 bytes, no longer one can be made.
    name = path.name if len(os.fsencode(path.name)) < 200 else f"{zlib.crc32(os.fsencode(path.name)):08x}"
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and str(error.filename) not in (str(temporary), str(path)):
            raise  # of another file, which it names
        raise SppnetError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8; the bytes of a file's name that are no text as `\\udce9`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value`, of JSON types, to `path` atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
