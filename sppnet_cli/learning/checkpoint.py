"""Checkpoints of a training run: the old one stays until the new one is completely written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppnet_cli.atomic import atomic_path
from sppnet_cli.errors import DataError, SppnetError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain values); the previous checkpoint stays until the new one is whole.

    Raises `SppnetError` where the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        except RuntimeError:  # what torch raises for a failed write
            raise OSError("the write failed: is the disk full?") from None


def load_checkpoint(path: Path, counter: str, most: int, *, mmap: bool = False) -> dict[str, Any] | None:
    """What `save_checkpoint` wrote, on the CPU, or None if there is no file.

    Args:
        path: the file.
        counter: the entry that says how far the training is.
        most: how far it can be.
        mmap: map the tensors from the file and read them only when used.

    Raises `DataError` if the file is broken, holds a number that is not finite, or counts further than `most`.
    """
    if not path.is_file():
        return None
    with restoring(path):
        state = dict(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap))
        _require_finite(state, "it")
        if type(state[counter]) is not int or not 0 <= state[counter] <= most:
            raise ValueError(f"{counter} is {state[counter]!a:.30}, not between 0 and {most}")
        return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a checkpoint's state is put back is a `DataError` that names the file."""
    try:
        yield
    except (MemoryError, SppnetError):
        raise
    except Exception as error:  # noqa: BLE001 - the unpickler and torch raise anything on what is broken
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{path}: broken checkpoint; remove it to start over ({reason})") from None


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict`; raises `ValueError` for the state of another optimizer or other parameters."""
    before = [_fixed(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    if [_fixed(group) for group in optimizer.param_groups] != before:
        raise ValueError("the optimizer has other settings")
    for parameter, kept in optimizer.state.items():
        if any(isinstance(v, Tensor) and v.ndim and v.shape != parameter.shape for v in kept.values()):
            raise ValueError("the optimizer's state is of other parameters")


def require_like(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless `state` has the entries of `own`, each of the same type."""
    if {name: type(value) for name, value in state.items()} != {k: type(v) for k, v in own.items()}:
        raise ValueError("the schedule has other entries")


def _fixed(group: Mapping[str, Any]) -> dict[str, Any]:
    """What does not change while a group of parameters is trained."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


def _require_finite(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, inside in value.items():
            _require_finite(inside, str(key))
    elif isinstance(value, list | tuple):
        for inside in value:
            _require_finite(inside, name)
    elif isinstance(value, Tensor) and (
        value.is_complex() or (value.is_floating_point() and not value.isfinite().all())
    ):
        raise ValueError(f"{name} holds numbers that are not finite")
