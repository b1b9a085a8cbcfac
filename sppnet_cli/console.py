"""What the user sees: progress, messages and tables, in colour on a terminal and as plain lines elsewhere.

Results (tables) go to standard output, all else to standard error; under `--json` tables go there too, so
that standard output holds one JSON object.  rich is imported where a terminal needs it: `--help` is quick.
"""

import atexit
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from io import TextIOWrapper
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

T = TypeVar("T")

_SLOW = 2.0  # seconds from which on an iteration is worth a word
_BAR_INTERVAL = 0.1  # seconds between updates of a bar
_LINE_INTERVAL = 10.0  # seconds between lines off a terminal
_WIDTH = 80  # characters of a line of a table off a terminal, where it can be folded
_LEAST_FOLD = 16  # characters


@dataclass(frozen=True)
class _Settings:
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    silent: bool = False


_settings = _Settings()
_tallies: dict[tuple[str, str], dict[str, None]] = {}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def is_verbose() -> bool:
    """Whether `-v` was given."""
    return _settings.verbose


class Sink(Protocol):
    """Where another process's messages and progress go in place of the terminal."""

    on_terminal: bool

    def say(self, text: str, style: str) -> None:
        """A line."""

    def bar(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int, str], None]]:
        """The progress of a `track`: gives a function to be called with the count and a summary."""


_sink: Sink | None = None


def settings() -> Any:
    """What `configure` set, to be given to `restore` in another process."""
    return _settings


def restore(settings: Any, sink: Sink | None) -> None:
    """Say as much as the process whose `settings` these are, to `sink`."""
    global _settings, _sink
    _settings, _sink = settings, sink


def say(text: str, style: str = "") -> None:
    """A line as it is, whatever was configured."""
    _say(text, style)


def is_terminal() -> bool:
    """Whether messages go to a terminal."""
    return _is_terminal(sys.stderr)


def configure(
    *, quiet: bool = False, verbose: bool = False, json: bool = False, silent: bool = False
) -> None:
    """Set how much is said, for the whole process; called once by the command line.

    Args:
        quiet: no progress and no status lines; warnings, errors and tables stay.
        verbose: `detail` lines too.
        json: tables go to standard error.
        silent: nothing but errors, for all processes of several but the first.
    """
    global _settings
    _tallies.clear()
    _settings = _Settings(quiet or silent, verbose, json, silent)


def status(text: str) -> None:
    """A line about what is being done, unless quiet."""
    if not _settings.quiet:
        _say(text)


def detail(text: str) -> None:
    """A line for those who asked for `-v`."""
    if _settings.verbose and not _settings.quiet:
        _say(text)


def warn(text: str) -> None:
    """A line `warning: ...`, quiet or not."""
    if not _settings.silent:
        _say(f"warning: {text}", "yellow")


def error(text: str) -> None:
    """A line `error: ...`, quiet or not."""
    _say(f"error: {text}", "bold red")


def tally(where: str, what: str, item: str) -> None:
    """Note that `item` of the data set `where` was mended, as `what` says; `report_tallies` counts."""
    _tallies.setdefault((where, what), {})[item] = None


def report_tallies() -> None:
    """Warn of what was mended, in a line for each data set and kind, and forget it; the command line's last word."""
    for (where, what), items in _tallies.items():
        number = "1 image" if len(items) == 1 else f"{len(items)} images"
        warn(
            f"{where}: mended in {number} ({', '.join(list(items)[:3])}{', ...' if len(items) > 3 else ''}): {what}"
        )
    _tallies.clear()


