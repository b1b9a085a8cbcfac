import math

import numpy as np
import pytest

from sppnet_cli.data.voc import Annotation
from sppnet_cli.evaluation.voc_ap import (
    RECALL_LEVELS,
    PrecisionRecall,
    average_precision_11,
    average_precisions,
    image_average_precision,
    interpolated_precision,
    match_detections,
    mean_ap,
    precision_recall,
    resampled_average_precision,
)

TRUTH = (0, 0, 9, 9)  # 100 inclusive pixels
HALF = (0, 0, 9, 4)  # 50 of them: IoU exactly .5
FAR = (50, 50, 59, 59)


def found(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def truth(*rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def easy(n):
    return np.zeros(n, dtype=bool)


def ap(detections, boxes, difficult):
    return average_precision_11(precision_recall(match_detections(detections, boxes, difficult)))


def test_one_right_detection_is_perfect():
    curve = precision_recall(match_detections([found((*TRUTH, 0.9))], [truth(TRUTH)], [easy(1)]))
    assert curve.precision.tolist() == [1.0]
    assert curve.recall.tolist() == [1.0]
    assert curve.scores.tolist() == [0.9]
    assert curve.n_positive == 1
    assert average_precision_11(curve) == 1.0


def test_wrong_before_right():
    detections = [found((*FAR, 0.9), (*TRUTH, 0.8))]
    assert ap(detections, [truth(TRUTH)], [easy(1)]) == pytest.approx(0.5, abs=1e-6)


def test_half_of_the_boxes_found():
    # Recall .5 reaches the levels 0, .1, .., .5: six of eleven.
    assert ap([found((*TRUTH, 1.0))], [truth(TRUTH, FAR)], [easy(2)]) == pytest.approx(6 / 11, abs=1e-6)


def test_second_match_of_a_box_is_wrong():
    detections = [found((*TRUTH, 0.9), (0, 0, 9, 8, 0.8), (*FAR, 0.7))]
    curve = precision_recall(match_detections(detections, [truth(TRUTH, FAR)], [easy(2)]))
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.recall, [0.5, 0.5, 1])
    # Levels 0 to .5: precision 1; .6 to 1: 2/3.
    assert average_precision_11(curve) == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-6)


def test_second_match_does_not_fall_to_the_next_best_box():
    # Both detections overlap the first box most; the second one would also match the other box at .5 or more.
    boxes = truth((0, 0, 9, 9), (0, 0, 9, 11))
    detections = [found((0, 0, 9, 9, 0.9), (0, 0, 9, 8, 0.8))]
    curve = precision_recall(match_detections(detections, [boxes], [easy(2)]))
    np.testing.assert_allclose(curve.recall, [0.5, 0.5])


def test_iou_of_exactly_a_half_is_right_and_less_is_wrong():
    assert ap([found((*HALF, 1.0))], [truth(TRUTH)], [easy(1)]) == 1.0
    # Without the +1 HALF would have an IoU of 36/81.
    assert ap([found((0, 0, 9, 3.9, 1.0))], [truth(TRUTH)], [easy(1)]) == 0.0


