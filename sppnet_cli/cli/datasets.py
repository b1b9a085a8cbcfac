"""Which set of whole images a command uses."""

from dataclasses import replace

from sppnet_cli.data.layouts import Dataset, layout_of
from sppnet_cli.errors import UsageError
from sppnet_cli.stages.workspace import Workspace


def choose_dataset(ws: Workspace, name: str | None) -> tuple[Workspace, Dataset | None]:
    """The data set that `data` is by its layout, or the embedded one called `name` (VOC by default).

    Returns the workspace with a Caltech101 folder as its `caltech`.  Raises `UsageError` for a name together with `data`.
    """
    if ws.data is None:
        return ws, "Caltech101" if name == "caltech101" else "VOC"
    if name is not None:
        raise UsageError("--dataset chooses from the embedded data; what --data is tells its layout")
    dataset = layout_of(ws.data)
    return (replace(ws, data=None, caltech=ws.data) if dataset == "Caltech101" else ws), dataset
