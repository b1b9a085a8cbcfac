"""The journal edition's views on feature maps: 96 of them at six scales, and two whole images, against ten.

    make ablation-views        (sppnet reproduce views --profile mini)

The maps of the whole image are computed once a scale, at short sides of 224 to 560, and each view is a window of
224x224 pixels that is pooled from them.  The network is the journal's best: Overfeat-7, multi-size trained, whatever
--arch says.  The row of ten views on maps stands for the journal's remark that pooling from the maps of the whole image
costs next to nothing.

Cost: `mini` about half an hour (a network, which `architectures` shares, and ten minutes of views); `paper` a GPU week
or two for the network.
"""

from dataclasses import replace

import pandas as pd

from sppnet_cli.stages.workspace import MULTI_SIZE, Workspace

from .architectures import PUBLISHED as OF_ARCHITECTURES
from .imagenet import TOP1, TOP5, measure_rows
from .runner import Steps, small

ARCH = "overfeat7"
ROWS = {  # row: views
    "10 views": "10",
    "10 views on maps": "maps:10",
    "96 views on maps": "maps:96",
    "96 views on maps + 2 full": "maps:96+2full",
}
# NaN: could not be checked.
PUBLISHED = {
    "10 views": OF_ARCHITECTURES[ARCH][2],
    "96 views on maps": (float("nan"), 9.36),
    "96 views on maps + 2 full": (float("nan"), 9.14),
}


def views(ws: Workspace) -> Steps:
    """Errors of one seed."""
    of_arch = replace(ws, profile=replace(ws.profile, arch=ARCH))
    tested = {row: of_arch.errors("spp6", MULTI_SIZE, named) for row, named in ROWS.items()}
    measured = yield from measure_rows(ws, tested)
    measured.more["arch"] = ARCH
    measured.notes.append(f"The network is {ARCH}, trained at {' and '.join(map(str, MULTI_SIZE))} in turn.")
    return measured


def published(_ws: Workspace) -> pd.DataFrame:
    """The journal's numbers."""
    rows = pd.Index(ROWS, name="views")
    return pd.DataFrame.from_dict(PUBLISHED, orient="index", columns=[TOP1, TOP5]).reindex(rows)


EXPERIMENT = small("views", __doc__, views, published, source="journal")
