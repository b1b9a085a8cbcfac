"""Windows of an image that share a pooled vector: small shifts of a window often have the same cells of conv5."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.features.rcnn import PreprocessedImage, RcnnWindows
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.network.geometry import Boxes, choose_scales


class PooledWindows(NamedTuple):
    """Pooled vectors of an image's windows, those that are the same only once."""

    vectors: Tensor  # (U, D)
    rows: NDArray[np.intp]  # (N,): the vector of each window


def pool_distinct(
    extractor: SppWindows | RcnnWindows, prepared: FeatureMaps | PreprocessedImage, boxes: Boxes
) -> PooledWindows:
    """Pyramid vectors of windows `(N, 4)`, of those with the same cells on the same map only one.

    R-CNN warps every window, so that each has its own.
    """
    if isinstance(extractor, SppWindows):
        assert isinstance(prepared, FeatureMaps)
        first, rows = _distinct(extractor, prepared, boxes)
        return PooledWindows(extractor.pool(prepared, boxes[first]), rows)
    assert isinstance(prepared, PreprocessedImage)
    return PooledWindows(extractor.pool(prepared, boxes), np.arange(len(boxes)))


def _distinct(
    extractor: SppWindows, prepared: FeatureMaps, boxes: Boxes
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A window `(U,)` of each set of cells, and which of the sets each window `(N,)` has."""
    scales = range(len(extractor.scales))
    if extractor.protocol.scale_rule == "all":
        keys = np.concatenate([extractor.cells(prepared, boxes, index) for index in scales], axis=1)
    else:
        choice = choose_scales(boxes, prepared.size, extractor.scales, extractor.protocol)
        keys = np.empty((len(boxes), 5), np.int32)
        keys[:, 0] = choice
        for index in scales:
            own = choice == index
            keys[own, 1:] = extractor.cells(prepared, boxes[own], index)
    first, rows = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
    return first, rows
