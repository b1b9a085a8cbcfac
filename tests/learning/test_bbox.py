import numpy as np
import pytest

from sppnet_cli.errors import SppnetError
from sppnet_cli.features.methods import METHODS
from sppnet_cli.learning import bbox
from sppnet_cli.learning.bbox import BoxRegressors, decode, encode, train_bbox
from sppnet_cli.learning.ridge import Ridge, ridge_memory
from sppnet_cli.protocols import PAPER, RELEASED, BboxRules, take

RULES = take(BboxRules, PAPER)

BOX = np.array([[10.0, 20.0, 30.0, 60.0]])  # w = 20, h = 40, centre (20, 40)
TARGET = np.array([[14.0, 24.0, 44.0, 64.0]])  # w = 30, h = 40, centre (29, 44)
DELTAS = [[9 / 20, 4 / 40, np.log(1.5), 0.0]]


def test_deltas_by_hand():
    # Widths are x2 - x1, without the pixel that areas count.
    np.testing.assert_allclose(encode(BOX, TARGET), DELTAS, atol=1e-12)
    np.testing.assert_allclose(decode(BOX, np.array(DELTAS)), TARGET)


def test_decoding_undoes_encoding():
    rng = np.random.default_rng(0)
    corner, other = rng.uniform(0, 200, (2, 100, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 300, (100, 2))])
    targets = np.hstack([other, other + rng.uniform(5, 300, (100, 2))])
    deltas = encode(boxes, targets)
    np.testing.assert_allclose(decode(boxes, deltas), targets, atol=1e-9)
    np.testing.assert_allclose(decode(boxes, np.zeros((100, 4))), boxes)
    assert deltas.dtype == decode(boxes.astype(np.float32), deltas.astype(np.float32)).dtype == np.float64


@pytest.fixture
def fits(monkeypatch):
    """The ridges that `train_bbox` solves, in order, each with `x`, `y` and `penalty`."""
    seen = []

    class Spy(Ridge):
        def __init__(self, targets, dimension, penalty):
            super().__init__(targets, dimension, penalty)
            self.x, self.y, self.penalty = np.empty((0, dimension)), targets, penalty

        def add(self, features):
            super().add(features)
            self.x = np.concatenate([self.x, features])

        def solve(self):
            seen.append(self)
            return super().solve()

    monkeypatch.setattr(bbox, "Ridge", Spy)
    return seen


TRUTH = [0, 0, 9, 9]
OVERLAPS = {0.4: [0, 0, 9, 3], 0.5: [0, 0, 9, 4], 0.6: [0, 0, 9, 5], 0.7: [0, 0, 9, 6]}


