"""Stage: a network from a Caffe model."""

from dataclasses import asdict, dataclass
from pathlib import Path

from sppnet_cli.atomic import write_json
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.network.caffe_zf import network_of_layers
from sppnet_cli.network.caffemodel import read_caffemodel
from sppnet_cli.network.weights import SPEC_FILE, WEIGHTS_FILE, save_network
from sppnet_cli.records import read_json_as

_IMPORT_FILE = "import.json"


@dataclass(frozen=True)
class ImportConfig:
    """`sppnet import-weights`."""

    kind: str  # of names.CAFFE_KINDS
    dropout_scaling: str  # of names.DROPOUT_SCALINGS: when the net was scaled for dropout


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    kind: str
    left_out: tuple[str, ...]  # layers with weights that the network does not have


def import_network(config: ImportConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Write a network with the weights of a .caffemodel (see `network.caffe_zf`).

    Raises `DataError` for a file that cannot be read or does not fit.
    """
    weights = inputs["weights"]
    layers = read_caffemodel(weights)
    network, left_out = network_of_layers(
        layers, config.kind, weights, dropout_scaling=config.dropout_scaling
    )
    save_network(network, folder)
    write_json(folder / _IMPORT_FILE, asdict(Imported(config.kind, tuple(left_out))))


def import_cost(weights: Path) -> Cost:
    """Cost: seconds."""
    return Cost(2.0, {SPEC_FILE: 150, WEIGHTS_FILE: weights.stat().st_size, _IMPORT_FILE: 200})


def read_import(run: Path) -> Imported:
    """What the import of that run directory found.  Raises `DataError` where its record is missing or broken."""
    return read_json_as(Imported, run / _IMPORT_FILE, remedy=f"remove {run} and import again")
