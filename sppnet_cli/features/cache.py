"""Arrays on disk, in 16 bits, that several processes share: read where that is quicker than computing them."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.atomic import atomic_path
from sppnet_cli.clock import Clock
from sppnet_cli.console import status, warn
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.memory import return_memory
from sppnet_cli.records import read_array

_TRIM = 50  # arrays computed until freed memory is given back, which takes a fifth of computing one
_RESERVE = 2e9  # bytes of the disk that are left for checkpoints and results
_HEADER = 128  # bytes of an .npy file before its array
_WEIGHED = 10  # arrays after which reading and computing are compared
_PATIENCE = 10.0  # seconds to wait for another process that is writing
_LOCK, _TOTAL = "lock", "bytes"  # files of all caches together: who writes, and how much there is


class FeatureCache:
    """Arrays in 16 bits, kept in `folder` while there is room; the others are computed each time.

    The same numbers come back either way.  `gigabytes` bounds all caches below `folder.parent` together, whichever
    processes fill them; what is there already is read in any case.  Only one process writes at a time: one that
    computes an array that another has written meanwhile, or that cannot write within some seconds, uses its own
    copy.  A broken file is computed again.  When the disk is full, or the folder cannot be written, a warning says
    so and nothing more is kept.

    With `weighed`, computing and reading are timed on the first arrays; where computing is quicker, nothing more is
    kept or read.
    """

    def __init__(self, folder: Path, gigabytes: float, *, weighed: bool) -> None:
        self.folder = folder
        self.gigabytes = gigabytes
        self.keeps = gigabytes > 0  # as long as there is room for more
        self._reads = True
        self._weighed = weighed
        self._computed = 0
        self._measured = False  # whether this cache has looked how much there is
        self._seconds: list[tuple[float, float]] = []  # to compute and to read an array

    def has(self, name: str) -> bool:
        """Whether the file `name` is there."""
        return (self.folder / name).is_file()

    def reads(self, name: str) -> bool:
        """Whether the file `name` is there and would be read."""
        return self._reads and self.has(name)

    def __call__(
        self, name: str, compute: Callable[[], Tensor], shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """What `compute` gives, from the file `name` or computed, on the CPU.

        In 16 bits, or in 32 where a number is too large for them.  A file that does not hold numbers of that `shape`
        (in which -1 stands for any length) is removed and computed again.
        """
        file = self.folder / name
        if self.reads(name):
            try:
                found = read_array(file, "it is made again")
                if found.dtype in (np.float16, np.float32) and _fits(found.shape, shape):
                    return torch.from_numpy(found)
                file.unlink()
            except DataError:
                with suppress(OSError):
                    file.unlink()
            except OSError:
                pass
        clock = Clock()
        value = compute()
        # Halves end at 65,504; what does not fit stays in 32 bits.
        fits = value.numel() == 0 or float(value.abs().max()) < 6e4
        stored = (value.half() if fits else value.float()).cpu()
        seconds = clock.lap()
        self._computed += 1
        if self._computed % _TRIM == 0:
            return_memory()
        if self.keeps:
            try:
                self._keep(file, stored.numpy())
                if self.keeps and self._weighed and len(self._seconds) < _WEIGHED:
                    self._weigh(file, seconds)
            except Timeout:
                pass
            except (OSError, SppnetError, NotImplementedError) as error:
                self.keeps = False
                warn(f"features are no longer cached but computed each time: {error}")
        return stored

    def _keep(self, file: Path, array: NDArray[np.floating]) -> None:
        root = self.folder.parent
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root / _LOCK, timeout=_PATIENCE):
            if file.is_file():  # another process has computed it meanwhile
                return
            if not self._reserve(array.nbytes + _HEADER):
                self.keeps = False
                status(
                    f"no room for more cached features (--cache-gb {self.gigabytes:g}, the disk's last "
                    f"{_RESERVE / 1e9:g} GB apart): the others are computed each time"
                )
                return
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)

    def _reserve(self, size: int) -> bool:
        """Add `size` bytes to the total of all caches, if they fit.  Only for the process that holds the lock."""
        root, budget = self.folder.parent, self.gigabytes * 1e9
        if size > shutil.disk_usage(root).free - _RESERVE:
            return False
        total = _total(root) if self._measured else None
        if total is None or total + size > budget:
            total, self._measured = _measure(root), True
        if total + size > budget:
            return False
        (root / _TOTAL).write_text(str(total + size))
        return True

    def _weigh(self, file: Path, computing: float) -> None:
        self._seconds.append((computing, _seconds_to_read(file)))
        if len(self._seconds) == _WEIGHED:
            computing, reading = np.median(self._seconds, axis=0)  # the first computations are slow
            if reading > computing:
                self.keeps = self._reads = False
                status(
                    f"conv5 maps are not cached: computing one takes {1e3 * computing:.1f} ms, "
                    f"reading it back {1e3 * reading:.1f} ms"
                )


def _fits(found: tuple[int, ...], shape: tuple[int, ...] | None) -> bool:
    if shape is None:
        return True
    return len(found) == len(shape) and all(
        wanted in (-1, own) for own, wanted in zip(found, shape, strict=True)
    )


def _total(root: Path) -> int | None:
    """What the last writer noted; None where it did not come to that."""
    try:
        return int((root / _TOTAL).read_text())
    except (OSError, ValueError):
        return None


def _measure(root: Path) -> int:
    """Bytes of all arrays below `root`; what killed writers left behind is removed."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if name.endswith(".tmp"):
                path.unlink(missing_ok=True)
            elif name not in (_LOCK, _TOTAL):
                with suppress(FileNotFoundError):
                    total += path.stat().st_size
    return total


def _seconds_to_read(file: Path) -> float:
    """Time to read an array back from the disk, not from the system's memory where that can be told apart."""
    with file.open("rb") as stream:
        if hasattr(os, "posix_fadvise"):
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    clock = Clock()
    read_array(file, "")
    return clock.lap()
