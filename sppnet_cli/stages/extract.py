"""Stage: features of whole images."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.features.extract import extract_features
from sppnet_cli.network.weights import load_network
from sppnet_cli.runs import fingerprint, run_stage


@dataclass(frozen=True)
class ExtractConfig:
    """`sppnet extract-features`."""

    layer: str  # pool5, SPP pool5, fc6 or fc7
    view: str  # full or crop
    size: int  # short side in pixels


def extract_stage(config: ExtractConfig, network: Path, paths: Sequence[Path], out: Path) -> Path:
    """`features.npy` (N, D) float32 and `index.csv` (row, image)."""

    def build(folder: Path) -> None:
        extract_features(load_network(network), paths, config.layer, config.view, config.size, folder)
        with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("row", "image"))
            writer.writerows(enumerate(map(str, paths)))

    inputs = {"network": fingerprint(network)} | {str(path): fingerprint(path) for path in paths}
    return run_stage(out, "extract-features", config, inputs, build)
