"""Which windows of an image are negatives of a class (paper section 4.1, released code)."""

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.data.boxes import iou
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.windows import ImageWindows
from sppnet_cli.network.geometry import choose_scales, response_cells
from sppnet_cli.protocols import SvmRules


def class_overlaps(windows: ImageWindows, classes: int) -> NDArray[np.float64]:
    """Highest IoU `(N, K)` of every window with the boxes of each class; 0 if the image has none of the class."""
    overlaps = np.zeros((len(windows.boxes), classes))
    for truth, label in enumerate(windows.truth.labels):
        np.maximum(overlaps[:, label], windows.iou[:, truth], out=overlaps[:, label])
    return overlaps


def negatives(
    windows: ImageWindows, classes: int, extractor: Extractor, rules: SvmRules
) -> NDArray[np.bool_]:
    """Mask `(N, K)`: the windows that are negatives of each class, without near-duplicates.

    A negative overlaps every box of the class by little; boxes of other classes are among the windows and count.  Of
    near-duplicates the first is kept.  The paper drops a negative by its IoU with a negative already kept; the released
    code drops, before it looks for negatives, every window whose cells and scale equal those of an earlier one.
    """
    overlaps = class_overlaps(windows, classes)
    most = rules.negative_iou
    mask = overlaps <= most if rules.negative_iou_inclusive else overlaps < most
    if rules.duplicate_rule == "iou":
        near = iou(windows.boxes, windows.boxes) > rules.duplicate_iou
        kept = {}  # most classes are absent from an image and share one mask
        for k in range(classes):
            candidates = mask[:, k].tobytes()
            if candidates not in kept:
                kept[candidates] = _drop_near(near, mask[:, k])
            mask[:, k] = kept[candidates]
    elif rules.duplicate_rule == "cells":
        _, first = np.unique(_scale_and_cells(windows, extractor), axis=0, return_index=True)
        mask[np.setdiff1d(np.arange(len(mask)), first)] = False
    return mask


def _drop_near(near: NDArray[np.bool_], candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    kept = candidates.copy()
    for row in np.flatnonzero(candidates):
        if kept[row]:
            kept[row + 1 :] &= ~near[row, row + 1 :]
    return kept


def _scale_and_cells(windows: ImageWindows, extractor: Extractor) -> NDArray[np.int64]:
    """Rows `(N, 5)`: each window's scale and its cells on an unbounded map (the released code's response boxes)."""
    geometry, mapping = extractor.network.geometry, extractor.mapping
    choice = choose_scales(windows.boxes, windows.size, extractor.scales, mapping)
    result = np.empty((len(windows.boxes), 5), dtype=np.int64)
    result[:, 0] = choice
    for index, scale in enumerate(extractor.scales):
        rows = choice == index
        result[rows, 1:] = response_cells(windows.boxes[rows], windows.size, scale, geometry, mapping)
    return result
