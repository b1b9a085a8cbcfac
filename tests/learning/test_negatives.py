import math

import numpy as np
import pytest

from sppnet_cli.features.methods import METHODS
from sppnet_cli.learning.negatives import class_overlaps, negatives
from sppnet_cli.protocols import PAPER, RELEASED, SvmRules, take

WIDE = [0, 0, 99, 99]
THREE_TENTHS = [0, 0, 99, 29]  # 3,000 of 10,000 pixels
A_BIT_MORE = [0, 0, 99, 30]
FAR = [300, 200, 399, 299]


@pytest.fixture
def mask_of(extractor_of):
    """`negatives` by the rules of a method under a protocol."""

    def mask(windows, classes, protocol, method="spp"):
        rules = take(SvmRules, METHODS[method].protocol_of(protocol))
        return negatives(windows, classes, extractor_of(protocol, method=method), rules)

    return mask


def rows_of(mask, label):
    return np.flatnonzero(mask[:, label]).tolist()


def test_an_overlap_of_exactly_three_tenths(windows_of, mask_of):
    windows = windows_of([THREE_TENTHS, A_BIT_MORE, FAR], truth=[WIDE])
    assert rows_of(mask_of(windows, 1, PAPER), 0) == [1, 3]
    assert rows_of(mask_of(windows, 1, RELEASED), 0) == [3]


@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=lambda p: p.name)
def test_boxes_of_other_classes_are_negatives(windows_of, mask_of, protocol):
    # A dog's box, a cat's box that overlaps it by .5, and a cat's box elsewhere.
    windows = windows_of([], truth=[WIDE, [0, 0, 99, 49], FAR], labels=[0, 1, 1])
    mask = mask_of(windows, 3, protocol)
    assert [rows_of(mask, label) for label in range(3)] == [[2], [], [0, 1, 2]]


def test_the_best_of_several_boxes_of_the_class_counts(windows_of):
    truth = [[0, 0, 9, 9], [0, 0, 19, 9], [100, 100, 109, 109]]
    windows = windows_of(
        [[0, 0, 9, 9], [100, 100, 109, 118]], truth=truth, labels=[1, 1, 0], with_truth=False
    )
    np.testing.assert_allclose(class_overlaps(windows, 3), [[0, 1, 0], [10 / 19, 0, 0]])


def test_near_duplicates_by_iou(windows_of, mask_of):
    # 70 of 100 columns: IoU exactly .7 stays, above it goes.
    windows = windows_of([WIDE, [0, 0, 69, 99], [0, 0, 70, 99]])
    assert rows_of(mask_of(windows, 1, PAPER), 0) == [0, 1]


def test_the_first_is_kept_and_a_dropped_window_drops_nothing(windows_of, mask_of):
    # Neighbours overlap by 85 / 115, the next but one by 70 / 130: the second falls, so the third stays.
    chain = [[0, 0, 99, 9], [15, 0, 114, 9], [30, 0, 129, 9], [45, 0, 144, 9]]
    assert rows_of(mask_of(windows_of(chain), 1, PAPER), 0) == [0, 2]
    assert rows_of(mask_of(windows_of(chain[::-1]), 1, PAPER), 0) == [0, 2]
    assert rows_of(mask_of(windows_of(chain[1:]), 1, PAPER), 0) == [0, 2]


def test_only_negatives_of_the_class_drop_near_duplicates(windows_of, mask_of):
    # The ground truth of class 0 is no negative of that class, so it drops none there; of class 1 it is.
    windows = windows_of([[0, 0, 99, 24], [0, 0, 99, 33]], truth=[[0, 0, 99, 99]], labels=[0])
    mask = mask_of(windows, 2, PAPER)
    assert rows_of(mask, 0) == [1]
    assert rows_of(mask, 1) == [0, 1]


