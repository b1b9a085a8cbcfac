"""Which of two libraries computes fully connected layers in float32 on a CPU: MKL (torch's own) or oneDNN.

The choice follows from the kind of processor, never from a timing, so that the same machine always gives the same bits.
Torch is imported inside the functions, so that the command line stays quick.
"""

import contextlib
import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from sppnet_cli.errors import UsageError

Library = Literal["onednn", "mkl"]

LIBRARY_VARIABLE = "SPPNET_LINEAR"
_CPUS = Path("/proc/cpuinfo")
_chosen: Library | None = None


def linear_library() -> Library:
    """The library in use: that of `use_linear_library`, of the environment's `SPPNET_LINEAR`, or the processor's.

    oneDNN on AMD's processors, where MKL leaves out the widest vectors; elsewhere MKL, torch's own choice.  Raises
    `UsageError` for an unknown name in the environment.
    """
    return _chosen or _default()


def use_linear_library(name: Library | None) -> None:
    """Take this library from now on, None: the default again.  Raises `UsageError` for one that is not there."""
    global _chosen
    _chosen = None if name is None else _known(name, "library of products")


@contextlib.contextmanager
def linear_library_of(name: str | None) -> Iterator[None]:
    """Compute by the library that an earlier call chose (None: by ours), as long as the block lasts."""
    before = _chosen
    if name is not None:
        use_linear_library(_known(name, "library of products"))
    try:
        yield
    finally:
        use_linear_library(before)


@functools.cache
def _default() -> Library:
    name = os.environ.get(LIBRARY_VARIABLE)
    if name:
        return _known(name, LIBRARY_VARIABLE)
    return "onednn" if _is_amd() and has_onednn() else "mkl"


def _known(name: str, origin: str) -> Library:
    for library in get_args(Library):
        if name == library:
            if name == "onednn" and not has_onednn():
                raise UsageError(f"{origin} {name!r}: this build of torch has no oneDNN; take mkl")
            return library
    raise UsageError(f"{origin} {name!r}: choose one of {', '.join(get_args(Library))}")


def has_onednn() -> bool:
    """Whether this build of torch has oneDNN."""
    import torch

    return torch.backends.mkldnn.is_available()


def _is_amd() -> bool:
    about = _CPUS.read_text() if _CPUS.is_file() else platform.processor()
    return "AuthenticAMD" in about