def test_match_with_a_difficult_box_is_ignored_each_time():
    detections = [found((*TRUTH, 0.9), (*TRUTH, 0.8), (*FAR, 0.7))]
    curve = precision_recall(match_detections(detections, [truth(TRUTH, FAR)], [np.array([True, False])]))
    assert curve.n_positive == 1
    np.testing.assert_array_equal(curve.precision, [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(curve.recall, [0, 0, 1])
    assert average_precision_11(curve) == 1.0


def test_difficult_box_takes_the_detection_that_overlaps_it_most():
    # IoU .9 with the difficult box, .75 with the other: ignored, and the other stays unfound.
    boxes = truth((0, 0, 9, 9), (0, 0, 9, 11))
    detections = [found((0, 0, 9, 8, 1.0))]
    assert ap(detections, [boxes], [np.array([True, False])]) == 0.0


def test_detections_of_difficult_boxes_alone_give_zero():
    detections = [found((*TRUTH, 1.0)), found()]
    assert ap(detections, [truth(TRUTH), truth(FAR)], [np.array([True]), easy(1)]) == 0.0


def test_equal_scores_keep_the_order_of_images_then_rows():
    wrong_first = [found((*FAR, 0.5)), found((*TRUTH, 0.5))]
    right_first = [found((*TRUTH, 0.5)), found((*FAR, 0.5))]
    assert ap(wrong_first, [truth(), truth(TRUTH)], [easy(0), easy(1)]) == pytest.approx(0.5, abs=1e-6)
    assert ap(right_first, [truth(TRUTH), truth()], [easy(1), easy(0)]) == 1.0
    assert ap([found((*FAR, 0.5), (*TRUTH, 0.5))], [truth(TRUTH)], [easy(1)]) == pytest.approx(0.5, abs=1e-6)


def test_detection_matches_boxes_of_its_own_image_only():
    assert ap([found((*TRUTH, 1.0)), found()], [truth(), truth(TRUTH)], [easy(0), easy(1)]) == 0.0


def test_no_positives_is_nan_and_no_detections_is_zero():
    assert math.isnan(ap([found((*TRUTH, 1.0))], [truth()], [easy(0)]))
    assert math.isnan(ap([found()], [truth(TRUTH)], [np.array([True])]))
    assert math.isnan(ap([], [], []))
    assert ap([found()], [truth(TRUTH)], [easy(1)]) == 0.0


def test_recall_levels_are_matlabs_to_the_last_bit():
    # `sprintf("%bx", 0:0.1:1)`: the doubles nearest to k/10, but for the fourth, which is one step above that of .3.
    assert [level.hex() for level in RECALL_LEVELS.tolist()] == [
        "0x0.0p+0",
        "0x1.999999999999ap-4",
        "0x1.999999999999ap-3",
        "0x1.3333333333334p-2",
        "0x1.999999999999ap-2",
        "0x1.0000000000000p-1",
        "0x1.3333333333333p-1",
        "0x1.6666666666666p-1",
        "0x1.999999999999ap-1",
        "0x1.ccccccccccccdp-1",
        "0x1.0000000000000p+0",
    ]
    # MATLAB builds a range from both ends, `start + k * step` and `end - k * step`.
    ends = [k * 0.1 for k in range(6)], [1 - k * 0.1 for k in range(5)]
    assert RECALL_LEVELS.tolist() == [*ends[0], *reversed(ends[1])]


@pytest.mark.parametrize("n_right", range(11))
@pytest.mark.parametrize("scale", [1, 3, 7])
def test_recall_of_exactly_a_level(n_right, scale):
    n = 10 * scale
    boxes = truth(*((100 * k, 0, 100 * k + 9, 9) for k in range(n)))
    detections = found(*((100 * k, 0, 100 * k + 9, 9, 1.0) for k in range(n_right * scale)))
    # A recall of 3/10 reaches 0, .1 and .2 alone.
    levels = {0: 0, 3: 3}.get(n_right, n_right + 1)
    assert ap([detections], [boxes], [easy(n)]) == pytest.approx(levels / 11, abs=1e-12)


def test_a_recall_just_above_three_tenths_reaches_the_fourth_level():
    # 4 of 13 boxes are .3077.
    boxes = truth(*((100 * k, 0, 100 * k + 9, 9) for k in range(13)))
    assert ap([found(*((*box, 1.0) for box in boxes[:4]))], [boxes], [easy(13)]) == pytest.approx(4 / 11)


def test_average_precision_is_summed_as_the_devkit_does():
    # Precision 1/3 at every level: adding up (1/3)/11 eleven times rounds elsewhere than 11 * (1/3) / 11.
    summed = 0.0
    for _ in range(11):
        summed += (1 / 3) / 11
    assert summed != 1 / 3
    assert ap([found((*FAR, 0.9), (*FAR, 0.8), (*TRUTH, 0.7))], [truth(TRUTH)], [easy(1)]) == summed


@pytest.mark.parametrize(
    "box", [(9, 0, 0, 9), (0, 9, 9, 0), (9, 9, 0, 0), (5, 0, 4, 9), (0, 0, -11, 9), (500, 500, 509, 509)]
)
def test_a_box_without_area_or_outside_the_image_is_a_false_positive(box):
    # (0, 0, -11, 9) has -100 pixels, so that its union with TRUTH is 0.
    matches = match_detections([found((*box, 0.9), (*TRUTH, 0.8))], [truth(TRUTH)], [easy(1)])
    assert matches.marks.tolist() == [0, 1]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="zip"):
        precision_recall(match_detections([found()], [truth(), truth()], [easy(0), easy(0)]))
    with pytest.raises(ValueError, match="1 boxes, but 2 flags"):
        precision_recall(match_detections([found()], [truth(TRUTH)], [easy(2)]))


def test_curve_is_taken_as_it_is():
    curve = PrecisionRecall(np.array([1.0, 0.5]), np.array([0.25, 0.25]), np.array([2.0, 1.0]), 4)
    assert average_precision_11(curve) == pytest.approx(3 / 11, abs=1e-6)


def test_levels_of_curves():
    precision = np.array([[[1.0, 0.5]], [[np.nan, 0.5]]])
    recall = np.array([[[0.25, 0.5]], [[0.0, 1.0]]])
    expected = [[[1] * 3 + [0.5] * 3 + [0] * 5], [[0.5] * 11]]
    assert interpolated_precision(precision, recall).tolist() == expected
    assert interpolated_precision(np.empty((3, 0)), np.empty((3, 0))).tolist() == [[0] * 11] * 3
    assert interpolated_precision(np.ones(4), np.full(4, np.nan)).tolist() == [0] * 11


def image_ap(scores, labels):
    return image_average_precision(np.array(scores, dtype=np.float32), np.array(labels, dtype=np.int8))


def test_images_ranked_for_one_class():
    assert image_ap([0.1, 0.9, 0.8], [-1, 1, 1]) == 1.0
    # Right, wrong, right: precision 1 up to recall .5, 2/3 up to 1.
    assert image_ap([0.9, 0.2, 0.5], [1, 1, -1]) == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-12)
    # Wrong, wrong, right.
    assert image_ap([-1.0, -2.0, -3.0], [-1, -1, 1]) == pytest.approx(1 / 3, abs=1e-12)


