import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sppnet_cli.detection.detector import Detection, Detector, detect_together
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import UsageError
from sppnet_cli.features.method import PooledWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.calibration import Calibration
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.protocols import PAPER, RELEASED

NAMES = ("cat", "dog", "emu")


def on_scores(
    classes=2, bbox=None, scale=1.0, bias=0.0, cascade=None, fast=None, protocol=PAPER, calibration=None
):
    """A detector whose features begin with the scores of its classes; a last one is the regressors'."""
    extractor = SimpleNamespace(device="cpu", network=SimpleNamespace(head=None))
    svms = Svms(np.eye(classes, classes + 1, dtype=np.float32), np.full(classes, bias, np.float32), scale)
    shortcuts = Shortcuts(cascade, {}) if cascade is not None else None
    return Detector(
        extractor,
        "pool5",
        NAMES[:classes],
        svms,
        bbox=bbox,
        shortcuts=shortcuts,
        protocol=protocol.name,
        calibration=calibration,
        fast=fast,
    )


def pooled(*scores, last=0.0):
    """Features of windows from a tuple of scores each."""
    return torch.tensor([[*row, last] for row in scores], dtype=torch.float32)


def detected(detector, features, boxes, size=(50, 100)):
    """Detections from the features `(N, D)` of windows `(N, 4)`, each distinct."""
    return detect_together([detector], [PooledWindows(features, np.arange(len(boxes)))], boxes, size)


def apart(n):
    """Boxes that do not touch."""
    return np.array([[20.0 * k, 0, 20 * k + 9, 9] for k in range(n)], dtype=np.float32)


def test_the_score_is_weights_on_scaled_features_and_a_bias():
    scores = on_scores(scale=0.5, bias=2.0).score_pooled(pooled((4, -6), (0, 1)))
    np.testing.assert_array_equal(scores, [[4, -1], [2, 2.5]])


def test_scores_are_strictly_above_the_threshold():
    found = detected(on_scores(), pooled((-1.5, -9), (-1.49, -9), (-9, -9)), apart(3))
    assert found == [Detection(0, pytest.approx(-1.49), (20.0, 0.0, 29.0, 9.0))]


def test_confidences_are_of_the_score_and_the_class():
    detector = on_scores(calibration=Calibration((2.0, 1.0), (0.0, -3.0), 0.0, 1.0))
    found = detected(detector, pooled((1, 3), (0, -9)), apart(2))
    assert [(d.label, d.score) for d in found] == [(1, 3), (0, 1), (0, 0)]  # ranked by the score
    assert [d.confidence for d in found] == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 0.5])
    assert [d.confidence for d in detected(on_scores(), pooled((1, 3)), apart(1))] == [None, None]
    both = [
        PooledWindows(pooled((1, 3)), np.arange(1))
    ] * 2  # whose scores compete: no curve is of their best
    assert {d.confidence for d in detect_together([detector, detector], both, apart(1), (50, 100))} == {None}


def test_suppression_is_by_class_and_at_three_tenths():
    # IoU with the first box: 3 of 10 pixels, then 4 of 10.
    boxes = np.array([[0, 0, 9, 0], [0, 0, 2, 0], [0, 0, 3, 0]], dtype=np.float32)
    found = detected(on_scores(), pooled((3, -9), (2, 5), (1, 4)), boxes)
    assert [(d.label, d.score, d.box[2]) for d in found] == [(1, 5, 2), (0, 3, 9), (0, 2, 2)]


def test_windows_of_two_detectors_compete_and_move_by_their_own_regressors():
    # Weights on the last feature, which is 1 here: the second detector moves its windows to the right by half.
    weights = np.zeros((2, 3, 4), np.float32)
    weights[:, 2, 0] = 0.5
    mover = on_scores(bbox=BoxRegressors(weights, np.zeros((2, 4), np.float32), 1.0))
    still = on_scores()
    boxes = apart(2)
    scores = [pooled((3, -9), (1, -9)), pooled((2, -9), (4, -9), last=1.0)]
    vectors = [PooledWindows(each, np.arange(2)) for each in scores]
    found = detect_together([still, mover], vectors, boxes, (50, 100))
    # Window 0 as the first detector scores it, window 1 as the second does; their other copies are suppressed.
    assert found == [Detection(0, 4, (24.5, 0.0, 33.5, 9.0)), Detection(0, 3, (0.0, 0.0, 9.0, 9.0))]


