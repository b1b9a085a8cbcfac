"""Section 4.3's estimate: the work of SPP-net's convolutional layers as a share of R-CNN's.

    make complexity        (python -m experiments.complexity --profile mini)

The paper compares O(r s^2) at scale s, r = 4/3 the aspect ratio, with O(n 227^2) for n = 2,000 windows: about 1/160 at
688, 1/24 at five scales.  Beside this estimate stand the multiply-adds of the actual layers on an image of 375x500 and
on 2,000 windows of 224x224, and the share of the time, where Table 6 was measured.

Cost: seconds.
"""

import json
import math
import time
from functools import partial
from pathlib import Path

import click
import pandas as pd

from experiments.runner import Cell, Measured, run_small_table, tables_folder
from sppnet_cli.cli import run
from sppnet_cli.cli.options import PATH, option, shared, show_plan
from sppnet_cli.features.rcnn import CROP
from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.protocols import Protocol
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.claimed import read_table
from sppnet_cli.tables.paper import published as of_paper

SIZE = (375, 500)  # of VOC's images, the commonest
WINDOWS = 2000
SIDE = 227  # of R-CNN's warped windows
COLUMNS = ("estimate", "multiply_adds", "conv_time")


def rows(protocol: Protocol) -> dict[str, tuple[int, ...]]:
    """Every scale by itself, and all together."""
    scales = protocol.scales
    return {str(scale): (scale,) for scale in scales} | {f"{scales[0]}..{scales[-1]}": scales}


def complexity(ws: Workspace, tables: Path) -> Measured:
    """Shares of R-CNN's work, percent."""
    trunk, _ = build_trunk(ws.profile.arch, ws.profile.width)
    of_rcnn = WINDOWS * flops(trunk, (1, 3, CROP, CROP))
    of_scale = {scale: flops(trunk, (1, 3, *resized_size(SIZE, scale))) for scale in ws.protocol.scales}
    times = time_shares(ws, tables)
    values: dict[Cell, float] = {}
    gflop = {"rcnn": of_rcnn / 1e9}
    fractions = []
    for row, scales in rows(ws.protocol).items():
        total = sum(of_scale[scale] for scale in scales)
        area = max(SIZE) / min(SIZE) * sum(scale**2 for scale in scales)
        shares = (area / (WINDOWS * SIDE**2), total / of_rcnn, times.get(scales, math.nan))
        values |= {(row, column): 100 * share for column, share in zip(COLUMNS, shares, strict=True)}
        gflop[row] = total / 1e9
        fractions.append(f"1/{1 / shares[0]:.0f} and 1/{1 / shares[1]:.0f} at {row}")
    return Measured(
        values=values,
        notes=[
            f"R-CNN's work is 100 percent.  Estimate and multiply-adds as fractions: {', '.join(fractions)}.",
            "conv_time is Table 6's, of its own images and windows; the paper's is from its Table 6.",
        ],
        more={"image": SIZE, "windows": WINDOWS, "protocol": ws.protocol.name, "conv_gflop": gflop},
    )


def time_shares(ws: Workspace, tables: Path) -> dict[tuple[int, ...], float]:
    """By scales, the share of R-CNN's conv time in the Table 6 of `tables`; empty where it is of another network."""
    cells = read_table(tables, 6)
    path = tables / "table6.json"
    if not path.is_file() or json.loads(path.read_text()).get("arch") != ws.profile.arch:
        return {}
    spp = {"spp_1scale": (ws.protocol.single_scale,), "spp_5scale": ws.protocol.scales}
    time = "conv time (s)"
    return {scales: cells[time, column] / cells[time, "rcnn"] for column, scales in spp.items()}


def published(protocol: Protocol) -> pd.DataFrame:
    """The paper's two estimates, and what its Table 6 gives."""
    names = list(rows(protocol))
    times = of_paper(6).loc["conv time (s)"]
    one, five = (100 * times[column] / times["rcnn"] for column in ("spp_1scale", "spp_5scale"))
    numbers = {
        str(protocol.single_scale): (100 / 160, math.nan, one),
        names[-1]: (100 / 24, math.nan, five),
    }
    cells = [numbers.get(name, (math.nan,) * len(COLUMNS)) for name in names]
    return pd.DataFrame(cells, index=pd.Index(names, name="scales"), columns=list(COLUMNS))


@click.command(help=(__doc__ or "").split("\n")[0])
@shared
@option("--results", type=PATH, default=Path("results"), help="Where tables are, and go.")
def command(ws: Workspace, *, results: Path, out: Path | None, dry_run: bool, as_json: bool) -> None:
    """Count, compare and write."""
    folder = tables_folder(ws, results, out)
    if dry_run:
        show_plan([], ws, as_json)
        return
    start = time.perf_counter()
    measure = partial(complexity, tables=results / ws.profile.name)
    written = run_small_table("complexity", [ws], measure, published(ws.protocol), folder)
    written.tell(as_json, time.perf_counter() - start)


if __name__ == "__main__":
    run(command)