def test_an_image_with_difficult_objects_alone_is_left_out():
    assert image_ap([0.9, 0.8, 0.7], [0, 1, -1]) == 1.0
    assert image_ap([0.9, 0.8], [1, 0]) == 1.0  # it is no positive that was missed either


def test_images_of_equal_scores_keep_their_order():
    assert image_ap([0.5, 0.5], [1, -1]) == 1.0
    assert image_ap([0.5, 0.5], [-1, 1]) == pytest.approx(0.5, abs=1e-12)


def test_no_positive_image_is_nan():
    assert math.isnan(image_ap([0.5, 0.4], [-1, 0]))
    assert math.isnan(image_ap([0.5], [0]))
    assert math.isnan(image_ap([], []))


def test_images_and_labels_must_agree():
    with pytest.raises(ValueError, match="1 scores, but 2 labels"):
        image_ap([0.5], [1, -1])


def test_average_precisions_split_the_annotations_by_class():
    annotations = [
        Annotation(truth(TRUTH, FAR), np.array([0, 1]), easy(2), (100, 100)),
        Annotation(truth(TRUTH), np.array([1]), np.array([True]), (100, 100)),
    ]
    detections = {
        "cat": [found((*TRUTH, 0.9)), found((*TRUTH, 1.0))],
        "dog": [found((*FAR, 0.9)), found((*TRUTH, 1.0))],
        "owl": [found(), found((*TRUTH, 1.0))],
    }
    aps = average_precisions(detections, annotations, ("cat", "dog", "owl"))
    assert list(aps) == ["cat", "dog", "owl"]
    assert aps["cat"] == pytest.approx(0.5, abs=1e-6)
    assert aps["dog"] == 1.0
    assert math.isnan(aps["owl"])
    assert mean_ap(aps.values()) == pytest.approx(0.75, abs=1e-6)


