"""The journal edition's comparison: no SPP, single-size and multi-size SPP-net over four architectures.

    make reproduce-architectures        (sppnet reproduce architectures --profile mini)

Ten views, as in Table 1.  The published numbers beside ours are those of the journal edition for ZF-5 and
Overfeat-7.

Cost: `mini` about three hours on two CPU cores (nine networks beyond those of Table 1); `paper` a GPU week or two
for each of twelve networks.
"""

from dataclasses import replace

import pandas as pd

from sppnet_cli.stages.workspace import MULTI_SIZE, SINGLE_SIZE, Workspace

from .errors import COLUMNS, measure_errors
from .runner import Steps, small

VIEWS = "10"
ARCHITECTURES = ("zf5", "convnet5", "overfeat5", "overfeat7")
TRAININGS = {
    "no SPP": ("plain", SINGLE_SIZE),
    "SPP single-size": ("spp6", SINGLE_SIZE),
    "SPP multi-size": ("spp6", MULTI_SIZE),
}
PUBLISHED = {
    "zf5": ((35.99, 14.76), (34.98, 14.14), (34.60, 13.64)),
    "overfeat7": ((32.01, 11.97), (30.36, 11.12), (29.68, 10.95)),
}


def architectures(ws: Workspace) -> Steps:
    """Errors of one seed."""
    tested = {
        (arch, training): replace(ws, profile=replace(ws.profile, arch=arch)).errors(pyramid, sizes, VIEWS)
        for arch in ARCHITECTURES
        for training, (pyramid, sizes) in TRAININGS.items()
    }
    return (yield from measure_errors(tested))


def published(_ws: Workspace) -> pd.DataFrame:
    """The journal's numbers, NaN where they could not be checked."""
    rows = pd.MultiIndex.from_product([ARCHITECTURES, TRAININGS], names=["arch", "training"])
    table = pd.DataFrame(float("nan"), index=rows, columns=list(COLUMNS))
    for arch, numbers in PUBLISHED.items():
        table.loc[arch] = numbers
    return table


EXPERIMENT = small("architectures", __doc__, architectures, published, source="journal")
