"""Work on many images in threads: OpenCV, Pillow and NumPy let them compute side by side."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from sppnet_cli.console import track

_CHUNK = 64  # items that a thread takes at once
T = TypeVar("T")
R = TypeVar("R")


def on_all_cores(work: Callable[[T], R], items: Sequence[T], description: str) -> list[R]:
    """What `work` gives for each item, in their order, with progress; warnings are not shown."""
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    pool = ThreadPoolExecutor()
    try:
        with warnings.catch_warnings(action="ignore"):  # here, since threads share the filters
            done = pool.map(lambda chunk: [work(item) for item in chunk], chunks)
            return list(track(chain.from_iterable(done), description, len(items)))
    finally:
        pool.shutdown(cancel_futures=True)
