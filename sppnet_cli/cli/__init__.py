"""The command line: parses options, calls one stage, prints its result.  The only place that knows Click.

Modules here import torch and what needs it inside their functions, so that `--help` and completion stay quick.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from sppnet_cli import __version__, console
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
    from sppnet_cli.cli.evaluate import command as evaluate
    from sppnet_cli.cli.export import command as export
    from sppnet_cli.cli.extract_features import command as extract_features
    from sppnet_cli.cli.finetune import command as finetune
    from sppnet_cli.cli.import_weights import command as import_weights
    from sppnet_cli.cli.pretrain import command as pretrain
    from sppnet_cli.cli.propose import command as propose
    from sppnet_cli.cli.reproduce import command as reproduce
    from sppnet_cli.cli.train_bbox import command as train_bbox
    from sppnet_cli.cli.train_svm import command as train_svm
    from sppnet_cli.cli.visualize import command as visualize

    for command in (
        pretrain,
        import_weights,
        propose,
        extract_features,
        finetune,
        train_svm,
        train_bbox,
        detect,
        evaluate,
        visualize,
        benchmark,
        data,
        reproduce,
        export,
        check_layer,
    ):
        app.add_command(command)


def run(command: Callable[..., Any], name: str | None = None) -> NoReturn:
    """Run a Click command; every failure is one line and an exit code (see `errors`), 130 when interrupted."""
    try:
        code = command(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SppnetError as error:
        console.error(str(error))
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.error("interrupted; the same command goes on from what is complete")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        console.error(f"{where}{error.strerror or error}; check the path, its permissions and the disk")
        code = 1
    leave()
    sys.exit(code if isinstance(code, int) else 0)


def main() -> NoReturn:
    """Entry point of `sppnet`."""
    _register()
    run(app, "sppnet")
