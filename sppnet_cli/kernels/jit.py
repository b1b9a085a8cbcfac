"""Compiled kernels for the CPU, kept on disk for as long as no file that they may be made of changes."""

import functools
import hashlib
import inspect
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from sppnet_cli.atomic import atomic_path
from sppnet_cli.errors import SppnetError


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` with Numba at its first call, without the interpreter's lock; divisions by zero are not errors.

    Compiled code is kept where Numba keeps it (beside the source, else in the user's cache folder, else nowhere) and
    used again by later processes.  Numba itself looks only at the function's own file, though code of others is inlined;
    here the code is of all files in the function's folder and in this one, so what a kernel inlines must lie there.
    """
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # no folder can be written
        compiled._cache = _Cache(function)
    return compiled


class _Cache(FunctionCache):  # type: ignore[misc]  # Numba has no types
    """A file for each kernel, its sources, and the types and the processor that it was compiled for.

    Numba's own files share an index, which processes that compile at the same time spoil for each other.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._sources = _digest_of(Path(inspect.getfile(function)).parent)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        try:
            payload = pickle.loads(self._file(sig, target_context.codegen()).read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return self._impl.rebuild(target_context, payload)

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._impl.check_cachable(data):
            return
        file = self._file(sig, data.codegen)
        with suppress(SppnetError, OSError):  # the disk may be full
            with atomic_path(file) as temporary:
                temporary.write_bytes(dumps(self._impl.reduce(data)))
            for old in file.parent.glob(f"{self._impl.filename_base}-*.kernel"):
                if self._sources not in old.name:
                    old.unlink()

    def _file(self, sig: Any, codegen: Any) -> Path:
        key = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:16]
        return Path(self.cache_path) / f"{self._impl.filename_base}-{self._sources}-{key}.kernel"


@functools.cache
def _digest_of(folder: Path) -> str:
    """Of Numba's version and the sources in `folder` and beside this file."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted({*folder.glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]