@pytest.mark.parametrize(
    ("protocol", "method", "overlaps", "penalty"),
    [
        (PAPER, "spp", [1.0, 0.5, 0.6, 0.7], 1000),
        (RELEASED, "spp", [1.0, 0.6, 0.7], 4000),
        (PAPER, "rcnn", [1.0, 0.7], 1000),
        (RELEASED, "rcnn", [1.0, 0.7], 1000),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_samples_and_penalty(source_of, windows_of, fits, protocol, method, overlaps, penalty):
    rules = take(BboxRules, METHODS[method].protocol_of(protocol))
    windows = windows_of(list(OVERLAPS.values()), [TRUTH], [1])
    features = np.array([[1.0, 0], [0.4, 0], [0.5, 0], [0.6, 0], [0.7, 0]])  # the first column: the IoU
    trained = train_bbox(source_of([windows], [features], protocol, method), rules, 2.0, max_gib=1.0)
    [fit] = fits
    np.testing.assert_allclose(fit.x[:, 0], 2 * np.array(overlaps), rtol=1e-3)
    boxes = np.array([TRUTH if o == 1 else OVERLAPS[o] for o in overlaps])
    np.testing.assert_allclose(decode(boxes, fit.y), [TRUTH] * len(boxes), atol=1e-9)
    assert fit.penalty == penalty
    assert trained.weights.shape == (3, 2, 4)
    assert trained.scale == 2.0


def test_a_window_belongs_to_the_object_it_overlaps_best(source_of, windows_of, fits):
    # The proposal has 60 of 100 pixels of the first object and 80 of 110 of the second.
    images = [
        windows_of([], []),
        windows_of([[0, 0, 9, 7]], [[0, 0, 9, 4], [0, 0, 9, 10]], [0, 2], with_truth=False),
    ]
    train_bbox(source_of(images, [np.ones((0, 2)), np.ones((1, 2))]), RULES, 1.0, max_gib=1.0)
    [fit] = fits
    assert len(fit.x) == 1
    np.testing.assert_allclose(fit.y, encode(np.array([[0, 0, 9, 7]]), np.array([[0, 0, 9, 10]])))


def test_a_line_has_no_extent_to_regress(source_of, windows_of, fits):
    train_bbox(source_of([windows_of([], [[5, 5, 5, 30]])], [np.ones((1, 2))]), RULES, 1.0, max_gib=1.0)
    assert fits == []


def test_a_class_without_samples_stays_where_it_is(source_of, windows_of):
    source = source_of([windows_of(list(OVERLAPS.values()), [TRUTH], [1])], [np.ones((5, 2))])
    trained = train_bbox(source, RULES, 1.0, max_gib=1.0)
    moved = trained(np.ones((1, 2), dtype=np.float32), BOX, 2, (100, 100))
    np.testing.assert_allclose(moved, BOX)


def test_regression_learns_a_shift(source_of, windows_of):
    rng = np.random.default_rng(0)
    images, features = [], []
    for _ in range(30):
        corner = rng.integers(40, 200, 2)
        truth = np.hstack([corner, corner + 60])
        shift = rng.choice([-6, 6], (8, 2))
        images.append(windows_of(truth + np.hstack([shift, shift]), [truth], with_truth=False))
        features.append(np.hstack([14 * (shift > 0), 14 * (shift < 0)]))
    trained = train_bbox(source_of(images, features, class_names=("a",)), RULES, 1.0, max_gib=1.0)
    pooled = np.array([[14, 14, 0, 0], [0, 0, 14, 14]], dtype=np.float32)
    boxes = np.array([[106.0, 106, 166, 166], [94, 94, 154, 154]])
    moved = trained(pooled, boxes, 0, (400, 500))
    np.testing.assert_allclose(moved, [[100, 100, 160, 160]] * 2, atol=1.0)


def crowded(source_of, windows_of, images=12, dimension=8):
    """Images of two objects of three classes each, with proposals around them; class b is the most frequent."""
    rng = np.random.default_rng(0)
    own, features = [], []
    for index in range(images):
        truth = [[20, 20, 79, 79], [200, 100, 299, 159]]
        near = np.array(truth * 6) + rng.integers(-6, 7, (12, 4))
        own.append(windows_of(near, truth, [1, index % 3]))
        features.append(np.maximum(rng.normal(size=(14, dimension)), 0))
    return source_of(own, features)


def test_samples_by_class_in_the_order_of_the_windows(source_of, windows_of, fits):
    source = crowded(source_of, windows_of)
    train_bbox(source, RULES, 3.0, max_gib=1.0)
    assert len(fits) == 3
    for label, fit in enumerate(fits):
        x, y = [], []
        for image, features in zip(source.images, source.features, strict=True):
            for row in range(len(image.boxes)):
                best = image.iou[row].argmax()
                if image.iou[row, best] >= 0.5 and image.truth.labels[best] == label:
                    x.append((3 * features[row].astype(np.float32)).astype(np.float16))
                    y.append(encode(image.boxes[[row]], image.truth.boxes[[best]])[0])
        np.testing.assert_array_equal(fit.x, x)
        np.testing.assert_allclose(fit.y, y, atol=1e-12)


def test_classes_that_do_not_fit_together_take_turns(source_of, windows_of):
    source = crowded(source_of, windows_of)
    together = train_bbox(source, RULES, 1.0, max_gib=1.0)
    passes = len(source.calls)
    source.calls.clear()
    one = ridge_memory(100, 8)[1] / 2**30  # each is solved in the primal
    apart = train_bbox(source, RULES, 1.0, max_gib=2 * one)
    assert apart.weights.tobytes() == together.weights.tobytes()
    assert apart.bias.tobytes() == together.bias.tobytes()
    assert passes == 12
    assert len(source.calls) == 12 + 4  # classes a and b, then c in a third of the images
    with pytest.raises(SppnetError, match=r"box regression of a takes .* GiB, more than .*--max-memory"):
        train_bbox(source, RULES, 1.0, max_gib=0.9 * one)


@pytest.mark.parametrize(
    ("counts", "gigabytes", "expected"),
    [
        ([0, 0, 0], 1.0, []),
        ([5, 0, 5], 1.0, [[0, 2]]),
        # 1,000 samples in the dual: 20 MB held, 8 MB more to solve.
        ([1000, 1000, 1000], 0.048, [[0, 1], [2]]),
        ([1000, 1000, 1000], 0.047, [[0], [1], [2]]),
        ([1000, 1000, 1000], 0.028, [[0], [1], [2]]),
        # The system of the largest counts once, wherever it comes.
        ([100, 1000, 100], 0.032, [[0, 1, 2]]),
        ([1000, 100, 100], 0.032, [[0, 1, 2]]),
        ([1000, 100, 100], 0.031, [[0, 1], [2]]),
    ],
)
def test_groups_fit_into_the_bound(counts, gigabytes, expected):
    groups = bbox._groups(np.array(counts), 10_000, ("a", "b", "c"), gigabytes * 1e9 / 2**30)
    assert groups == expected


def test_features_are_scaled_and_boxes_clipped():
    weights = np.zeros((2, 3, 4), dtype=np.float32)
    weights[1, 0] = [0.5, 0, 0, 0]
    bias = np.array([[0, 0, 0, 0], [0, 0.25, 0, np.log(3)]], dtype=np.float32)
    regressors = BoxRegressors(weights, bias, scale=3.0)
    # dx = 3 * 1 * .5 of 20: centre 20 -> 50; dy = .25 of 40: centre 40 -> 50, three times as high.
    moved = regressors(np.array([[1, 7, 7]], dtype=np.float32), BOX, 1, (500, 500))
    np.testing.assert_allclose(moved, [[40, 0, 60, 110]], atol=1e-4)  # y1 = -10 without the clip
    np.testing.assert_allclose(
        regressors(np.ones((1, 3), np.float32), BOX, 1, (80, 55)), [[40, 0, 54, 79]], atol=1e-4
    )
