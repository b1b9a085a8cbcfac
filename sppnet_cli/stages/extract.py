"""Stage: features of whole images."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.atomic import atomic_path
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError
from sppnet_cli.features.extract import extract_features, require_possible
from sppnet_cli.network.weights import load_network
from sppnet_cli.runs import fingerprint, run_stage

INDEX_FILE = "index.csv"


@dataclass(frozen=True)
class ExtractConfig:
    """`sppnet extract-features`.  Raises `UsageError` for what no network can give."""

    layers: tuple[str, ...]  # of features.extract.LAYERS
    view: str  # full, crop or warp
    size: int  # short side in pixels

    def __post_init__(self) -> None:
        require_possible(self.layers, self.view, self.size)


def extract_stage(
    config: ExtractConfig,
    network: Path,
    paths: Sequence[Path],
    out: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
) -> Path:
    """`<layer>.npy` (N, D) float32 of each layer, not normalised, and `index.csv` (row, image).

    Goes on with what a cut-off call left.  Several processes share the images.
    """

    def build(folder: Path) -> None:
        net = load_network(network)
        extract_features(
            net, paths, config.layers, config.view, config.size, folder, device=device, workers=workers
        )
        if world().first:
            with (
                atomic_path(folder / INDEX_FILE) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("row", "image"))
                writer.writerows(enumerate(map(str, paths)))

    inputs = {"network": fingerprint(network), "images": images_fingerprint(paths)}
    return run_stage(out, "extract-features", config, inputs, build, together=True)


def images_fingerprint(paths: Sequence[Path]) -> str:
    """What stands for images, in their order, in a manifest: a hash of their folders' and own names and their sizes.

    Raises `DataError` naming the first that is not there.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(f"{path.absolute().parent.name}/{path.name} {path.stat().st_size}\n".encode())
        except OSError:
            raise DataError(f"{path}: no such image file; restore it or take it off the list") from None
    return digest.hexdigest()[:16]
