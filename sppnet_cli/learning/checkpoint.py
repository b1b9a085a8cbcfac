"""What a training run leaves after each epoch, whole or not at all."""

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
        except RuntimeError:  # how torch tells of a failed write
            raise OSError("the write failed: is the disk full?") from None


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU; None where there is nothing.  Raises `DataError` where it is broken."""
    if not path.is_file():
        return None
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # noqa: BLE001 - the unpickler raises anything on what is broken
        raise DataError(f"{path}: broken checkpoint; remove it to start over") from None
