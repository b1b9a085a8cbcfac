"""Greedy suppression of boxes, compiled: torchvision's takes longer to import than a photograph takes to be searched."""

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.kernels.jit import kernel


@kernel
def suppress(edges: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """Which of the boxes `(N, 4)` x1, y1, x2, y2, in continuous coordinates and the best first, survive: `(N,)`.

    A box goes where its IoU with a survivor before it is strictly above `iou`.
    """
    areas = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    kept = np.ones(len(edges), np.bool_)
    for i in range(len(edges)):
        if not kept[i]:
            continue
        for j in range(i + 1, len(edges)):
            width = min(edges[i, 2], edges[j, 2]) - max(edges[i, 0], edges[j, 0])
            height = min(edges[i, 3], edges[j, 3]) - max(edges[i, 1], edges[j, 1])
            shared = max(width, 0.0) * max(height, 0.0)
            if shared / (areas[i] + areas[j] - shared) > iou:
                kept[j] = False
    return kept
