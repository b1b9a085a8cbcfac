"""Section 4.1's remark: a window pooled over all five scales, channel by channel, against one scale per window.

    make ablation-pooling        (python -m experiments.scale_pooling --profile mini)

"One strategy of combining the features from these scales is to pool them channel-by-channel.  But we empirically find
that another strategy provides better results": of every window the map of one scale, at which it has about 224x224
pixels.  Either way a detector is fine-tuned, trained and tested with the same network, windows and maps.

Cost: `mini` about eight minutes beyond the 5-scale column of Table 6.
"""

from dataclasses import replace

import pandas as pd

from experiments.detection import columns, layers, measured_on, steps
from experiments.runner import Measured, small_table
from sppnet_cli.cli import run
from sppnet_cli.console import status
from sppnet_cli.errors import UsageError
from sppnet_cli.protocols import ALL_SCALES, PAPER
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace

ROWS = ("pool5", "fc6", "ftfc7")


def variants(ws: Workspace) -> dict[str, Workspace]:
    """Workspace of every column.  Raises `UsageError` for another protocol than the paper's."""
    if ws.protocol is not PAPER:
        raise UsageError(
            f"--protocol {ws.protocol.name}: the paper's own choice of scales is compared; leave it out"
        )
    return {"one_scale_map": ws, "all_scales_map": replace(ws, protocol=ALL_SCALES)}


def rows(ws: Workspace) -> list[str]:
    """The rows that the network has a layer for."""
    return [row for row in ROWS if row in layers(ws)]


def scale_pooling(ws: Workspace) -> Measured:
    """mAPs of one seed."""
    measured = measured_on(ws)
    for column, own in variants(ws).items():
        for row in rows(own):
            score = own.score(*columns(own)["spp_5scale"], row)
            status(f"{column} {row}: mAP {100 * score.mean_ap:.1f}")
            measured.outcomes[row, column] = score.outcome
    return measured


def published() -> pd.DataFrame:
    """The paper prints no such table."""
    index = pd.Index(ROWS, name="layer")
    return pd.DataFrame(float("nan"), index=index, columns=["one_scale_map", "all_scales_map"])


def plan(ws: Workspace) -> list[Step]:
    """The stages of both columns."""
    return [
        step for own in variants(ws).values() for step in steps(own, [("spp_5scale", r) for r in rows(own)])
    ]


command = small_table(
    "scale_pooling", (__doc__ or "").split("\n")[0], published, scale_pooling, plan, detection=True
)

if __name__ == "__main__":
    run(command)