def test_the_best_100_of_every_class():
    scores = np.random.default_rng(0).permutation(np.linspace(-1.4, 3, 150))
    found = detected(on_scores(), pooled(*[(s, -s) for s in scores]), apart(150), (50, 4000))
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for label, sign in enumerate((1, -1)):
        own = sign * scores
        expected = np.sort(own[own > -1.5])[::-1][:100]
        np.testing.assert_allclose([d.score for d in found if d.label == label], expected, rtol=1e-6)


def test_a_class_of_minus_infinity_is_never_detected():
    detector = on_scores()
    svms = Svms(detector.svms.weights, np.array([0, -np.inf], dtype=np.float32), 1.0)
    never = Detector(detector.extractor, "pool5", NAMES[:2], svms)
    assert [d.label for d in detected(never, pooled((1, 1e6)), apart(1))] == [0]


def test_no_windows_and_no_detections():
    assert detected(on_scores(), torch.empty(0, 3), np.empty((0, 4), np.float32)) == []
    assert detected(on_scores(), pooled((-9, -9)), apart(1)) == []


LAST = Svms(np.array([[0, 0, 1], [0, 0, -2]], np.float32), np.array([0, 0.5], np.float32), 2.0)


@pytest.mark.parametrize(
    ("part", "passed"),
    [(0.2, [3]), (0.21, [1, 3]), (0.4, [1, 3]), (0.8, [1, 2, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_the_cascade_passes_the_windows_of_the_best_guesses(part, passed):
    # Guesses: the larger of 2x and 0.5 - 4x.
    x = torch.tensor([0.1, 1.0, -0.2, 3.0, 0.7])
    vectors = torch.cat([pooled(*[(k, -k) for k in range(5)])[:, :2], x[:, None]], dim=1)
    scores = on_scores(cascade=LAST, fast=FastOptions(cascade=part)).score_pooled(vectors)
    expected = np.full((5, 2), -np.inf)
    expected[passed] = [[k, -k] for k in passed]
    np.testing.assert_array_equal(scores, expected)
    assert on_scores(cascade=LAST).score_pooled(vectors).min() == -4  # it is there, but not asked


def test_windows_that_the_cascade_stops_are_no_detections():
    detector = on_scores(cascade=LAST, fast=FastOptions(cascade=0.5))
    vectors = torch.cat([pooled((9, 9), (5, 5), last=0.0), pooled((1, 1), (2, 2), last=1.0)])
    found = detected(detector, vectors, apart(4))
    assert sorted(d.score for d in found) == [1, 1, 2, 2]
    assert detected(detector, torch.empty(0, 3), np.empty((0, 4), np.float32)) == []


def test_no_cascade_without_one():
    with pytest.raises(UsageError, match="no cascade"):
        on_scores(fast=FastOptions(cascade=0.5))


def test_no_cut_without_axes(whole):
    plain = whole("fc6")
    with pytest.raises(UsageError, match="no axes to cut its fc layers by"):
        Detector(plain.extractor, "fc6", NAMES, plain.svms, fast=FastOptions((4,)))


def test_fc6_needs_fc_layers(whole):
    plain = whole()
    plain.extractor.network.head = None
    with pytest.raises(UsageError, match="fc6 needs fc layers"):
        Detector(plain.extractor, "fc6", NAMES, plain.svms)


@pytest.mark.parametrize(
    ("protocol", "kept"), [(PAPER, [0, 2]), (RELEASED, [1, 2])], ids=["paper", "released"]
)
def test_of_equal_scores_the_protocol_says_which_window_stays(protocol, kept):
    # Windows 0 and 1 overlap by 10 of 12 columns; 2 lies apart.
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10]], dtype=np.float32)
    found = detected(on_scores(protocol=protocol), pooled((1, -9), (1, -9), (1, -9)), boxes)
    assert sorted(d.box for d in found) == [tuple(boxes[k]) for k in kept]


@pytest.mark.parametrize(
    ("protocol", "kept"), [(PAPER, range(100)), (RELEASED, range(50, 150))], ids=["paper", "released"]
)
def test_of_equal_scores_the_protocol_says_which_are_among_the_best_100(protocol, kept):
    boxes = apart(150)
    found = detected(on_scores(protocol=protocol), pooled(*[(1, -9)] * 150), boxes, (50, 4000))
    assert sorted(d.box for d in found) == [tuple(boxes[k]) for k in kept]


@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=["paper", "released"])
def test_after_regression_ties_go_by_the_order_of_the_first_suppression(protocol):
    """Two windows of one score move onto nearly the same place.

    Both protocols keep window 0: `paper` as the first of (0, 1), `released` as the last of (1, 0), since the released
    code's first suppression hands the boxes on with the last of equals in front.
    """
    features = torch.tensor([[1.0, -9, 1.0], [1.0, -9, 0.0]])
    boxes = np.array([[0, 0, 10, 10], [11, 0, 21, 10]], dtype=np.float32)
    [found] = detected(on_scores(bbox=shifts(1.0), protocol=protocol), features, boxes)
    assert found.box == (10.0, 0.0, 20.0, 10.0)


