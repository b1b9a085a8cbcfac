"""Section 4.3's remark: smaller fc layers, a quarter of the outputs (1,024 of 4,096), which take less time.

    make ablation-fc        (python -m experiments.fc_size --profile mini)

The paper says how the time of the fc layers "can be significantly reduced", and measures nothing.  Here fc6 and fc7 of
the profile's size and of a quarter of it: mAP of the fine-tuned fc7 at five scales, and the time of the fc layers on
the same images and windows.

Cost: the pre-training of another network, with the smaller layers (`mini` 8 minutes; a torchvision trunk needs none),
and about a third of the 5-scale column of Table 6.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from experiments.detection import columns, measured_on, steps
from experiments.runner import Measured, small_table
from experiments.table6 import timed_windows
from sppnet_cli.cli import run
from sppnet_cli.console import status
from sppnet_cli.detection.detector import Detector
from sppnet_cli.evaluation.outcomes import SecondsOutcome
from sppnet_cli.evaluation.timing import time_extractors
from sppnet_cli.stages.plan import Step
from sppnet_cli.stages.workspace import Workspace
from sppnet_cli.tables.paper import published as of_paper

MAP, TIME = ROWS = ("ftfc7", "fc time (s)")


def variants(ws: Workspace) -> dict[str, Workspace]:
    """Workspace of every column."""
    return {"full": ws, "quarter": replace(ws, profile=replace(ws.profile, fc=ws.profile.fc // 4))}


def fc_size(ws: Workspace) -> Measured:
    """mAPs and times of one seed."""
    measured = measured_on(ws)
    extractors = {}
    for column, own in variants(ws).items():
        method, scales = columns(own)["spp_5scale"]
        score = own.score(method, scales, MAP)
        status(f"{column} {MAP}: mAP {100 * score.mean_ap:.1f}")
        measured.outcomes[MAP, column] = score.outcome
        layer = Detector.load(own.detector(method, scales, MAP), own.device).layer
        extractors[column] = (own.extractor(method, scales), layer)
    for column, of_images in time_extractors(extractors, *timed_windows(ws)).items():
        measured.outcomes[TIME, column] = SecondsOutcome(np.array([time.fc for time in of_images]))
    sizes = {column: own.profile.fc for column, own in variants(ws).items()}
    measured.more["fc"] = sizes
    measured.notes.append(
        f"fc6 and fc7 have {sizes['full']} outputs (full) or {sizes['quarter']} (quarter).  Their time is the mean of "
        f"{ws.profile.timing_images} images with {ws.profile.timing_windows} windows each, pooling included."
    )
    return measured


def published() -> pd.DataFrame:
    """Table 6's numbers, of 4,096-d fc layers."""
    full = of_paper(6).loc[list(ROWS), "spp_5scale"]
    return pd.DataFrame({"full": full, "quarter": float("nan")})


def plan(ws: Workspace) -> list[Step]:
    """The stages of both columns."""
    return [step for own in variants(ws).values() for step in steps(own, [("spp_5scale", MAP)])]


command = small_table("fc_size", (__doc__ or "").split("\n")[0], published, fc_size, plan, detection=True)

if __name__ == "__main__":
    run(command)
