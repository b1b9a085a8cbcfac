"""Section 4.3's remark: smaller fc layers, a quarter of the outputs (1,024 of 4,096), which take less time.

    make ablation-fc        (sppnet reproduce fc_size --profile mini)

The paper says how the time of the fc layers "can be significantly reduced" but does not measure it.  This compares fc6
and fc7 of the profile's size with a quarter of it: mAP of the fine-tuned fc7 at five scales, and the time of the fc
layers on the same images and windows.

Cost: the pre-training of another network, with the smaller layers (`mini` 8 minutes; a torchvision trunk needs none),
and about a third of the 5-scale column of Table 6.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from sppnet_cli.evaluation.outcomes import SecondsOutcome
from sppnet_cli.stages.time_features import read_times
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import published as of_paper

from .detection import about_detection, columns, score
from .runner import Steps, small

MAP, TIME = ROWS = ("ftfc7", "fc time (s)")


def fc_size(ws: Workspace) -> Steps:
    """mAPs and times of one seed."""
    variants = {"full": ws, "quarter": replace(ws, profile=replace(ws.profile, fc=ws.profile.fc // 4))}
    of_5scale = columns(ws)["spp_5scale"]
    detected = {column: variant.detections(*of_5scale, MAP) for column, variant in variants.items()}
    timed = ws.times(
        {
            column: (variant, *of_5scale, variant.detector(*of_5scale, MAP))
            for column, variant in variants.items()
        }
    )
    yield [*detected.values(), timed]

    measured = about_detection(ws)
    for column, made in detected.items():
        measured.outcomes[MAP, column] = score(ws, made, f"{column} {MAP}").outcome
    for column, of_images in read_times(timed.folder).items():
        measured.outcomes[TIME, column] = SecondsOutcome(np.array([time.fc for time in of_images]))
    sizes = {column: variant.profile.fc for column, variant in variants.items()}
    measured.more["fc"] = sizes
    measured.notes.append(
        f"fc6 and fc7 have {sizes['full']} outputs (full) or {sizes['quarter']} (quarter).  Their time is the mean of "
        f"{ws.profile.timing_images} images with {ws.profile.timing_windows} windows each, pooling included."
    )
    return measured


def published(_ws: Workspace) -> pd.DataFrame:
    """Table 6's numbers, of 4,096-d fc layers."""
    full = of_paper(6).loc[list(ROWS), "spp_5scale"]
    return pd.DataFrame({"full": full, "quarter": float("nan")})


EXPERIMENT = small("fc_size", __doc__, fc_size, published)
