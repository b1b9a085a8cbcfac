"""Table 3: classification of VOC 2007 by SVMs on features of whole images, by layer, network and view.

    make reproduce-table3        (sppnet reproduce table3 --profile mini)

Columns: the plain net and SPP-net (multi-size trained) on the 224x224 centre crop, SPP-net on the whole image at short
side 224, and at 392, where objects are about as large as in ImageNet.  Features are l2-normalised, C = 1, trained on
trainval without augmentation, tested on test by 11-point AP.  conv4 and conv5 have a fixed length on crops alone.

Cost: `mini` two minutes beyond the networks of Table 1; `paper` an hour on a GPU beyond them, 15 GB of disk.
"""

from sppnet_cli.stages.workspace import Column, Workspace

from .runner import Steps, numbered
from .whole_images import measure_columns

COLUMNS = {
    "plain_crop224": Column("plain", "crop", 224),
    "spp_crop224": Column("spp6", "crop", 224),
    "spp_full224": Column("spp6", "full", 224),
    "spp_full392": Column("spp6", "full", 392),
}


def table3(ws: Workspace) -> Steps:
    """VOC mAPs of one seed."""
    return (yield from measure_columns(ws, 3, "VOC", COLUMNS, "test"))


EXPERIMENT = numbered(3, __doc__, table3)
