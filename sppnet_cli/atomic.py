"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sppnet_cli.errors import SppnetError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; on leaving without an exception it becomes `path`, else it goes.

    Raises `SppnetError` naming `path` when it cannot be written (no permission, no such folder, disk full).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise SppnetError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value`, of JSON types, to `path` atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
