"""Sections 3.2 and 3.3: the scale of whole images, chosen on VOC's val half, and on Caltech101.

    make ablation-scale        (sppnet reproduce scale --profile mini)

The short side varies.  SVMs are trained on VOC's train images and tested on its val images (in the paper 392 is best,
because objects are smaller in VOC's images than in ImageNet's), and on Caltech101's splits (224 is best).  VOC's test
images are never used.  `sppnet train-svm --task classification --size val` makes the same choice.

Cost: `mini` five minutes beyond the multi-size network of Table 1.
"""

import pandas as pd

from sppnet_cli.data.layouts import Dataset
from sppnet_cli.stages.workspace import SWEEP, Column, Workspace

from .runner import AP_NOTE, Measured, Steps, no_published, small
from .whole_images import note_on_svms, notes_on_trunk


def scale(ws: Workspace) -> Steps:
    """mAPs and accuracies of one seed by the short side."""
    columns: dict[str, tuple[Dataset, str]] = {
        "voc2007_val_map": ("VOC", "fc7" if ws.has_head() else "SPP pool5"),
        "caltech101_accuracy": ("Caltech101", "SPP pool5"),
    }
    cells = {
        (size, name): ws.tested_svms(Column("spp6", "full", size), layer, dataset, train="train", test="val")
        for name, (dataset, layer) in columns.items()
        for size in SWEEP
    }
    yield [stage for each in cells.values() for stage in each]

    measured = Measured(notes=[*notes_on_trunk(ws), note_on_svms(ws), AP_NOTE])
    for (size, name), each in cells.items():
        measured.outcomes[size, name] = each.score().outcome
        measured.images[columns[name][0]] = measured.outcomes[size, name].images
    measured.notes += [f"{name}: {layer}." for name, (_, layer) in columns.items()]
    return measured


PUBLISHED = no_published(pd.Index(SWEEP, name="short_side"), ["voc2007_val_map", "caltech101_accuracy"])
EXPERIMENT = small("scale", __doc__, scale, PUBLISHED)
