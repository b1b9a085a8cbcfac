import math

import numpy as np
import pytest

from sppnet_cli.data.voc import Annotation
from sppnet_cli.evaluation.voc_ap import (
    PrecisionRecall,
    average_precision_11,
    average_precisions,
    best_precision_11,
    image_average_precision,
    match_detections,
    mean_ap,
    precision_recall,
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


@pytest.mark.parametrize("n_right", range(11))
def test_recall_on_a_level_reaches_it(n_right):
    # 3 of 10 boxes found is a recall of .3, though 3 / 10 < 3 * 0.1 in floating point.
    for scale in (1, 3, 7):
        n = 10 * scale
        boxes = truth(*((100 * k, 0, 100 * k + 9, 9) for k in range(n)))
        detections = found(*((100 * k, 0, 100 * k + 9, 9, 1.0) for k in range(n_right * scale)))
        expected = (n_right + 1) / 11 if n_right else 0.0
        assert ap([detections], [boxes], [easy(n)]) == pytest.approx(expected, abs=1e-12)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="zip"):
        precision_recall(match_detections([found()], [truth(), truth()], [easy(0), easy(0)]))
    with pytest.raises(ValueError, match="1 boxes, but 2 flags"):
        precision_recall(match_detections([found()], [truth(TRUTH)], [easy(2)]))


def test_curve_is_taken_as_it_is():
    curve = PrecisionRecall(np.array([1.0, 0.5]), np.array([0.25, 0.25]), np.array([2.0, 1.0]), 4)
    assert average_precision_11(curve) == pytest.approx(3 / 11, abs=1e-6)


def test_curves_side_by_side():
    precision = np.array([[[1.0, 0.5]], [[0.0, 0.5]]])
    recall = np.array([[[0.25, 0.5]], [[0.0, 1.0]]])
    # 3 levels of 1 and 3 of .5; then .5 at all 11.
    np.testing.assert_allclose(best_precision_11(precision, recall), [[4.5 / 11], [0.5]])
    assert best_precision_11(np.empty((3, 0)), np.empty((3, 0))).tolist() == [0, 0, 0]


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
    for level in range(11):
        reached = [t / (t + f) for t, f in points if t + f and t * 10 >= level * n_positive]
        total += max(reached, default=0.0) / 11
    return total


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_the_devkit_on_random_data(seed):
    rng = np.random.default_rng(seed)
    detections, boxes, difficult = [], [], []
    for _ in range(6):
        n = int(rng.integers(0, 5))
        corner = rng.integers(0, 30, (n, 2))
        objects = np.hstack([corner, corner + rng.integers(4, 20, (n, 2))])
        near = np.repeat(objects, 3, axis=0) + rng.integers(-3, 4, (3 * n, 4))
        far = np.hstack([corner, corner + 6]) + 25
        rows = np.vstack([near, far])
        scores = rng.integers(0, 8, len(rows)) / 4  # many ties
        detections.append(np.column_stack([rows, scores]).astype(np.float32))
        boxes.append(objects.astype(np.float32))
        difficult.append(rng.random(n) < 0.25)
    assert not all(flags.all() for flags in difficult)
    assert ap(detections, boxes, difficult) == pytest.approx(
        devkit_ap(detections, boxes, difficult), abs=1e-12
    )
