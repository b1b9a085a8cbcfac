"""Work on the next items while the present one is dealt with."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(
    executor: Executor, function: Callable[[Item], Made], items: Iterable[Item], count: int
) -> Iterator[Future[Made]]:
    """`function` of each item, in order, begun up to `count` items before it is taken.

    What it raises for an item is raised by that item's `result()`; the others are none the worse.
    """
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()
