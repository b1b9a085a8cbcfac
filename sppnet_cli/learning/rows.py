"""One store of feature rows, in 16 bits and without their zeros, that the SVMs of all classes share."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.errors import SppnetError
from sppnet_cli.learning.packed import mask_words, pack

_MOST_ROWS = 1 << 26  # slots; short rows would want an index larger than themselves


class RowsFull(SppnetError):
    """Rows do not fit into the store's bound."""


class RowStore:
    """Packed rows (`learning.packed`) that live as long as a class refers to them.

    Row `slot` is `words[start[slot] : stop[slot]]`, of which the first `mask` are its mask.  The whole bound is
    reserved at once but costs memory only as rows fill it, so that growing never copies.  Rows come one behind the
    other; when the end is reached, those that live are moved together.  Slots stay what they are.
    """

    def __init__(self, dimension: int, max_gib: float) -> None:
        self.dimension = dimension
        self.mask = mask_words(dimension)
        self._max_gib = max_gib
        self.words: NDArray[np.uint16] = np.empty(int(max_gib * 2**29), dtype=np.uint16)
        capacity = min(len(self.words) // self.mask, _MOST_ROWS)  # of rows of zeros
        self.start: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.stop: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.norms: NDArray[np.float32] = np.zeros(capacity, dtype=np.float32)  # squared L2
        self._references = np.zeros(capacity, dtype=np.int32)
        self._free: list[int] = []
        self._used = 0  # slots
        self._end = 0  # words

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Slots `(n,)` of new rows `(n, D)`, which nobody refers to yet.

        Raises `RowsFull`, and stays as it was, when they do not fit into the bound.
        """
        rows = [pack(row) for row in features]
        needed = sum(map(len, rows))
        if self._end + needed > len(self.words):
            self._move_together()
        slots_left = len(self.start) - self._used + len(self._free)
        if self._end + needed > len(self.words) or len(rows) > slots_left:
            raise self._full()
        reused = [self._free.pop() for _ in range(min(len(self._free), len(rows)))]
        fresh = range(self._used, self._used + len(rows) - len(reused))
        self._used = fresh.stop
        slots = [*reused, *fresh]
        for slot, row in zip(slots, rows, strict=True):
            self.start[slot], self.stop[slot] = self._end, self._end + len(row)
            self.words[self._end : self._end + len(row)] = row
            self.norms[slot] = np.square(row[self.mask :].view(np.float16), dtype=np.float64).sum()
            self._end += len(row)
        return np.array(slots, dtype=np.int64)

    def retain(self, slots: NDArray[np.int64]) -> None:
        """Count one more reference to each slot."""
        self._references[slots] += 1

    def release(self, slots: NDArray[np.int64]) -> None:
        """Count one reference less; rows without any make room for others."""
        self._references[slots] -= 1
        gone = slots[self._references[slots] == 0]
        self.stop[gone] = self.start[gone]
        self._free.extend(gone.tolist())

    def _move_together(self) -> None:
        living = np.flatnonzero(self.stop[: self._used] > self.start[: self._used])
        end = 0
        for slot in living[np.argsort(self.start[living])]:
            start, stop = self.start[slot], self.stop[slot]
            self.words[end : end + stop - start] = self.words[start:stop]
            self.start[slot], self.stop[slot] = end, end + stop - start
            end += int(stop - start)
        self._end = end

    def state(self) -> dict[str, NDArray[Any]]:
        """All rows and references, for `restored`: views, to be used before the store changes."""
        self._move_together()
        used = self._used
        return {
            "words": self.words[: self._end],
            "start": self.start[:used],
            "stop": self.stop[:used],
            "norms": self.norms[:used],
            "references": self._references[:used],
            "free": np.array(self._free, dtype=np.int64),
        }

    @classmethod
    def restored(cls, dimension: int, max_gib: float, state: Mapping[str, NDArray[Any]]) -> Self:
        """The store whose `state` it was.  Raises `RowsFull` where the bound is lower now."""
        store = cls(dimension, max_gib)
        store._used, store._end = len(state["start"]), len(state["words"])
        if store._end > len(store.words) or store._used > len(store.start):
            raise store._full()
        used = slice(store._used)
        store.start[used], store.stop[used] = state["start"], state["stop"]
        store.norms[used], store._references[used] = state["norms"], state["references"]
        store.words[: store._end] = state["words"]
        store._free = state["free"].tolist()
        return store

    def _full(self) -> RowsFull:
        return RowsFull(f"the SVM rows outgrow {self._max_gib:g} GiB; allow more with --max-memory")