def open_streams() -> None:
    """Make standard output and error take every text: of another encoding, and where they are closed.

    A character that a stream's encoding lacks is printed as `\\xe9`.  Called once by the command line.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell; the next file that is opened must not become it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_streams() -> None:
    """Write what the streams still hold; what they do not take is lost, and changes no exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    styles: Mapping[str, str] | None = None,
    fold: str | None = None,
) -> None:
    """Print a table: on a terminal with rules, elsewhere as aligned text; columns of numbers to the right.

    Args:
        title: one line.
        columns: the headings.
        rows: cells in the order of `columns`, printed by `str`; format numbers beforehand.
        styles: of rich, for the cells that hold exactly these texts; on a terminal alone.
        fold: the column whose cells are folded where lines of text would be longer than 80 characters; a terminal
            folds where it must.
    """
    if _settings.silent:
        return
    cells = [[str(cell).translate(_CONTROL) for cell in row] for row in rows]
    to_right = [_is_numeric([row[k] for row in cells]) for k in range(len(columns))]
    stream = sys.stderr if _settings.json else sys.stdout
    if not _is_terminal(stream):
        folded = cells if fold is None else _fold(columns, cells, columns.index(fold))
        print(_plain_table(title, columns, folded, to_right), file=stream, flush=True)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title), title_justify="left")
    for name, right in zip(columns, to_right, strict=True):
        grid.add_column(Text(name), justify="right" if right else "left")
    for row in cells:
        grid.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
    _console(stream is sys.stderr).print(grid)


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how far they are, with rate and time left, once that has taken 2 s.

    On a terminal a bar, which goes away at the end; elsewhere a line at most every 10 s.  Either ends with a
    line that gives the number of items and the time.  Nothing is shown when quiet.

    Args:
        iterable: anything; where it has a length, that is the total.
        description: what is done to the items ("detect"), a few words.
        total: the number of items, where the iterable does not know.
    """
    if _settings.quiet:
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    on_terminal = _sink.on_terminal if _sink else _is_terminal(sys.stderr)
    interval = _BAR_INTERVAL if on_terminal else _LINE_INTERVAL
    count = 0
    start = shown = monotonic()
    bar = _sink.bar if _sink else _bar if on_terminal else _lines
    with bar(description, total) as show:
        for item in iterable:
            yield item
            count += 1
            now = monotonic()
            if now - shown >= interval and count != total:
                show(count, _summary(count, total, now - start))
                shown = now
    seconds = monotonic() - start
    if seconds >= _SLOW:
        _say(f"{description}: {count} in {_clock(seconds)}")


@contextmanager
def _lines(description: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    yield lambda count, summary: _say(f"{description}: {summary}")


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    with bars() as progress:
        task = progress.add_task(description, total=total, summary="")
        yield lambda count, summary: progress.update(task, completed=count, summary=summary)


@contextmanager
def bars() -> Iterator["Progress"]:
    """A display of bars on the terminal, each of which is shown once it has taken 2 s."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    class SlowProgress(Progress):
        def get_renderables(self) -> Iterable["RenderableType"]:
            yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0) >= _SLOW])

    progress = SlowProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[summary]}", markup=False),
        TimeElapsedColumn(),
        console=_console(True),
        transient=True,
        # A worker process forked meanwhile must not inherit streams that take the lock of this display.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    # An error's traceback keeps the suspended generator alive: even so the cursor must come back at exit.
    atexit.register(progress.stop)
    try:
        with progress:
            yield progress
    finally:
        atexit.unregister(progress.stop)


def _summary(count: int, total: int | None, seconds: float) -> str:
    rate = count / seconds
    speed = f"{rate:.3g}/s" if rate < 1000 else f"{rate:.0f}/s"
    if total is None:
        return f"{count}, {speed}"
    return f"{count}/{total}, {speed}, {_clock((total - count) / rate)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def _say(text: str, style: str = "") -> None:
    """Print one line; a name in it may hold control characters, and standard error may be full or closed."""
    text = text.translate(_CONTROL)
    if _sink:
        _sink.say(text, style)
        return
    with suppress(OSError):
        if _is_terminal(sys.stderr):
            # The bar's console, which prints above the bar.
            _console(True).print(text, style=style, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@cache
def _console(stderr: bool) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers (with a percent sign, or none at all in some cells)."""
    filled = [cell.rstrip("%") for cell in cells if cell not in ("", "-")]
    try:
        return [float(cell) for cell in filled] != []
    except ValueError:
        return False


def _fold(columns: Sequence[str], cells: Sequence[Sequence[str]], column: int) -> list[list[str]]:
    """The rows with one column folded to a width of 80 in all, what does not fit in rows of their own."""
    widths = [max(len(name), *(len(row[k]) for row in cells), 0) for k, name in enumerate(columns)]
    room = max(_LEAST_FOLD, _WIDTH - sum(width + 2 for k, width in enumerate(widths) if k != column))
    folded = []
    for row in cells:
        for number, line in enumerate(textwrap.wrap(row[column], room) or [""]):
            rest = row if number == 0 else [""] * len(row)
            folded.append([line if k == column else cell for k, cell in enumerate(rest)])
    return folded


def _plain_table(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], to_right: Sequence[bool]
) -> str:
    widths = [max(len(name), *(len(row[k]) for row in cells), 0) for k, name in enumerate(columns)]

    def line(row: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_right, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([title, line(columns), line(["-" * width for width in widths]), *map(line, cells)])
