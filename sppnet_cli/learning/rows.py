"""One store of feature rows, in 16 bits, that the SVMs of all classes share."""

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.errors import SppnetError


class RowStore:
    """Rows `(R, D)` float16 that live as long as a class refers to them.

    The whole bound is reserved at once but costs memory only as rows fill it, so that growing never copies.
    """

    def __init__(self, dimension: int, max_gib: float) -> None:
        self._max_gib = max_gib
        capacity = max(1, int(max_gib * 2**30 / (2 * dimension)))
        self.rows: NDArray[np.float16] = np.empty((capacity, dimension), dtype=np.float16)
        self.norms: NDArray[np.float32] = np.zeros(capacity, dtype=np.float32)
        self._references = np.zeros(capacity, dtype=np.int32)
        self._free: list[int] = []
        self._used = 0

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Slots `(n,)` of new rows `(n, D)`, which nobody refers to yet.

        Raises `SppnetError` when they do not fit into the bound.
        """
        reusable = min(len(self._free), len(features))
        fresh = range(self._used, self._used + len(features) - reusable)
        if fresh.stop > len(self.rows):
            raise SppnetError(f"the SVM rows outgrow {self._max_gib:g} GiB; allow more with --max-memory")
        reused = [self._free.pop() for _ in range(reusable)]
        self._used = fresh.stop
        slots = np.array([*reused, *fresh], dtype=np.int64)
        self.rows[slots] = features
        self.norms[slots] = np.einsum("nd,nd->n", features, features)
        return slots

    def retain(self, slots: NDArray[np.int64]) -> None:
        """Count one more reference to each slot."""
        self._references[slots] += 1

    def release(self, slots: NDArray[np.int64]) -> None:
        """Count one reference less; rows without any are free for others."""
        self._references[slots] -= 1
        self._free.extend(slots[self._references[slots] == 0].tolist())
