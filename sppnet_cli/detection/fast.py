"""Approximations that skip part of a detector's work in the fc layers, at some cost in its scores."""

from dataclasses import dataclass

from sppnet_cli.names import FC_LAYERS
from sppnet_cli.network.low_rank import most_of_use
from sppnet_cli.network.sppnet import Head

# What `--fast` means: the rank of fc6, as a fraction of its outputs, and the fraction of the windows that get there.  On
# mini, over two seeds, the mAP changes by -.8 to +.5 (mean +.1), on 600 images of VOC by +.3; fc7 cut to a sixteenth and
# fc6 to a quarter cost 1.7.
_RANK = 3 / 8
_CASCADE = 0.2


@dataclass(frozen=True)
class FastOptions:
    """Which work of the fc layers is skipped; the defaults skip none."""

    fc_rank: tuple[int, ...] = ()  # rank of fc6, or of fc6 and fc7 (see `low_rank`); empty: the whole layers
    cascade: float | None = (
        None  # fraction of an image's distinct windows, the most promising first; None: all
    )


def fast_options(layer: str, head: Head | None) -> FastOptions:
    """What `--fast` means for a detector on `layer` of `head`: nothing for pool5, below which there are no fc layers."""
    if layer not in FC_LAYERS or head is None:
        return FastOptions()
    rank = min(int(_RANK * head.fc6.out_features), most_of_use(head.fc6))
    return FastOptions((max(1, rank),), _CASCADE)