def shifts(by):
    """Regressors that move boxes of class 0 to the right by `by` widths for each unit of the last feature."""
    weights = np.zeros((2, 3, 4), dtype=np.float32)
    weights[0, 2, 0] = by
    return BoxRegressors(weights, np.zeros((2, 4), dtype=np.float32), 1.0)


def test_boxes_move_after_suppression_and_the_score_stays():
    # x2 - x1 = 9 wide; half of that to the right.
    found = detected(on_scores(bbox=shifts(0.5)), pooled((1, 2), last=1.0), apart(1))
    assert [(d.label, d.score) for d in found] == [(1, 2), (0, 1)]
    np.testing.assert_allclose(found[0].box, [0, 0, 9, 9])
    np.testing.assert_allclose(found[1].box, [4.5, 0, 13.5, 9])


def test_moved_boxes_stay_in_the_image():
    [found] = detected(on_scores(bbox=shifts(0.5)), pooled((1, -9), last=1.0), apart(1), (5, 12))
    np.testing.assert_allclose(found.box, [4.5, 0, 11, 4])


def test_boxes_that_move_onto_each_other_are_suppressed():
    # Side by side; the first, and lower, moves onto the second.
    features = torch.tensor([[1.0, -9, 1.0], [2.0, -9, 0.0]])
    boxes = np.array([[0, 0, 10, 10], [11, 0, 21, 10]], dtype=np.float32)
    assert len(detected(on_scores(), features, boxes)) == 2
    [found] = detected(on_scores(bbox=shifts(1.1)), features, boxes)
    assert (found.score, found.box) == (2.0, (11.0, 0.0, 21.0, 10.0))


def test_boxes_that_would_move_apart_were_suppressed_before():
    features = torch.tensor([[1.0, -9, 5.0], [2.0, -9, 0.0]])
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], dtype=np.float32)
    assert len(detected(on_scores(bbox=shifts(1.0)), features, boxes)) == 1


IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BOXES = np.array([[0, 0, 119, 89], [10, 5, 60, 70], [40, 30, 100, 80], [70, 10, 110, 60]], dtype=np.float32)


