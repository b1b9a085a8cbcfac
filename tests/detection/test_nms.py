import numpy as np
import pytest

from sppnet_cli.detection.nms import nms, nms_per_class, select_per_class


def greedy(boxes, scores, threshold):
    """The definition, in plain Python."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda k: (-scores[k], k)):
        x1, y1, x2, y2 = boxes[i]
        for j in kept:
            a1, b1, a2, b2 = boxes[j]
            width = max(0, min(x2, a2) - max(x1, a1) + 1)
            height = max(0, min(y2, b2) - max(y1, b1) + 1)
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - width * height
            if width * height / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_the_definition(seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (60, 2))
    boxes = np.hstack([corner, corner + rng.integers(0, 25, (60, 2))])
    scores = rng.integers(0, 20, 60) / 4  # many ties
    for threshold in (0.1, 0.3, 0.5):
        assert nms(boxes, scores, threshold).tolist() == greedy(boxes.tolist(), scores.tolist(), threshold)


def test_an_overlap_of_exactly_the_threshold_survives():
    # 3 of 10 inclusive pixels: IoU exactly .3.
    boxes = np.array([[0, 0, 9, 0], [0, 0, 2, 0]], dtype=np.float32)
    scores = np.array([1.0, 0.5], dtype=np.float32)
    assert nms(boxes, scores, 0.3).tolist() == [0, 1]
    assert nms(boxes, scores, 0.2999).tolist() == [0]


def test_the_last_pixel_counts():
    # IoU 1/3 with the +1; without it the second box would be empty.
    boxes = np.array([[0, 0, 2, 0], [0, 0, 0, 0]])
    assert nms(boxes, np.array([2.0, 1.0]), 0.3).tolist() == [0]


def test_of_equal_scores_the_lower_index_survives():
    boxes = np.tile([0.0, 0.0, 9.0, 9.0], (50, 1))
    assert nms(boxes, np.zeros(50), 0.3).tolist() == [0]
    apart = np.array([[20.0 * k, 0, 20.0 * k + 9, 9] for k in range(50)])
    assert nms(apart, np.zeros(50), 0.3).tolist() == list(range(50))


def test_a_suppressed_box_suppresses_nothing():
    boxes = np.array([[0, 0, 9, 9], [0, 4, 9, 13], [0, 8, 9, 17]])
    assert nms(boxes, np.array([3.0, 2.0, 1.0]), 0.3).tolist() == [0, 2]


def test_no_boxes():
    assert nms(np.empty((0, 4)), np.empty(0), 0.3).shape == (0,)
    assert nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.3).dtype == np.int64


def test_the_arguments_stay_as_they_are():
    boxes = np.array([[0.0, 0.0, 9.0, 9.0]])
    nms(boxes, np.ones(1), 0.3)
    assert boxes.tolist() == [[0.0, 0.0, 9.0, 9.0]]


WINDOWS = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [50, 50, 59, 59], [80, 80, 89, 89]], dtype=np.float32)
SCORES = np.array([[0.5, -2.0], [1.0, -1.5], [0.25, -1.4], [2.0, 0.0]], dtype=np.float32)
OPTIONS = {"score_threshold": -1.5, "iou": 0.3, "max_per_image": 2}


def test_select_per_class_takes_the_best_above_the_threshold():
    selected = select_per_class(WINDOWS, SCORES, **OPTIONS)
    # Class 0: 3, then 1 (which suppresses 0); 2 is one too many.  Class 1: -1.5 is not above -1.5.
    assert [kept.tolist() for kept in selected] == [[3, 1], [3, 2]]


def test_nms_per_class_gives_boxes_and_scores():
    first, second = nms_per_class(WINDOWS, SCORES, **OPTIONS)
    assert first.tolist() == [[80, 80, 89, 89, 2.0], [0, 0, 9, 8, 1.0]]
    assert second.shape == (2, 5)
    assert first.dtype == np.float32


def test_boxes_may_differ_by_class():
    boxes = np.stack([WINDOWS, WINDOWS + 100], axis=1)
    boxes[1, 0] = boxes[3, 0]  # for class 0 window 1 has moved onto window 3
    first, second = nms_per_class(boxes, SCORES, **OPTIONS)
    assert first.tolist() == [[80, 80, 89, 89, 2.0], [0, 0, 9, 9, 0.5]]
    assert second[:, :4].tolist() == [[180, 180, 189, 189], [150, 150, 159, 159]]


def test_nothing_above_the_threshold():
    options = OPTIONS | {"score_threshold": 9.0}
    assert [rows.shape for rows in nms_per_class(WINDOWS, SCORES, **options)] == [(0, 5), (0, 5)]
    empty = nms_per_class(np.empty((0, 4)), np.empty((0, 3)), **OPTIONS)
    assert [rows.shape for rows in empty] == [(0, 5)] * 3
