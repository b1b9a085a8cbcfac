"""The result of a benchmark, and its files."""

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


def write_benchmark(result: Benchmark, folder: Path) -> list[Path]:
    """Write `<name>.csv`, `<name>.json` and, if there is a figure, `<name>.png`; return their paths.

    Raises `SppnetError` if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{result.name}.csv", folder / f"{result.name}.json"]
    write_text(paths[0], result.table.to_csv(index=False, lineterminator="\n"))
    write_json(paths[1], result.record | {"note": result.note})
    if result.figure is not None:
        paths.append(folder / f"{result.name}.png")
        with atomic_path(paths[-1]) as temporary:
            result.figure.savefig(temporary, format="png", dpi=150)
    return paths
