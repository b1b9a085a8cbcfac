"""Stage: a network from a Caffe model."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sppnet_cli.atomic import write_json
from sppnet_cli.network.caffe_zf import find_kind, network_of_layers
from sppnet_cli.network.caffemodel import read_caffemodel
from sppnet_cli.network.weights import save_network
from sppnet_cli.runs import fingerprint, run_stage

_IMPORT_FILE = "import.json"


@dataclass(frozen=True)
class ImportConfig:
    """`sppnet import-weights`."""

    kind: str | None  # None: that of the layers' names
    dropout_scaling: str  # when the Caffe that trained the net made up for dropout


@dataclass(frozen=True)
class Imported:
    """What an import found."""

    kind: str
    left_out: tuple[str, ...]  # layers with weights that the network does not have


def import_stage(config: ImportConfig, weights: Path, out: Path) -> Path:
    """`network.json` and `network.safetensors` with the weights of a .caffemodel (see `network.caffe_zf`).

    Raises `DataError` for a file that cannot be read or does not fit.
    """
    layers = read_caffemodel(weights)
    kind = config.kind or find_kind(layers)

    def build(folder: Path) -> None:
        network, left_out = network_of_layers(layers, kind, weights, dropout_scaling=config.dropout_scaling)
        save_network(network, folder)
        write_json(folder / _IMPORT_FILE, asdict(Imported(kind, tuple(left_out))))

    config = replace(config, kind=kind)
    return run_stage(out, "import-weights", config, {"weights": fingerprint(weights)}, build)


def read_import(run: Path) -> Imported:
    """What the import of that run directory found."""
    fields = json.loads((run / _IMPORT_FILE).read_text())
    return Imported(fields["kind"], tuple(fields["left_out"]))
