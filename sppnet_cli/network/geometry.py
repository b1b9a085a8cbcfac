"""From windows of an image to cells of its conv5 maps (paper section 4.1, released code `spp_pool`)."""

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.network.receptive import Geometry
from sppnet_cli.protocols import MappingRules

Boxes = NDArray[np.floating]

CROP = 224  # side, in pixels, of the crops that networks are trained and tested on
SHORT_SIDE = 256  # in pixels, of the image that they are cut out of


def resized_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) after the short side becomes exactly `short_side`: the long one is rounded up, uncapped."""
    height, width = size
    short, long = min(height, width), max(height, width)
    scaled = -(long * short_side // -short)
    return (short_side, scaled) if height <= width else (scaled, short_side)


def coordinate_scale(size: tuple[int, int], short_side: int) -> float:
    """Factor of box coordinates, the same for x and y: `(s - 1) / (min(H, W) - 1)`."""
    return (short_side - 1) / max(min(size) - 1, 1)


def choose_scales(
    boxes: Boxes, size: tuple[int, int], scales: tuple[int, ...], rules: MappingRules
) -> NDArray[np.int64]:
    """Index into `scales` of each window's scale, `(N,)`; ties go to the smaller scale.

    Paper: the scaled window's pixel count is the closest to 224x224.  Released: the scale closest to
    `round(13 * 16 * min(H, W) / sqrt(w * h))`.  `boxes` (N, 4) lie in the original image of `size` (H, W).
    Raises `ValueError` by the rule `all`, which takes every scale.
    """
    extent = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    if rules.scale_rule == "closest-area":
        factor = np.array([coordinate_scale(size, s) for s in scales])
        distance = np.abs((extent[:, None, :] * factor[:, None] + 1).prod(axis=2) - 224.0**2)
    elif rules.scale_rule == "all":
        raise ValueError("the rule `all` chooses no scale")
    else:
        # MATLAB's round: halves go up.
        wanted = np.floor(13 * 16 * min(size) / np.sqrt((extent + 1).prod(axis=1)) + 0.5)
        distance = np.abs(np.array(scales) - wanted[:, None])
    return distance.argmin(axis=1)


def response_cells(
    boxes: Boxes, size: tuple[int, int], short_side: int, geometry: Geometry, rules: MappingRules
) -> NDArray[np.int64]:
    """Cells `(N, 4)` x1, y1, x2, y2 inclusive of windows `(N, 4)` of an image of `size` (H, W), on an endless map.

    A cell belongs to a window when its centre lies strictly inside the window widened by the protocol's slack.
    A window between two centres takes the cell at `floor((first + last) / 2)`.
    """
    scaled = boxes.astype(np.float64) * coordinate_scale(size, short_side)
    slack = rules.cell_slack * geometry.stride
    first = np.floor((scaled[:, :2] - slack - geometry.offset) / geometry.stride) + 1
    last = np.ceil((scaled[:, 2:] + slack - geometry.offset) / geometry.stride) - 1
    middle = np.floor((first + last) / 2)
    empty = first > last
    corners = [np.where(empty, middle, corner) for corner in (first, last)]
    return np.concatenate(corners, axis=1).astype(np.int64)


def window_cells(
    boxes: Boxes,
    size: tuple[int, int],
    short_side: int,
    map_size: tuple[int, int],
    geometry: Geometry,
    rules: MappingRules,
) -> NDArray[np.int32]:
    """`response_cells` clamped to a map of `map_size` (h, w), `(N, 4)` int32."""
    limit = np.array([map_size[1] - 1, map_size[0] - 1] * 2)
    cells = response_cells(boxes, size, short_side, geometry, rules)
    return np.clip(cells, 0, limit).astype(np.int32)
