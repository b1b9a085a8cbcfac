"""Features of whole images on disk: a file `(N, D)` per layer, filled row by row, by several processes."""

import os
import shutil
from collections.abc import Mapping
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path
from sppnet_cli.distributed import barrier, world
from sppnet_cli.errors import DataError
from sppnet_cli.files import visible
from sppnet_cli.records import map_array, read_array

_PROGRESS = "progress"  # folder: per process, which rows were on disk when it last said so
_MARK_EVERY = 64  # rows
_AGAIN = "start over with --no-resume"


def layer_file(layer: str) -> str:
    """Name of the file of a layer: `SPP-pool5.npy`."""
    return f"{layer.replace(' ', '-')}.npy"


def read_features(folder: Path, layer: str) -> NDArray[np.float32]:
    """Features `(N, D)` of a layer, memory-mapped, of a run of `sppnet extract-features`.

    Raises `DataError` naming the file when it is missing or holds something else.
    """
    path = folder / layer_file(layer)
    if not path.exists():
        raise DataError(f"{path}: no features of {layer}; `sppnet extract-features` makes them")
    features = map_array(path, "extract the features anew")
    if features.dtype != np.float32 or features.ndim != 2:
        raise DataError(
            f"{path}: {features.dtype} array of shape {features.shape}, not float32 (N, D); extract it anew"
        )
    return features


class FeatureStore:
    """Files of the layers in `folder`, `(rows, dimensions[layer])` float32: new, or as an interrupted call left them.

    `done` `(rows,)` says which rows are there already, whichever process wrote them.  All processes open the store,
    each writes some of the rows inside `with`, and all call `finish` afterwards.
    """

    def __init__(self, folder: Path, rows: int, dimensions: Mapping[str, int]) -> None:
        self._progress = folder / _PROGRESS
        if world().first and not self._progress.is_dir():
            for layer, dimension in dimensions.items():
                open_memmap(folder / layer_file(layer), "w+", np.float32, (rows, dimension))
            self._progress.mkdir()
        barrier()
        self.done = np.zeros(rows, dtype=np.bool_)
        for path in visible(self._progress, "*.npy"):
            done = read_array(path, _AGAIN)
            if done.shape != (rows,) or done.dtype != np.bool_:
                raise DataError(f"{path}: does not say which of {rows} rows are done; {_AGAIN}")
            self.done |= done
        self._unmarked = 0
        self._paths = {layer: folder / layer_file(layer) for layer in dimensions}
        self._headers = {}
        for layer, dimension in dimensions.items():
            found = map_array(self._paths[layer], _AGAIN)
            if found.shape != (rows, dimension) or found.dtype != np.float32:
                raise DataError(
                    f"{self._paths[layer]}: is not of {rows} rows of {dimension} numbers; {_AGAIN}"
                )
            self._headers[layer] = self._paths[layer].stat().st_size - found.nbytes
        self._files: dict[str, BufferedRandom] = {}

    def write(self, row: int, features: Mapping[str, NDArray[np.float32]]) -> None:
        """Put the features `(D,)` of every layer into their row."""
        for layer, values in features.items():
            file = self._files[layer]
            file.seek(self._headers[layer] + row * values.nbytes)
            file.write(values.tobytes())
        self.done[row] = True
        self._unmarked += 1
        if self._unmarked == _MARK_EVERY:
            self._mark()

    def finish(self) -> None:
        """Wait for all processes and drop what is kept for resuming."""
        barrier()
        if world().first:
            shutil.rmtree(self._progress)

    def __enter__(self) -> Self:
        # Files and not maps: a full disk is then an error and not a signal.
        self._files = {layer: path.open("r+b") for layer, path in self._paths.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unmarked:
            self._mark()
        for file in self._files.values():
            file.close()

    def _mark(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        with atomic_path(self._progress / f"{world().rank}.npy") as temporary, temporary.open("wb") as mark:
            np.save(mark, self.done)
        self._unmarked = 0
