"""Section 4.1's remark: a window pooled over all five scales, channel by channel, against one scale per window.

    make ablation-pooling        (sppnet reproduce scale_pooling --profile mini)

"One strategy of combining the features from these scales is to pool them channel-by-channel.  But we empirically find
that another strategy provides better results": each window is pooled from the map of one scale, at which it has about
224x224 pixels.  For each strategy a detector is fine-tuned, trained and tested on the same network, windows and maps.

Cost: `mini` about eight minutes beyond the 5-scale column of Table 6.
"""

from dataclasses import replace

import pandas as pd

from sppnet_cli.errors import UsageError
from sppnet_cli.protocols import ALL_SCALES, PAPER
from sppnet_cli.stages.workspace import Workspace

from .detection import about_detection, columns, rows, score
from .runner import Steps, no_published, small

ROWS = ("pool5", "fc6", "ftfc7")


def scale_pooling(ws: Workspace) -> Steps:
    """mAPs of one seed.  Raises `UsageError` for another protocol than the paper's."""
    if ws.protocol is not PAPER:
        raise UsageError(
            f"--protocol {ws.protocol.name}: this compares the paper's choice of scales; leave it out"
        )
    variants = {"one_scale_map": ws, "all_scales_map": replace(ws, protocol=ALL_SCALES)}
    detected = {
        (row, column): variant.detections(*columns(variant)["spp_5scale"], row)
        for column, variant in variants.items()
        for row in ROWS
        if row in rows(variant)
    }
    yield [*detected.values()]

    measured = about_detection(ws)
    for cell, made in detected.items():
        measured.outcomes[cell] = score(ws, made, f"{cell[1]} {cell[0]}").outcome
    return measured


PUBLISHED = no_published(pd.Index(ROWS, name="layer"), ["one_scale_map", "all_scales_map"])
EXPERIMENT = small("scale_pooling", __doc__, scale_pooling, PUBLISHED)
