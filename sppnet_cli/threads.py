"""Threads for the kernels that torch has none for."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def share_out(work: Callable[[Part], object], parts: Sequence[Part]) -> None:
    """Call `work` on each of the parts, in as many threads as torch uses; they are kept, since new ones cost a ms."""
    threads = torch.get_num_threads()
    if len(parts) == 1 or threads == 1:
        for part in parts:
            work(part)
    else:
        list(_pool(threads).map(work, parts))


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """What `work` gives for each of the parts, each on a thread of its own that computes on as many as this one."""
    threads = torch.get_num_threads()

    def work_alike(part: Part) -> Result:
        torch.set_num_threads(threads)  # a thread keeps the number that it began with
        return work(part)

    return list(_callers(len(parts)).map(work_alike, parts))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


@functools.cache
def _callers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


for pool in (_pool, _callers):
    os.register_at_fork(after_in_child=pool.cache_clear)  # a forked process has none of the threads