def test_near_duplicates_by_cells_and_scale(windows_of, mask_of):
    # An image of short side 480 at scale 480: pixels are the resized ones.  208 px square windows want 480.
    # first = floor((x1 - 5.5) / 16), last = ceil((x2 - 34.5) / 16): 102..309 gives cells 6..18 each.
    same = [[102, 102, 309, 309], [103, 104, 310, 308], [101, 102, 309, 309]]
    windows = windows_of(same, size=(480, 640))
    assert rows_of(mask_of(windows, 1, RELEASED), 0) == [0, 2]  # 101 lies in cell 5


def test_equal_cells_at_another_scale_are_no_duplicates(windows_of, mask_of):
    # Short side 480.  The first wants scale round(13 * 16 * 480 / 208) = 480, cells 6..18.  The second wants
    # round(99,840 / 173) = 577, so 576: scaled by 575 / 479 its corners are 102.03 and 308.5, cells 6..18 too.
    windows = windows_of([[102, 102, 309, 309], [85, 85, 257, 257]], size=(480, 640))
    assert rows_of(mask_of(windows, 1, RELEASED), 0) == [0, 1]


def test_windows_of_rcnn_have_no_cells(windows_of, mask_of):
    windows = windows_of([[102, 102, 309, 309], [102, 102, 309, 309]])
    assert rows_of(mask_of(windows, 1, RELEASED, method="rcnn"), 0) == [0, 1]
    assert rows_of(mask_of(windows, 1, PAPER, method="rcnn"), 0) == [0]


@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=lambda p: p.name)
def test_no_windows_and_no_objects(windows_of, mask_of, protocol):
    assert mask_of(windows_of(), 2, protocol).shape == (0, 2)
    everywhere = mask_of(windows_of([FAR, WIDE]), 2, protocol)
    assert everywhere.tolist() == [[True, True], [True, True]]


def released_cells(box, size):
    """(scale, cells) of a window inside the image by SPEC's formulas for ZF-5, which needs no clamp here."""
    width, height = box[2] - box[0] + 1, box[3] - box[1] + 1
    wanted = math.floor(13 * 16 * min(size) / math.sqrt(width * height) + 0.5)
    scale = min((480, 576, 688, 874, 1200), key=lambda s: (abs(s - wanted), s))
    x1, y1, x2, y2 = (c * (scale - 1) / (min(size) - 1) for c in box)
    first = [math.floor((c - 5.5) / 16) for c in (x1, y1)]
    last = [math.ceil((c - 34.5) / 16) for c in (x2, y2)]
    assert min(first) >= 0
    assert first[0] <= last[0]
    assert first[1] <= last[1]
    return scale, *first, *last


def crowd(rng, n):
    """Boxes inside a 500x400 image, well off its edges, many of them a pixel or two apart."""
    corner = rng.integers(20, 180, (n, 2))
    boxes = np.hstack([corner, corner + rng.integers(25, 180, (n, 2))])
    near = boxes[rng.integers(n, size=n)] + rng.integers(-2, 3, (n, 4))
    return rng.permutation(np.concatenate([boxes, near])).tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=lambda p: p.name)
def test_agrees_with_the_definition(windows_of, mask_of, iou_of, protocol, seed):
    rng = np.random.default_rng(seed)
    truth, labels = crowd(rng, 3), rng.integers(3, size=6).tolist()
    windows = windows_of(crowd(rng, 60), truth, labels)
    mask = mask_of(windows, 4, protocol)
    boxes = windows.boxes.tolist()
    for k in range(4):
        kept, seen = [], set()
        for i, box in enumerate(boxes):
            overlap = max(
                (iou_of(box, t) for t, own in zip(truth, labels, strict=True) if own == k), default=0
            )
            if protocol is PAPER:
                wanted = overlap <= 0.3 and not any(iou_of(box, boxes[j]) > 0.7 for j in kept)
            else:
                # The released code drops duplicates before it looks for negatives.
                cells = released_cells(box, (400, 500))
                wanted = overlap < 0.3 and cells not in seen
                seen.add(cells)
            if wanted:
                kept.append(i)
        assert rows_of(mask, k) == kept
        assert 0 < len(kept) < len(boxes)
