"""Section 4.3's estimate: the work of SPP-net's convolutional layers as a share of R-CNN's.

    make complexity        (sppnet reproduce complexity --profile mini)

The paper compares O(r s^2) at scale s, where r = 4/3 is the aspect ratio, with O(n 227^2) for n = 2,000 windows: about
1/160 at 688 and 1/24 at five scales.  The table has this estimate, the multiply-adds of the actual layers on an image of
375x500 and on 2,000 windows of 224x224, and the share of the time if Table 6 was measured.

Cost: seconds.
"""

import math

import pandas as pd

from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import CROP, resized_size
from sppnet_cli.protocols import Protocol
from sppnet_cli.stages.time_features import read_times
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import published as of_paper

from .runner import Cell, Measured, Steps, small
from .table6 import times

SIZE = (375, 500)  # the most common in VOC
WINDOWS = 2000
SIDE = 227  # of R-CNN's warped windows
COLUMNS = ("estimate", "multiply_adds", "conv_time")


def rows(protocol: Protocol) -> dict[str, tuple[int, ...]]:
    """Each scale alone, and all together."""
    scales = protocol.scales
    return {str(scale): (scale,) for scale in scales} | {f"{scales[0]}..{scales[-1]}": scales}


def complexity(ws: Workspace) -> Steps:
    """Shares of R-CNN's work, percent."""
    yield []

    trunk, _ = build_trunk(ws.profile.arch, ws.profile.width)
    of_rcnn = WINDOWS * flops(trunk, (1, 3, CROP, CROP))
    of_scale = {scale: flops(trunk, (1, 3, *resized_size(SIZE, scale))) for scale in ws.protocol.scales}
    measured_shares = time_shares(ws)
    values: dict[Cell, float] = {}
    gflop = {"rcnn": of_rcnn / 1e9}
    fractions = []
    for row, scales in rows(ws.protocol).items():
        total = sum(of_scale[scale] for scale in scales)
        area = max(SIZE) / min(SIZE) * sum(scale**2 for scale in scales)
        shares = (area / (WINDOWS * SIDE**2), total / of_rcnn, measured_shares.get(scales, math.nan))
        values |= {(row, column): 100 * share for column, share in zip(COLUMNS, shares, strict=True)}
        gflop[row] = total / 1e9
        fractions.append(f"1/{1 / shares[0]:.0f} and 1/{1 / shares[1]:.0f} at {row}")
    return Measured(
        values=values,
        notes=[
            f"R-CNN's work is 100 percent.  Estimate and multiply-adds as fractions: {', '.join(fractions)}.",
            "conv_time is from Table 6, on its images and windows, if that was measured.",
        ],
        more={"image": SIZE, "windows": WINDOWS, "protocol": ws.protocol.name, "conv_gflop": gflop},
    )


def time_shares(ws: Workspace) -> dict[tuple[int, ...], float]:
    """The share of R-CNN's conv time in Table 6, by scales; empty if that was not measured."""
    if ws.profile.data is None and (ws.data is None or (ws.network_run is None and ws.weights is None)):
        return {}
    timed = times(ws)
    if not timed.ready:
        return {}
    seconds = {side: sum(t.conv for t in of) for side, of in read_times(timed.folder).items()}
    spp = {"spp_1scale": (ws.protocol.single_scale,), "spp_5scale": ws.protocol.scales}
    return {scales: seconds[column] / seconds["rcnn"] for column, scales in spp.items()}


def published(ws: Workspace) -> pd.DataFrame:
    """The paper's two estimates, and what its Table 6 gives."""
    names = list(rows(ws.protocol))
    seconds = of_paper(6).loc["conv time (s)"]
    one, five = (100 * seconds[column] / seconds["rcnn"] for column in ("spp_1scale", "spp_5scale"))
    numbers = {
        str(ws.protocol.single_scale): (100 / 160, math.nan, one),
        names[-1]: (100 / 24, math.nan, five),
    }
    cells = [numbers.get(name, (math.nan,) * len(COLUMNS)) for name in names]
    return pd.DataFrame(cells, index=pd.Index(names, name="scales"), columns=list(COLUMNS))


EXPERIMENT = small("complexity", __doc__, complexity, published)
