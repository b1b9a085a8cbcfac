import math
from dataclasses import replace

import numpy as np
import pytest

from sppnet_cli.network.geometry import choose_scales, coordinate_scale, resized_size, window_cells
from sppnet_cli.network.receptive import Geometry
from sppnet_cli.protocols import ALL_SCALES, PAPER, RELEASED

ZF5 = Geometry(16, 20, 139)
PROTOCOLS = pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=["paper", "released"])


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((333, 500), 480, (480, 721)),  # 720.72
        ((500, 333), 480, (721, 480)),
        ((300, 300), 688, (688, 688)),
        ((100, 200), 480, (480, 960)),  # exact: nothing to round up
        ((375, 500), 1200, (1200, 1600)),
        ((10, 1000), 480, (480, 48000)),  # no cap
        ((1000, 10), 48, (4800, 48)),
    ],
)
def test_resized_size(size, short_side, expected):
    assert resized_size(size, short_side) == expected


def test_coordinates_scale_by_the_last_pixel_of_the_short_side():
    assert coordinate_scale((333, 500), 480) == 479 / 332
    assert coordinate_scale((500, 333), 480) == 479 / 332
    assert coordinate_scale((480, 640), 480) == 1


def random_boxes(rng, size, count):
    height, width = size
    x, y = np.sort(rng.integers(0, width, (count, 2))), np.sort(rng.integers(0, height, (count, 2)))
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)


def best_scale(box, size, scales, protocol):
    """Index of the scale of one window, in the words of SPEC section 0."""
    x1, y1, x2, y2 = map(float, box)
    if protocol.name == "paper":
        factors = [(s - 1) / (min(size) - 1) for s in scales]
        distances = [abs(((x2 * f) - (x1 * f) + 1) * ((y2 * f) - (y1 * f) + 1) - 224 * 224) for f in factors]
    else:
        wanted = 13 * 16 * min(size) / math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))
        rounded = math.floor(wanted) + (wanted - math.floor(wanted) >= 0.5)
        distances = [abs(s - rounded) for s in scales]
    return distances.index(min(distances))


@PROTOCOLS
def test_scales_by_brute_force(protocol):
    rng = np.random.default_rng(0)
    for size in ((333, 500), (500, 375), (96, 1000)):
        boxes = random_boxes(rng, size, 300)
        found = choose_scales(boxes, size, protocol.scales, protocol)
        assert found.tolist() == [best_scale(box, size, protocol.scales, protocol) for box in boxes]
        assert len(set(found.tolist())) > 2


def test_scale_of_the_paper_by_hand():
    # In an image of 480 x 640 a window of 224 x 224 is right at 480; one of half the side near 960.
    boxes = np.array([[0, 0, 223, 223], [100, 100, 211, 211], [0, 0, 639, 479], [5, 5, 24, 24]])
    # 112 px: sides 111 * (863 / 479) + 1 = 201 at 864, 279 at 1200; |201^2 - 224^2| = 9775 < 27665.
    assert choose_scales(boxes, (480, 640), PAPER.scales, PAPER).tolist() == [0, 3, 0, 4]


def test_a_tie_of_the_paper_goes_to_the_smaller_scale():
    # One row of 33451 pixels: 33451 at factor 1 and 66901 at factor 2 are both 16725 from 50176.
    boxes = np.array([[0, 0, 33450, 0], [0, 0, 33451, 0], [0, 0, 33449, 0]])
    assert choose_scales(boxes, (101, 40000), (101, 201), PAPER).tolist() == [0, 0, 1]


def test_a_tie_of_the_release_goes_to_the_smaller_scale():
    # 208 * 528 / 208 = 528 lies midway between 480 and 576.
    box = np.array([[10, 10, 217, 217]])
    assert choose_scales(box, (528, 600), RELEASED.scales, RELEASED).tolist() == [0]


def test_the_release_rounds_halves_up():
    # 208 * 1057 / 416 = 528.5 -> 529, nearer to 576; 528 would be a tie.
    box = np.array([[0, 0, 415, 415]])
    assert choose_scales(box, (1057, 1057), RELEASED.scales, RELEASED).tolist() == [1]


def test_one_scale_is_everyones():
    boxes = random_boxes(np.random.default_rng(0), (300, 400), 5)
    assert choose_scales(boxes, (300, 400), (688,), PAPER).tolist() == [0] * 5


def test_where_every_scale_counts_none_is_chosen():
    with pytest.raises(ValueError, match="the rule `all` chooses no scale"):
        choose_scales(np.array([[0, 0, 9, 9]]), (300, 400), PAPER.scales, ALL_SCALES)


