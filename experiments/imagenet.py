"""What the experiments on ImageNet share: the errors of networks on the validation set, and how they are measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from sppnet_cli.chain import Stage
from sppnet_cli.evaluation.outcomes import ErrorOutcome
from sppnet_cli.stages.evaluate_network import read_errors
from sppnet_cli.stages.workspace import Workspace

from .runner import Cell, Measured, Steps

TOP1, TOP5 = "top1_error", "top5_error"


def measure_rows(ws: Workspace, tested: Mapping[Any, Stage], columns: Sequence[str] = (TOP1, TOP5)) -> Steps:
    """A table of one seed that has a row for each of `Workspace.errors`."""
    measured = yield from measure_cells(
        ws, {(row, column): of for row, of in tested.items() for column in columns}
    )
    return measured


def measure_cells(ws: Workspace, tested: Mapping[Cell, Stage]) -> Steps:
    """A table of one seed from `Workspace.errors` behind each cell: top-5 in the column of that name, else top-1."""
    yield list(tested.values())

    measured = Measured(notes=notes_on_networks(ws))
    for (row, column), made in tested.items():
        errors = read_errors(made.folder)
        measured.outcomes[row, column] = ErrorOutcome(errors.wrong5 if column == TOP5 else errors.wrong1)
        measured.images = {"val": errors.images}
    return measured


def notes_on_networks(ws: Workspace) -> list[str]:
    """What the networks see, and which images they get wrong."""
    strength = {
        "variance": "eigenvalues, as in AlexNet's text",
        "deviation": "their roots, as in cuda-convnet2",
    }[ws.protocol.lighting]
    return [
        "Networks see the pixels minus the 224x224 mean image of the training set, warped to the size of whole images.",
        f"Training alters colours along the principal components by {strength}.",
        "An image is right in the top k if fewer than k other classes score as high as its own or higher.",
    ]