def test_scores_are_those_of_the_layers_features(whole):
    detector = whole("fc7", tuned=True)
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    with torch.no_grad():
        head = detector.head
        fc6 = torch.relu(vectors * 0.01 @ head.fc6.weight.T + head.fc6.bias)
        fc7 = torch.relu(fc6 @ head.fc7.weight.T + head.fc7.bias).double().numpy()
    expected = 0.0123456789012345 * fc7 @ detector.svms.weights.T.astype(np.float64) + detector.svms.bias
    np.testing.assert_allclose(detector.set_image(IMAGE).score(BOXES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_setting_an_image_is_pooling_its_windows(whole, method):
    detector = whole("fc6", method, regressed=True)
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    straight = detected(detector, vectors, BOXES, (90, 120))
    assert detector.set_image(IMAGE[:, ::-1].copy()).detect(BOXES) != straight
    assert detector.set_image(IMAGE).detect(BOXES) == straight
    assert len(straight) > 1
    for found in straight:
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 <= x2 <= 119
        assert 0 <= y1 <= y2 <= 89
    assert detector.detect(np.empty((0, 4), np.float32)) == []


def test_windows_of_the_same_cells_score_and_move_alike(whole):
    detector = whole("fc7", tuned=True, regressed=True)
    boxes = np.concatenate([BOXES, BOXES + np.array([1, 0, 0, 1], np.float32) / 8])
    prepared = detector.extractor.prepare(IMAGE)
    assert len(detector.extractor.pool_distinct(prepared, boxes).vectors) < len(boxes)
    vectors = detector.extractor.pool(prepared, boxes)
    # One by one: a product of another shape may round otherwise.
    scores = detector.set_image(IMAGE).score(boxes)
    np.testing.assert_allclose(scores, detector.score_pooled(vectors), rtol=1e-6, atol=1e-6)
    straight = detected(detector, vectors, boxes, (90, 120))
    found = detector.detect(boxes)
    assert len(found) == len(straight) > 1
    for one, other in zip(found, straight, strict=True):
        assert one.label == other.label
        assert one.score == pytest.approx(other.score, rel=1e-6)
        assert one.box == pytest.approx(other.box, rel=1e-6)


def test_all_windows_through_the_cascade_are_as_without(folder):
    plain = Detector.load(folder).set_image(IMAGE)
    passing = Detector.load(folder, fast=FastOptions(cascade=1.0)).set_image(IMAGE)
    np.testing.assert_array_equal(passing.score(BOXES), plain.score(BOXES))
    assert passing.detect(BOXES) == plain.detect(BOXES)
    half = Detector.load(folder, fast=FastOptions(cascade=0.5)).set_image(IMAGE).score(BOXES)
    guess = passing.shortcuts.cascade
    vectors = plain.extractor.pool(plain.extractor.prepare(IMAGE), BOXES).numpy()
    order = np.argsort(-(guess.scale * vectors @ guess.weights.T + guess.bias).max(axis=1))
    assert np.flatnonzero((half > -np.inf).any(axis=1)).tolist() == sorted(order[:2])


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("ranks", [(8,), (8, 5)])
def test_cut_layers_score_as_their_projection_does(whole, tmp_path, ranks, method):
    whole("fc7", method, tuned=True).save(tmp_path)
    detector = Detector.load(tmp_path, fast=FastOptions(ranks))
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    exact = Detector.load(tmp_path)
    x = vectors.double().numpy() * 0.01
    for name, rank in zip(("fc6", "fc7"), (*ranks, None), strict=False):
        layer, (axes, mean) = getattr(exact.head, name), exact.shortcuts.axes[name]
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if rank is not None:
            axes, mean = axes[:, :rank].double().numpy(), mean.double().numpy()
            x = mean + (x - mean) @ axes @ axes.T
        x = np.maximum(x, 0)
    expected = exact.svms.scale * x @ exact.svms.weights.T + exact.svms.bias
    np.testing.assert_allclose(detector.score_pooled(vectors), expected, rtol=1e-4, atol=1e-4)
    assert (exact.score_pooled(vectors) != detector.score_pooled(vectors)).any()


def test_in_bf16_scores_are_nearly_the_same(folder, bf16_anywhere):
    exact = Detector.load(folder).set_image(IMAGE).score(BOXES)
    for fast in (None, FastOptions(cascade=1.0), FastOptions((8, 5), 1.0)):
        expected = exact if fast is None else Detector.load(folder, fast=fast).set_image(IMAGE).score(BOXES)
        detector = Detector.load(folder, fast=fast, precision="bf16").set_image(IMAGE)
        found = detector.score(BOXES)
        assert found.dtype == np.float32
        assert (found[:, :2] != expected[:, :2]).any()
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * np.abs(expected[:, :2]).max())
        assert len(detector.detect(BOXES)) > 0  # regressed too


def test_of_fc6_only_the_first_rank_counts(whole, tmp_path):
    whole("fc6").save(tmp_path)
    vectors = torch.rand(4, 800)
    first, both = (
        Detector.load(tmp_path, fast=FastOptions(r)).score_pooled(vectors) for r in ((5,), (5, 99))
    )
    np.testing.assert_array_equal(first, both)
