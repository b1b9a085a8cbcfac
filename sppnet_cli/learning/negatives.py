"""Which windows of an image are negatives of a class (paper section 4.1, released code)."""

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.data.boxes import iou
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.windows import ImageWindows
from sppnet_cli.network.geometry import choose_scales, response_cells


def class_overlaps(windows: ImageWindows, classes: int) -> NDArray[np.float64]:
    """Highest IoU `(N, K)` of every window with the boxes of every class, 0 for absent classes."""
    overlaps = np.zeros((len(windows.boxes), classes))
    for truth, label in enumerate(windows.truth.labels):
        np.maximum(overlaps[:, label], windows.iou[:, truth], out=overlaps[:, label])
    return overlaps


def negatives(windows: ImageWindows, classes: int, extractor: Extractor) -> NDArray[np.bool_]:
    """Mask `(N, K)`: windows that overlap no box of the class by much and are no near-duplicates.

    Boxes of other classes are among the windows and count.  Duplicates are dropped greedily in the windows'
    order, the first kept: the paper drops a negative by IoU with a kept negative; the released code, before it
    looks for negatives, any window of equal cells and scale (R-CNN's windows have no cells: it drops none).
    """
    protocol = extractor.protocol
    overlaps = class_overlaps(windows, classes)
    if protocol.negative_iou_inclusive:
        mask = overlaps <= protocol.negative_iou
    else:
        mask = overlaps < protocol.negative_iou
    if protocol.duplicate_rule == "iou":
        near = iou(windows.boxes, windows.boxes) > protocol.duplicate_iou
        keep = {}
        for k in range(classes):
            candidates = mask[:, k].tobytes()  # most classes are absent and share one mask
            if candidates not in keep:
                keep[candidates] = _first_of_near(near, mask[:, k])
            mask[:, k] = keep[candidates]
    elif not isinstance(extractor, RcnnWindows):
        _, first = np.unique(_cell_identity(windows, extractor), axis=0, return_index=True)
        mask[np.setdiff1d(np.arange(len(mask)), first)] = False
    return mask


def _first_of_near(near: NDArray[np.bool_], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    alive = candidates.copy()
    for row in np.flatnonzero(candidates):
        if alive[row]:
            alive[row + 1 :] &= ~near[row, row + 1 :]
    return alive


def _cell_identity(windows: ImageWindows, extractor: Extractor) -> NDArray[np.int64]:
    """Rows `(N, 5)`: the window's scale and its cells on an endless map (R's `response boxes`)."""
    geometry, protocol = extractor.network.geometry, extractor.protocol
    choice = choose_scales(windows.boxes, windows.size, extractor.scales, protocol)
    identity = np.empty((len(windows.boxes), 5), dtype=np.int64)
    identity[:, 0] = choice
    for index, scale in enumerate(extractor.scales):
        rows = choice == index
        identity[rows, 1:] = response_cells(windows.boxes[rows], windows.size, scale, geometry, protocol)
    return identity
