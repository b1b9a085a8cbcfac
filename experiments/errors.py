"""What the experiments on ImageNet share: the errors of trained networks as rows of a table."""

from collections.abc import Mapping
from typing import Any

from sppnet_cli.chain import Stage
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.evaluate_network import read_errors

from .runner import Measured, Steps

COLUMNS = ("top1_error", "top5_error")


def measure_errors(tested: Mapping[Any, Stage], columns: tuple[str, ...] = COLUMNS) -> Steps:
    """Errors of one seed: a row for each stage, which `Workspace.errors` describes."""
    yield [*tested.values()]

    measured = Measured()
    for row, made in tested.items():
        errors = read_errors(made.folder)
        wrong = dict(zip(COLUMNS, (errors.wrong1, errors.wrong5), strict=True))
        measured.outcomes |= {(row, column): ErrorOutcome(wrong[column]) for column in columns}
        measured.images = {"val": errors.images}
    return measured
