import numpy as np
import pytest

from sppnet_cli.detection.nms import nms, select_per_class


def greedy(boxes, scores, threshold, ties):
    """The definition, in plain Python."""
    kept = []
    later = -1 if ties == "last" else 1
    for i in sorted(range(len(boxes)), key=lambda k: (-scores[k], later * k)):
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


@pytest.mark.parametrize("ties", ["first", "last"])
@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_the_definition(seed, ties):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (60, 2))
    boxes = np.hstack([corner, corner + rng.integers(0, 25, (60, 2))])
    scores = rng.integers(0, 20, 60) / 4  # many ties
    for threshold in (0.1, 0.3, 0.5):
        expected = greedy(boxes.tolist(), scores.tolist(), threshold, ties)
        assert nms(boxes, scores, threshold, ties).tolist() == expected


def test_an_overlap_of_exactly_the_threshold_survives():
    # 3 of 10 inclusive pixels: IoU exactly .3.
    boxes = np.array([[0, 0, 9, 0], [0, 0, 2, 0]], dtype=np.float32)
    scores = np.array([1.0, 0.5], dtype=np.float32)
    assert nms(boxes, scores, 0.3, "first").tolist() == [0, 1]
    assert nms(boxes, scores, 0.2999, "first").tolist() == [0]


def test_the_last_pixel_counts():
    # IoU 1/3 with the +1; without it the second box would be empty.
    boxes = np.array([[0, 0, 2, 0], [0, 0, 0, 0]])
    assert nms(boxes, np.array([2.0, 1.0]), 0.3, "first").tolist() == [0]


def by_multimap(boxes, scores, threshold):
    """`nms_mex.cpp` line by line: a multimap keeps equal keys in the order of their insertion."""
    entries = sorted(((scores[i], i) for i in range(len(scores))), key=lambda entry: entry[0])  # stable
    picked = []
    while entries:
        last = entries[-1][1]  # scores.rbegin()->second
        picked.append(last)
        remaining = []
        for score, i in entries:
            width = max(0, min(boxes[i][2], boxes[last][2]) - max(boxes[i][0], boxes[last][0]) + 1)
            height = max(0, min(boxes[i][3], boxes[last][3]) - max(boxes[i][1], boxes[last][1]) + 1)
            areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (boxes[i], boxes[last])]
            if width * height / (sum(areas) - width * height) <= threshold:
                remaining.append((score, i))
        entries = remaining
    return picked


@pytest.mark.parametrize("seed", range(10))
def test_last_is_the_released_codes_multimap(seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (60, 2))
    boxes = np.hstack([corner, corner + rng.integers(0, 25, (60, 2))])
    scores = rng.integers(0, 4, 60) / 4
    assert nms(boxes, scores, 0.3, "last").tolist() == by_multimap(boxes.tolist(), scores.tolist(), 0.3)


@pytest.mark.parametrize(("ties", "order"), [("first", [0, 1, 2]), ("last", [2, 1, 0])])
def test_which_of_equal_scores_comes_before_the_others(ties, order):
    same = np.tile([0.0, 0.0, 9.0, 9.0], (3, 1))
    assert nms(same, np.zeros(3), 0.3, ties).tolist() == order[:1]
    apart = np.array([[20.0 * k, 0, 20.0 * k + 9, 9] for k in range(3)])
    assert nms(apart, np.zeros(3), 0.3, ties).tolist() == order


def test_a_chain_of_equal_scores_by_hand():
    # Neighbours overlap by 6 of 14 columns (.43), the outer two by 2 of 18 (.11).
    chain = np.array([[0, 0, 9, 0], [4, 0, 13, 0], [8, 0, 17, 0]])
    assert nms(chain, np.array([1.0, 1.0, 0.5]), 0.3, "first").tolist() == [0, 2]
    assert nms(chain, np.array([1.0, 1.0, 0.5]), 0.3, "last").tolist() == [1]


def test_a_suppressed_box_suppresses_nothing():
    boxes = np.array([[0, 0, 9, 9], [0, 4, 9, 13], [0, 8, 9, 17]])
    assert nms(boxes, np.array([3.0, 2.0, 1.0]), 0.3, "first").tolist() == [0, 2]


@pytest.mark.parametrize("ties", ["first", "last"])
def test_no_boxes(ties):
    assert nms(np.empty((0, 4)), np.empty(0), 0.3, ties).shape == (0,)
    assert nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.3, ties).dtype == np.int64


def test_the_arguments_stay_as_they_are():
    boxes = np.array([[0.0, 0.0, 9.0, 9.0]])
    nms(boxes, np.ones(1), 0.3, "first")
    assert boxes.tolist() == [[0.0, 0.0, 9.0, 9.0]]


WINDOWS = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [50, 50, 59, 59], [80, 80, 89, 89]], dtype=np.float32)
SCORES = np.array([[0.5, -2.0], [1.0, -1.5], [0.25, -1.4], [2.0, 0.0]], dtype=np.float32)
OPTIONS = {"score_threshold": -1.5, "iou": 0.3, "ties": "first", "max_per_image": 2}


def test_select_per_class_takes_the_best_above_the_threshold():
    selected = select_per_class(WINDOWS, SCORES, **OPTIONS)
    # Class 0: 3, then 1 (which suppresses 0); 2 is one too many.  Class 1: -1.5 is not above -1.5.
    assert [kept.tolist() for kept in selected] == [[3, 1], [3, 2]]


@pytest.mark.parametrize(("ties", "kept"), [("first", [0, 1]), ("last", [2, 1])])
def test_the_best_few_of_equal_scores(ties, kept):
    options = OPTIONS | {"ties": ties}
    apart = np.array([[20.0 * k, 0, 20.0 * k + 9, 9] for k in range(3)])
    assert [rows.tolist() for rows in select_per_class(apart, np.zeros((3, 1)), **options)] == [kept]


def test_nothing_above_the_threshold():
    options = OPTIONS | {"score_threshold": 9.0}
    assert [rows.shape for rows in select_per_class(WINDOWS, SCORES, **options)] == [(0,), (0,)]
    empty = select_per_class(np.empty((0, 4)), np.empty((0, 3)), **OPTIONS)
    assert [rows.shape for rows in empty] == [(0,)] * 3