def test_mean_of_nothing_is_nan():
    assert math.isnan(mean_ap([math.nan]))
    assert math.isnan(mean_ap([]))


def devkit_ap(detections, boxes, difficult):
    """VOCevaldet.m, line by line in plain Python."""
    rows = [(-row[4], i, j) for i, image in enumerate(detections) for j, row in enumerate(image.tolist())]
    detected = [[False] * len(image) for image in boxes]
    n_positive = sum(not flag for image in difficult for flag in image)
    tp = fp = 0
    points = []
    for _, i, j in sorted(rows):
        x1, y1, x2, y2, _ = detections[i][j].tolist()
        best, best_overlap = -1, -1.0
        for k, (a1, b1, a2, b2) in enumerate(boxes[i].tolist()):
            width, height = min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - width * height
                if width * height / union > best_overlap:
                    best, best_overlap = k, width * height / union
        if best_overlap < 0.5:
            fp += 1
        elif not difficult[i][best]:
            if detected[i][best]:
                fp += 1
            else:
                tp += 1
                detected[i][best] = True
        points.append((tp, fp))
    total = 0.0
    for level in range(11):  # whole numbers: the fourth level lies just above 3/10
        reached = [t / (t + f) for t, f in points if t + f and t * 10 >= level * n_positive + (level == 3)]
        total += max(reached, default=0.0) / 11
    return min(total, 1.0)


def random_images(seed, ties):
    """Detections, boxes and flags of difficulty of six images, many of them near misses and second matches."""
    rng = np.random.default_rng(seed)
    detections, boxes, difficult = [], [], []
    for _ in range(6):
        n = int(rng.integers(0, 5))
        corner = rng.integers(0, 30, (n, 2))
        objects = np.hstack([corner, corner + rng.integers(4, 20, (n, 2))])
        near = np.repeat(objects, 3, axis=0) + rng.integers(-3, 4, (3 * n, 4))
        far = np.hstack([corner, corner + 6]) + 25
        rows = np.vstack([near, far])
        scores = rng.integers(0, 8, len(rows)) / 4 if ties else rng.random(len(rows))
        detections.append(np.column_stack([rows, scores]))
        boxes.append(objects.astype(np.float32))
        difficult.append(rng.random(n) < 0.25)
    assert not all(flags.all() for flags in difficult)
    return detections, boxes, difficult


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_devkit_on_random_data(seed):
    images = random_images(seed, ties=True)
    assert ap(*images) == devkit_ap(*images)  # to the last bit


@pytest.mark.parametrize("seed", range(20))
def test_ap_of_resampled_images_is_the_devkits_of_images_that_are_there_so_often(seed):
    images = random_images(seed, ties=False)
    matches = match_detections(*images)
    positives = np.array([(~flags).sum() for flags in images[2]])
    weights = np.array([[1] * 6, [2, 2, 1, 1, 1, 0], [0, 1, 2, 0, 3, 1]])
    aps = resampled_average_precision(matches.marks, matches.image, positives, weights)
    for counts, resampled in zip(weights, aps, strict=True):
        repeated = [np.repeat(np.arange(6), counts).tolist()] * 3
        again = ([part[i] for i in order] for part, order in zip(images, repeated, strict=True))
        expected = devkit_ap(*again) if counts @ positives else math.nan
        assert resampled == pytest.approx(expected, abs=0, nan_ok=True)


def test_many_resamples_are_worked_through_in_parts():
    # A right one and 999 wrong ones of one image, 5,000 times: five million entries.
    marks = np.zeros(1000, int)
    marks[1] = 1
    weights = np.repeat([[1], [2], [0]], [3000, 1999, 1], axis=0)
    aps = resampled_average_precision(marks, np.zeros(1000, int), np.array([1]), weights)
    assert aps.shape == (5000,)
    # Two copies of a wrong entry, then two of the right one: 2 of 4.
    np.testing.assert_allclose(aps[:-1], 0.5, rtol=1e-12)
    assert math.isnan(aps[-1])
