"""The command line: parses options, calls one stage, prints its result.  The only place that knows Click.

Modules here import torch and what needs it inside their functions, so that `--help` and completion stay quick.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import click

from sppnet_cli import __version__, console, tune_process
from sppnet_cli.distributed import leave
from sppnet_cli.errors import SppnetError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
)
@click.version_option(__version__, prog_name="sppnet")
def app() -> None:
    """SPP-net: pre-train, extract features, train SVMs, detect and evaluate.

    Every command runs as typed on the embedded `mini` data; --data names your own.
    """


def _register() -> None:
    from sppnet_cli.cli.benchmark import command as benchmark
    from sppnet_cli.cli.check_layer import command as check_layer
    from sppnet_cli.cli.data import command as data
    from sppnet_cli.cli.detect import command as detect
    from sppnet_cli.cli.doctor import command as doctor
    from sppnet_cli.cli.evaluate import command as evaluate
    from sppnet_cli.cli.export import command as export
    from sppnet_cli.cli.extract_features import command as extract_features
    from sppnet_cli.cli.finetune import command as finetune
    from sppnet_cli.cli.import_weights import command as import_weights
    from sppnet_cli.cli.pretrain import command as pretrain
    from sppnet_cli.cli.propose import command as propose
    from sppnet_cli.cli.report import command as report
    from sppnet_cli.cli.reproduce import command as reproduce
    from sppnet_cli.cli.runs import command as runs
    from sppnet_cli.cli.train import command as train
    from sppnet_cli.cli.train_bbox import command as train_bbox
    from sppnet_cli.cli.train_svm import command as train_svm
    from sppnet_cli.cli.visualize import command as visualize

    for command in (
        pretrain,
        import_weights,
        propose,
        extract_features,
        finetune,
        train,
        train_svm,
        train_bbox,
        detect,
        evaluate,
        visualize,
        benchmark,
        data,
        reproduce,
        report,
        export,
        check_layer,
        runs,
        doctor,
    ):
        app.add_command(command)


_LONGEST_MESSAGE = 600
_NO_MEMORY = "not enough memory: give a lower --max-memory, fewer --workers or smaller --scales"
_SHORTAGES = (
    ("no space left on device", "the disk is full: make room, or give --runs or --out on another disk"),
    (
        r"can't allocate memory|out of memory|insufficient memory|bad_alloc",
        _NO_MEMORY,
    ),
    (
        r"shared memory|\bshm\b",
        "not enough shared memory for the workers: give --workers 0, or mount a larger /dev/shm",
    ),
    (
        r"worker .*(exited|killed)|process .*terminated abruptly",
        "a worker process was ended from outside, often because memory ran out: give fewer --workers",
    ),
)


class _Terminated(BaseException):
    """SIGTERM came."""


def run(command: Callable[..., Any], name: str | None = None) -> NoReturn:
    """Run a Click command.  Every failure is one line `error: ...` and an exit code (see `errors`).

    130 when interrupted, 143 when terminated; 0 when the reader of standard output closes it.
    """
    tune_process()
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files: a notebook's backend may not be installed here
    console.open_streams()
    with _sigterm_raises():
        code = _call(command, name)
    console.report_tallies()
    with suppress(SppnetError):  # a message about torchrun's variables was printed already
        leave()
    console.close_streams()
    sys.exit(code)


def _call(command: Callable[..., Any], name: str | None) -> int:
    """The exit code of a Click command; a failure is printed."""
    streams = sys.stdout, sys.stderr
    try:
        code = command(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:  # prints the help
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else name or "sppnet"
        console.error(f"{_one_line(error).rstrip('.')}; see `{path} --help`")
        return error.exit_code
    except click.ClickException as error:
        console.error(_one_line(error))
        return error.exit_code
    except SppnetError as error:
        console.error(str(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.error("interrupted; run the same command again to continue")
        return 130
    except _Terminated:
        console.error("terminated; run the same command again to continue")
        return 143
    except SystemExit as stop:
        if sys.stdout is not streams[0]:  # Click exits so when the reader of standard output closes it
            sys.stdout, sys.stderr = streams
            return 0
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        return 0
    except OSError as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Click could not print its message
            return 130
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{error.strerror or error}; check the path, its permissions and the disk")
        return 1
    except Exception as error:
        reason = _shortage(error)
        if reason is None:
            raise
        console.error(reason)
        return 1


def _one_line(error: click.ClickException) -> str:
    """Click's message, which may hold an argument of any length."""
    text = " ".join(error.format_message().split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _shortage(error: Exception) -> str | None:
    """A message for an error that means too little memory or disk; libraries show that only in the error's text."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    return next((line for found, line in _SHORTAGES if re.search(found, str(error), re.IGNORECASE)), None)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that locks and partial files go; forked workers just end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> NoReturn:
    """Entry point of `sppnet`."""
    if sys.platform == "win32":  # it lacks modules that ours import
        console.error("sppnet runs on Linux and macOS; on Windows install it inside WSL: wsl --install")
        sys.exit(1)
    _register()
    run(app, "sppnet")
