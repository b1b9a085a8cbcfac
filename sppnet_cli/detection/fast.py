"""Quicker ways through a detector's fc layers, each at some cost in its scores."""

from dataclasses import dataclass

from sppnet_cli.errors import UsageError
from sppnet_cli.network.low_rank import most_of_use
from sppnet_cli.network.sppnet import FC_LAYERS, Head

# What `--fast` takes: a rank of fc6 and of fc7, as parts of their outputs, and the windows that get there.
_RANK_PARTS = (4, 16)
_CASCADE = 0.3


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
    layers = [getattr(head, name) for name in FC_LAYERS[: FC_LAYERS.index(layer) + 1]]
    ranks = (
        max(1, min(linear.out_features // part, most_of_use(linear)))
        for linear, part in zip(layers, _RANK_PARTS, strict=False)
    )
    return FastOptions(tuple(ranks), _CASCADE)
