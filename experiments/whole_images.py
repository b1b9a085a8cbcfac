"""What the experiments on whole images share: SVMs on a layer, tested, by the columns of Tables 3 and 4."""

from collections.abc import Mapping

from sppnet_cli.data.layouts import Dataset
from sppnet_cli.stages.workspace import Column, TestedSvms, Workspace
from sppnet_cli.tables.paper import published

from .runner import AP_NOTE, Cell, Measured, Steps


def layers_of(ws: Workspace, number: int, column: str) -> dict[str, str]:
    """Layer by row label, for the rows of a column that the paper has numbers for and the network has layers for."""
    rows = published(number)[column].dropna().index
    layers = {row: row.removesuffix(" (6x6)") for row in rows}
    return layers if ws.has_head() else {row: name for row, name in layers.items() if name[:2] != "fc"}


def tested_cells(
    ws: Workspace, number: int, dataset: Dataset, columns: Mapping[str, Column]
) -> dict[Cell, TestedSvms]:
    """For each cell of Table 3 or 4, the SVMs on its layer and the features that they are tested on."""
    return {
        (row, name): ws.tested_svms(column, layer, dataset)
        for name, column in columns.items()
        for row, layer in layers_of(ws, number, name).items()
    }


def measure_columns(
    ws: Workspace, number: int, dataset: Dataset, columns: Mapping[str, Column], tested: str
) -> Steps:
    """The cells of Table 3 or 4 of one seed; `tested` names the images in the record."""
    cells = tested_cells(ws, number, dataset, columns)
    yield [stage for each in cells.values() for stage in each]

    measured = Measured(notes=[*notes_on_trunk(ws), note_on_svms(ws)])
    if dataset == "VOC":
        measured.notes.append(AP_NOTE)
    for cell, each in cells.items():
        measured.outcomes[cell] = each.score().outcome
        measured.images = {tested: measured.outcomes[cell].images}
    return measured


def note_on_svms(ws: Workspace) -> str:
    """A note on which SVMs are measured."""
    loss = {
        "hinge": "hinge loss, the bias not regularised, as LIBSVM's, which the paper cites",
        "squared-hinge": "squared hinge loss and a regularised bias, liblinear's default",
    }[ws.protocol.whole_image_loss]
    return f"SVMs: C = {ws.protocol.whole_image_c:g}, one against the rest; {loss}."


def note_on_splits(ws: Workspace) -> str:
    """How Caltech101 is split."""
    splits = ws.profile.splits
    return f"{splits.count} random splits of {splits.train} training and up to {splits.test} test images a category."


def notes_on_trunk(ws: Workspace) -> list[str]:
    """A note on what changes with a trunk of torchvision."""
    if ws.has_head():
        return []
    return [
        (
            f"{ws.profile.arch} with its ImageNet weights in place of pre-training: it has no fc6 and fc7, its conv4 is "
            "the map before its last, and the plain net and SPP-net differ only in the last pool."
        )
    ]
