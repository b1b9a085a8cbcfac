"""Quicker ways through a detector's fc layers, each at some cost in its scores."""

from dataclasses import dataclass

from sppnet_cli.errors import UsageError
from sppnet_cli.network.low_rank import most_of_use
from sppnet_cli.network.sppnet import FC_LAYERS, Head

# What `--fast` takes: the rank of fc6, as a part of its outputs, and the part of the windows that get there.  On mini, over
# two seeds, the mAP changes by -.8 to +.5 (mean +.1), on 600 images of VOC by +.3; fc7 cut to a sixteenth and fc6 to a
# quarter cost 1.7.
_RANK = 3 / 8
_CASCADE = 0.2


@dataclass(frozen=True)
class FastOptions:
    """How the fc layers are passed by; the defaults change nothing."""

    fc_rank: tuple[int, ...] = ()  # of fc6, or of fc6 and fc7, cut to (see `low_rank`); none: whole
    cascade: float | None = None  # part of an image's distinct windows, best guessed first; None: all


def fast_options(layer: str, head: Head | None) -> FastOptions:
    """What `--fast` means for a detector on `layer` of `head`.

    Raises `UsageError` for pool5, below which there are no fc layers.
    """
    if layer not in FC_LAYERS or head is None:
        raise UsageError(
            f"--fast is for detectors on fc6 or fc7; on {layer} there are no fc layers to pass by"
        )
    rank = min(int(_RANK * head.fc6.out_features), most_of_use(head.fc6))
    return FastOptions((max(1, rank),), _CASCADE)
