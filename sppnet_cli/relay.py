"""One display for the stages that run side by side: what their processes say reaches the terminal through the first."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnContext
from typing import Any, NamedTuple, Self

from sppnet_cli import console

_LOOK_SECONDS = 0.2


class Said(NamedTuple):
    """A line of a stage."""

    label: str
    text: str
    style: str


class Progressed(NamedTuple):
    """How far a stage's loop is; `summary` None: it is over."""

    label: str
    description: str
    total: int | None
    done: int
    summary: str | None


class Relay:
    """The first process's side: shows what arrives, a bar for each loop on a terminal and lines elsewhere."""

    def __init__(self, context: SpawnContext) -> None:
        self._messages: Any = context.Queue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def settings(self) -> tuple[Any, Any, bool]:
        """What `relay_to` takes in another process."""
        return self._messages, console.settings(), console.is_terminal()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=2)  # a process that was ended may have left half a message

    def _show(self) -> None:
        on_terminal = console.is_terminal()
        with console.bars() if on_terminal else contextlib.nullcontext() as progress:
            tasks: dict[tuple[str, str], Any] = {}
            while True:
                try:
                    message = self._messages.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    if self._over.is_set():
                        return
                    continue
                if isinstance(message, Said):
                    console.say(f"{message.label}: {message.text}", message.style)
                elif progress is None:
                    if message.summary:
                        console.say(f"{message.label}: {message.description}: {message.summary}")
                else:
                    key = message[:2]
                    if message.summary is None:
                        progress.remove_task(tasks.pop(key))
                    elif key not in tasks:
                        title = f"{message.label}: {message.description}"
                        tasks[key] = progress.add_task(title, total=message.total, summary="")
                    else:
                        progress.update(tasks[key], completed=message.done, summary=message.summary)


class _ToFirst:
    """The sink of a process that makes stages."""

    def __init__(self, messages: Any, on_terminal: bool) -> None:
        self.on_terminal = on_terminal
        self.label = ""
        self._messages = messages

    def say(self, text: str, style: str) -> None:
        self._messages.put(Said(self.label, text, style))

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
        def show(count: int, summary: str | None) -> None:
            self._messages.put(Progressed(self.label, description, total, count, summary))

        if self.on_terminal:
            show(0, "")
        try:
            yield show
        finally:
            if self.on_terminal:
                show(0, None)


_to_first: _ToFirst | None = None


def relay_to(settings: tuple[Any, Any, bool]) -> None:
    """Let this process say everything to the one that gave these settings."""
    global _to_first
    messages, configured, on_terminal = settings
    _to_first = _ToFirst(messages, on_terminal)
    console.restore(configured, _to_first)


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Let what this process says begin with a stage's name."""
    assert _to_first is not None
    _to_first.label = label
    yield
