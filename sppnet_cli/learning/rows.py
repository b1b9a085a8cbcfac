"""The examples of all classes' SVMs: one shared store of feature rows, in 16 bits and without their zeros.

A packed row is a mask with one bit per number, set where the number is not zero, followed by the numbers that are not
zero as halves.  It takes D / 8 bytes and 2 for each non-zero: less than 2 per number unless 94% of them are non-zero.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.errors import SppnetError

_WORD = 16  # bits of the mask per uint16
_MOST_ROWS = 1 << 26  # slots; the index of very short rows would be larger than the rows


class RowsFull(SppnetError):
    """Rows do not fit into the store's bound."""


def mask_words(dimension: int) -> int:
    """How many uint16 the mask of a row `(D,)` takes."""
    return -(-dimension // _WORD)


def pack(row: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The packed form of a row `(D,)`: `mask_words(D)` words of mask, then the bits of its non-zero halves."""
    halves = row.astype(np.float16).view(np.uint16)
    present = (halves & 0x7FFF) != 0  # minus zero is zero
    mask = np.zeros(2 * mask_words(len(row)), dtype=np.uint8)
    bits = np.packbits(present, bitorder="little")
    mask[: len(bits)] = bits
    return np.concatenate([mask.view(np.uint16), halves[present]])


class RowStore:
    """Packed rows, each kept as long as a class refers to it.

    Row `slot` is `words[start[slot] : stop[slot]]`; its first `mask` words are the mask.  The whole bound is reserved
    at once but takes memory only as rows fill it, so the store grows without copying.  New rows go behind the last one;
    at the end of the store the rows still in use are moved together.  A row's slot never changes.
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
        """Store rows `(n, D)` and return their slots `(n,)`, to which no class refers yet.

        Raises `RowsFull`, and leaves the store unchanged, when they do not fit into the bound.
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
            self.norms[slot] = self._norm(self._end, self._end + len(row))
            self._end += len(row)
        return np.array(slots, dtype=np.int64)

    def retain(self, slots: NDArray[np.int64]) -> None:
        """Count one more reference to each slot."""
        self._references[slots] += 1

    def release(self, slots: NDArray[np.int64]) -> None:
        """Count one reference less to each slot; a row without references makes room for others."""
        self._references[slots] -= 1
        gone = slots[self._references[slots] == 0]
        self.stop[gone] = self.start[gone]
        self._free.extend(gone.tolist())

    def _move_together(self) -> None:
        used = np.flatnonzero(self.stop[: self._used] > self.start[: self._used])
        end = 0
        for slot in used[np.argsort(self.start[used])]:
            start, stop = self.start[slot], self.stop[slot]
            self.words[end : end + stop - start] = self.words[start:stop]
            self.start[slot], self.stop[slot] = end, end + stop - start
            end += int(stop - start)
        self._end = end

    def state(self) -> dict[str, NDArray[Any]]:
        """All rows and references, for `restored`: views, valid until the store changes."""
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
        """The store that `state` describes.

        Raises `RowsFull` if its rows do not fit into `max_gib`, `ValueError` where they are not those whose norms it
        holds.
        """
        store = cls(dimension, max_gib)
        store._used, store._end = len(state["start"]), len(state["words"])
        if store._end > len(store.words) or store._used > len(store.start):
            raise store._full()
        used = slice(store._used)
        store.start[used], store.stop[used] = state["start"], state["stop"]
        store.norms[used], store._references[used] = state["norms"], state["references"]
        store.words[: store._end] = state["words"]
        store._free = state["free"].tolist()
        store.require(state["free"])
        for start, stop, norm in zip(store.start[used], store.stop[used], store.norms[used], strict=True):
            if stop == start:  # of a row that is gone
                continue
            if not 0 <= start < stop <= store._end:
                raise ValueError("a row lies outside of the store")
            if store._norm(start, stop) != norm:
                raise ValueError("a row is not the one that was stored")
        return store

    def require(self, slots: NDArray[np.int64]) -> None:
        """Raise `ValueError` unless `slots` `(n,)` are slots of the store."""
        if slots.ndim != 1 or slots.dtype != np.int64 or ((slots < 0) | (slots >= self._used)).any():
            raise ValueError("there are no such rows")

    def _norm(self, start: int, stop: int) -> np.float32:
        """The squared L2 norm of a row, which is kept with it."""
        values = self.words[start + self.mask : stop].view(np.float16)
        return np.float32(np.square(values, dtype=np.float64).sum())

    def _full(self) -> RowsFull:
        return RowsFull(f"the SVM rows outgrow {self._max_gib:g} GiB; allow more with --max-memory")
