"""What a benchmark found, and the files it goes to."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sppnet_cli.atomic import atomic_path, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Benchmark:
    """The result of one subject."""

    name: str
    record: dict[str, Any]  # of JSON types: all that was measured, the settings and the machine
    table: pd.DataFrame  # a row per side
    note: str  # how to read it
    figure: "Figure | None" = None


def write_benchmark(found: Benchmark, folder: Path) -> list[Path]:
    """Write `<name>.csv`, `<name>.json` and, where there is a picture, `<name>.png`; returns their paths.

    Raises `SppnetError` when a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{found.name}.csv", folder / f"{found.name}.json"]
    write_text(paths[0], found.table.to_csv(index=False, lineterminator="\n"))
    write_json(paths[1], found.record | {"note": found.note})
    if found.figure is not None:
        paths.append(folder / f"{found.name}.png")
        with atomic_path(paths[-1]) as temporary:
            found.figure.savefig(temporary, format="png", dpi=150)
    return paths
