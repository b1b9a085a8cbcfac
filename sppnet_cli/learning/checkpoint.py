"""Checkpoints of a training run: the old one stays until the new one is completely written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sppnet_cli.atomic import atomic_path
from sppnet_cli.errors import DataError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain values); the previous checkpoint stays until the new one is whole.

    Raises `SppnetError` where the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError:  # what torch raises for a failed write
            raise OSError("the write failed: is the disk full?") from None


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU, or None if there is no file.  Raises `DataError` if it is broken.

    With `mmap` the tensors are mapped from the file and read only when used.
    """
    if not path.is_file():
        return None
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
    except Exception:  # noqa: BLE001 - the unpickler raises anything on what is broken
        raise DataError(f"{path}: broken checkpoint; remove it to start over") from None