def test_no_windows():
    none = np.empty((0, 4), np.float32)
    assert choose_scales(none, (300, 400), PAPER.scales, PAPER).shape == (0,)
    assert window_cells(none, (300, 400), 480, (29, 39), ZF5, PAPER).shape == (0, 4)


def zf5_columns(x1, x2, protocol, cells=39):
    """First and last column of a window of an image that is not resized."""
    box = np.array([[x1, 0, x2, 479]], dtype=np.float32)
    found = window_cells(box, (480, 640), 480, (29, cells), ZF5, protocol)
    assert found.dtype == np.int32
    assert found[0, 1] == 0
    return found[0, 0], found[0, 2]


@pytest.mark.parametrize(
    ("x1", "x2", "paper", "released"),
    [
        # Centres at 20, 36, 52, ...
        (19, 53, (0, 2), (0, 2)),
        (20, 52, (1, 1), (0, 2)),  # strictly inside; the release has 1.5 px of slack
        (21, 51, (1, 1), (0, 2)),
        (22, 50, (1, 1), (1, 1)),
        (0, 639, (0, 38), (0, 38)),
        (120, 247, (7, 14), (7, 14)),
        (36, 68, (2, 2), (1, 3)),
        # Between two centres: floor((first + last) / 2).
        (22, 34, (0, 0), (0, 0)),  # first 1, last 0
        (38, 50, (1, 1), (1, 1)),
        (21, 35, (0, 0), (0, 1)),
        (36, 36, (1, 1), (1, 1)),  # paper: first 2, last 0 -> 1
        # Outside of all centres: clamped.
        (0, 10, (0, 0), (0, 0)),
        (632, 639, (38, 38), (38, 38)),
    ],
)
def test_cells_by_hand(x1, x2, paper, released):
    assert zf5_columns(x1, x2, PAPER) == paper
    assert zf5_columns(x1, x2, RELEASED) == released


def test_a_window_beyond_the_last_centre_takes_the_last_cell():
    assert zf5_columns(500, 639, PAPER, cells=20) == (19, 19)


def test_zf5_formulas_of_the_specification():
    for x1 in range(0, 200, 7):
        for x2 in range(x1, 300, 5):
            pairs = [
                (PAPER, math.floor((x1 - 20) / 16) + 1, math.ceil((x2 - 20) / 16) - 1),
                (RELEASED, math.floor((x1 - 5.5) / 16), math.ceil((x2 - 34.5) / 16)),
            ]
            for protocol, first, last in pairs:
                if first > last:
                    first = last = (first + last) // 2
                assert zf5_columns(x1, x2, protocol) == (max(first, 0), max(last, 0))


def cells_of(low, high, geometry, slack, cells):
    """First and last cell along an axis by looking at every centre, in pixels of the resized image."""
    centres = {k: geometry.stride * k + geometry.offset for k in range(-60, 400)}
    first = min(k for k, centre in centres.items() if centre > low - slack)
    last = max(k for k, centre in centres.items() if centre < high + slack)
    if first > last:
        first = last = (first + last) // 2
    return [min(max(k, 0), cells - 1) for k in (first, last)]


@PROTOCOLS
@pytest.mark.parametrize(
    "geometry", [ZF5, Geometry(16, 15, 207), Geometry(32, 0, 435), Geometry(16, 7.5, 134)]
)
def test_cells_by_brute_force(protocol, geometry):
    rng = np.random.default_rng(0)
    for size, short_side in (((333, 500), 480), ((500, 375), 1200), ((480, 480), 688)):
        boxes = random_boxes(rng, size, 100)
        boxes[::3, 2:] = boxes[::3, :2] + rng.integers(0, 12, (len(boxes[::3]), 2))  # small ones
        map_size = tuple(side // geometry.stride - 2 for side in resized_size(size, short_side))
        factor = (short_side - 1) / (min(size) - 1)
        slack = (1.5 if protocol is RELEASED else 0) * geometry.stride / 16
        expected = []
        for x1, y1, x2, y2 in boxes.astype(float) * factor:
            left, right = cells_of(x1, x2, geometry, slack, map_size[1])
            top, bottom = cells_of(y1, y2, geometry, slack, map_size[0])
            expected.append([left, top, right, bottom])
        found = window_cells(boxes, size, short_side, map_size, geometry, protocol)
        assert found.tolist() == expected


def test_the_slack_is_the_protocols():
    wide = replace(PAPER, cell_slack=1.0)
    # 16 px more on both sides: centres 4 .. 52 are reached by (20, 36).
    assert zf5_columns(20, 36, wide) == (0, 1)
    assert zf5_columns(37, 51, wide) == (1, 2)
