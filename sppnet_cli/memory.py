"""Memory of this process."""

import ctypes
import resource
import sys


def return_memory() -> None:
    """Give freed memory back to the system: glibc keeps gigabytes of it where arrays had many sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_memory() -> float:
    """GiB that this process had at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
