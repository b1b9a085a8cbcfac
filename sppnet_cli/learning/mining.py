"""How far the mining of hard negatives has come: the examples of all classes, which a cut-off run finds again."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from sppnet_cli.errors import DataError
from sppnet_cli.learning.checkpoint import save_checkpoint
from sppnet_cli.learning.rows import RowStore


@dataclass
class Examples:
    """A class's examples in the shared store and its present classifier."""

    slots: NDArray[np.int64]  # (n,), the positives first
    alpha: NDArray[np.float64]  # (n,) multipliers
    positives: int
    weights: NDArray[np.float32]  # (D,)
    offset: float = 0.0
    added: int = 0  # since the last training

    def add(self, slots: NDArray[np.int64]) -> None:
        """Take more negatives."""
        self.slots = np.concatenate([self.slots, slots])
        self.alpha = np.concatenate([self.alpha, np.zeros(len(slots))])
        self.added += len(slots)


@dataclass
class Mining:
    """All classes over one store, after the first `done` images."""

    scale: float  # of the features
    store: RowStore
    classes: list[Examples]
    done: int = 0

    def save(self, path: Path) -> None:
        """Write all of it, as large as the store is, to `path`; what was there stays until that is whole."""
        state = {
            "scale": self.scale,
            "done": self.done,
            "dimension": self.store.dimension,
            "store": _to_tensors(self.store.state()),
            "classes": [_to_tensors(vars(examples)) for examples in self.classes],
        }
        save_checkpoint(path, state)

    @classmethod
    def load(cls, path: Path, max_gib: float) -> Self | None:
        """What was saved, None where there is nothing.  Raises `DataError` where it is broken."""
        if not path.is_file():
            return None
        try:
            # Mapped, so that the rows go straight from the file into the store.
            state = torch.load(path, weights_only=True, mmap=True)
        except Exception:  # noqa: BLE001 - the unpickler raises anything on what is broken
            raise DataError(f"{path}: broken checkpoint; remove it to start over") from None
        store = RowStore.restored(state["dimension"], max_gib, _to_arrays(state["store"]))
        classes = [Examples(**_to_arrays(fields)) for fields in deepcopy(state["classes"])]
        return cls(state["scale"], store, classes, state["done"])


def _to_tensors(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in fields.items()}


def _to_arrays(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
