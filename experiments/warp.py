"""The journal edition's warped images: Caltech101 images squeezed to 224x224 against whole images as they are.

    make ablation-warp        (sppnet reproduce warp --profile mini)

SVMs on SPP pool5 of the multi-size network, as in Table 4.  Warping shows the network the whole image, too, but changes
its aspect ratio.

Cost: `mini` a minute beyond Table 4; `paper` some minutes on a GPU beyond it.
"""

import pandas as pd

from sppnet_cli.stages.workspace import Column, Workspace

from .runner import Measured, Steps, small
from .table4 import COLUMNS
from .whole_images import note_on_splits, note_on_svms, notes_on_trunk

LAYER, ACCURACY = "SPP pool5", "caltech101_accuracy"
ROWS = {"warp": Column("spp6", "warp", 224), "full": COLUMNS["spp_full224"]}
PUBLISHED = {"warp": 89.91, "full": 91.44}


def warp(ws: Workspace) -> Steps:
    """Accuracies of one seed."""
    tested = {row: ws.tested_svms(column, LAYER, "Caltech101") for row, column in ROWS.items()}
    yield [stage for each in tested.values() for stage in each]

    measured = Measured(notes=[*notes_on_trunk(ws), note_on_svms(ws), note_on_splits(ws)])
    for row, each in tested.items():
        measured.outcomes[row, ACCURACY] = each.score().outcome
        measured.images = {"caltech101": measured.outcomes[row, ACCURACY].images}
    return measured


def published(_ws: Workspace) -> pd.DataFrame:
    """The journal's numbers."""
    return pd.DataFrame({ACCURACY: PUBLISHED}).rename_axis("view")


EXPERIMENT = small("warp", __doc__, warp, published, source="journal")
