import numpy as np
import pytest

from sppnet_cli.learning import bbox
from sppnet_cli.learning.bbox import BoxRegressors, decode, encode, fit_whitened_ridge, train_bbox
from sppnet_cli.protocols import PAPER, RELEASED

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


def rcnn_ridge(x, y, penalty):
    """`rcnn_train_bbox_regressor` and `rcnn_predict_bbox_regressor`, line by line: predicts deltas from features."""
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    mu = y.mean(axis=0)
    centred = y - mu
    s = centred.T @ centred / len(y)
    d, v = np.linalg.eigh(s)
    t = v @ np.diag(1 / np.sqrt(d + 0.001)) @ v.T
    t_inv = v @ np.diag(np.sqrt(d + 0.001)) @ v.T
    beta = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (centred @ t))
    return lambda features: (features @ beta[:-1] + beta[-1]) @ t_inv + mu


def samples(n, dimension, seed=0):
    """Features of norm about 20 and deltas that follow them, of very different spreads and correlated."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.normal(size=(n, dimension)), 0)
    x *= 20 / np.linalg.norm(x, axis=1).mean()
    mix = np.array([[0.1, 0.02, 0, 0], [0, 0.08, 0, 0], [0.05, 0, 0.3, 0.2], [0, 0, 0, 0.01]])
    y = (x[:, :4] - x[:, :4].mean(axis=0) + rng.normal(size=(n, 4))) @ mix + [0.01, -0.02, 0.1, 0.3]
    return x.astype(np.float32), y


@pytest.mark.parametrize("penalty", [1000.0, 4000.0])
@pytest.mark.parametrize(("n", "dimension"), [(200, 12), (13, 12), (12, 12), (30, 90), (2, 5)])
def test_agrees_with_rcnns_formulas(n, dimension, penalty):
    x, y = samples(n, dimension)
    weights, bias = fit_whitened_ridge(x, y, penalty)
    new, _ = samples(50, dimension, seed=1)
    np.testing.assert_allclose(new @ weights + bias, rcnn_ridge(x, y, penalty)(new), atol=1e-5)


def test_primal_and_dual_agree():
    # The same samples with columns of zeros added: 20 x 12 is solved in the primal, 20 x 60 in the dual.
    x, y = samples(20, 12)
    wide = np.concatenate([x, np.zeros((20, 48), dtype=np.float32)], axis=1)
    weights, bias = fit_whitened_ridge(x, y, 1000.0)
    wide_weights, wide_bias = fit_whitened_ridge(wide, y, 1000.0)
    np.testing.assert_allclose(wide_weights[:12], weights, atol=1e-7)
    np.testing.assert_allclose(wide_weights[12:], 0, atol=1e-12)
    np.testing.assert_allclose(wide_bias, bias, atol=1e-7)


def test_a_strong_penalty_leaves_the_mean():
    x, y = samples(40, 6)
    weights, bias = fit_whitened_ridge(x, y, 1e12)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    np.testing.assert_allclose(bias, y.mean(axis=0), atol=1e-6)


def test_a_single_sample_is_its_own_mean():
    weights, bias = fit_whitened_ridge(
        np.ones((1, 3), dtype=np.float32), np.array([[0.1, 0.2, 0.3, 0.4]]), 1e3
    )
    np.testing.assert_allclose(weights, 0, atol=1e-12)
    np.testing.assert_allclose(bias, [0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def fits(monkeypatch):
    """What `train_bbox` fits, in order: (features, deltas, lambda)."""
    seen = []

    def spy(x, y, penalty):
        seen.append((x, y, penalty))
        return fit(x, y, penalty)

    fit = bbox.fit_whitened_ridge
    monkeypatch.setattr(bbox, "fit_whitened_ridge", spy)
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
    windows = windows_of(list(OVERLAPS.values()), [TRUTH], [1])
    features = np.array([[1.0, 0], [0.4, 0], [0.5, 0], [0.6, 0], [0.7, 0]])  # the first column: the IoU
    trained = train_bbox(source_of([windows], [features], protocol, method), protocol, 2.0)
    [(x, y, used)] = fits
    np.testing.assert_allclose(x[:, 0], 2 * np.array(overlaps), rtol=1e-3)
    boxes = np.array([TRUTH if o == 1 else OVERLAPS[o] for o in overlaps])
    np.testing.assert_allclose(decode(boxes, y), [TRUTH] * len(boxes), atol=1e-9)
    assert used == penalty
    assert trained.weights.shape == (3, 2, 4)
    assert trained.scale == 2.0


def test_a_window_belongs_to_the_object_it_overlaps_best(source_of, windows_of, fits):
    # The proposal has 60 of 100 pixels of the first object and 80 of 110 of the second.
    images = [
        windows_of([], []),
        windows_of([[0, 0, 9, 7]], [[0, 0, 9, 4], [0, 0, 9, 10]], [0, 2], with_truth=False),
    ]
    train_bbox(source_of(images, [np.ones((0, 2)), np.ones((1, 2))]), PAPER, 1.0)
    [(x, y, _)] = fits
    assert len(x) == 1
    np.testing.assert_allclose(y, encode(np.array([[0, 0, 9, 7]]), np.array([[0, 0, 9, 10]])))


def test_a_line_has_no_extent_to_regress(source_of, windows_of, fits):
    train_bbox(source_of([windows_of([], [[5, 5, 5, 30]])], [np.ones((1, 2))]), PAPER, 1.0)
    assert fits == []


def test_a_class_without_samples_stays_where_it_is(source_of, windows_of):
    source = source_of([windows_of(list(OVERLAPS.values()), [TRUTH], [1])], [np.ones((5, 2))])
    trained = train_bbox(source, PAPER, 1.0)
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
    trained = train_bbox(source_of(images, features, class_names=("a",)), PAPER, 1.0)
    pooled = np.array([[14, 14, 0, 0], [0, 0, 14, 14]], dtype=np.float32)
    boxes = np.array([[106.0, 106, 166, 166], [94, 94, 154, 154]])
    moved = trained(pooled, boxes, 0, (400, 500))
    np.testing.assert_allclose(moved, [[100, 100, 160, 160]] * 2, atol=1.0)


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
