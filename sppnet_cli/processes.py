"""Processes beside this one: they end with it, and no signal is lost while they start."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sppnet_cli import tune_process

_PARENT_SECONDS = 0.5  # between looks whether the parent still lives


def worker_pool(processes: int, prepare: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """A pool of spawned processes (torch's threads do not fork), each prepared by `prepare(*arguments)`.

    They leave Ctrl-C to this process, which ends them, and end with it, however it ends.
    """
    context = multiprocessing.get_context("spawn")
    start = (os.getpid(), prepare, arguments)
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=start)


def _start(parent: int, prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    tune_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    prepare(*arguments)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


@contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM that come meanwhile are dealt with afterwards.

    Python drops the exception of a handler that runs while a process forks, and the signal would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for held, handler in before.items():
            signal.signal(held, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)
