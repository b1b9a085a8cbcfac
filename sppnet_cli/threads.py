"""Threads for the kernels that torch has none for."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")


def share_out(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Call `work` on each of the parts, in as many threads as torch uses; they are kept, since new ones cost a ms."""
    threads = torch.get_num_threads()
    if len(parts) == 1 or threads == 1:
        for part in parts:
            work(part)
    else:
        list(_pool(threads).map(work, parts))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads
