import numpy as np
import pytest

from sppnet_cli.errors import DataError
from sppnet_cli.learning import ridge
from sppnet_cli.learning.ridge import Ridge, ridge_memory


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
    return x.astype(np.float16), y


def fit(x, y, penalty, pieces=1):
    system = Ridge(y, x.shape[1], penalty)
    for part in np.array_split(x, pieces):
        system.add(part.astype(np.float16))
    return system.solve()


def is_dual(n, dimension):
    return isinstance(Ridge(np.ones((n, 4)), dimension, 1.0)._system, ridge._Dual)


@pytest.mark.parametrize("penalty", [1000.0, 4000.0])
@pytest.mark.parametrize(("n", "dimension"), [(200, 12), (13, 12), (12, 12), (30, 90), (2, 5), (64, 64)])
@pytest.mark.parametrize(("pieces", "block"), [(1, 1024), (7, 8), (3, 5)])
def test_agrees_with_rcnns_formulas(monkeypatch, n, dimension, penalty, pieces, block):
    monkeypatch.setattr(ridge, "_BLOCK", block)
    x, y = samples(n, dimension)
    weights, bias = fit(x, y, penalty, pieces)
    new = samples(50, dimension, seed=1)[0].astype(np.float64)
    expected = rcnn_ridge(x.astype(np.float64), y, penalty)
    np.testing.assert_allclose(new @ weights + bias, expected(new), rtol=1e-5, atol=1e-6)


def test_primal_and_dual_agree():
    # The same samples with columns of zeros added: 20 x 12 is solved in the primal, 20 x 60 in the dual.
    x, y = samples(20, 12)
    wide = np.concatenate([x, np.zeros((20, 48), dtype=np.float16)], axis=1)
    assert not is_dual(20, 12)
    assert is_dual(20, 60)
    weights, bias = fit(x, y, 1000.0)
    wide_weights, wide_bias = fit(wide, y, 1000.0)
    np.testing.assert_allclose(wide_weights[:12], weights, atol=1e-8)
    np.testing.assert_allclose(wide_weights[12:], 0, atol=1e-12)
    np.testing.assert_allclose(wide_bias, bias, atol=1e-8)


def test_the_smaller_system_is_solved():
    # In the dual 2 n D + 8 n^2 bytes, in the primal 8 (D + 1)^2: equal at n = .883 (D + 1) or so.
    dimension = 12_800
    assert ridge_memory(1, dimension) == (2 * dimension, 2 * dimension + 8)
    assert ridge_memory(10_000, dimension) == (256_000_000, 1_056_000_000)
    assert ridge_memory(12_000, dimension) == ridge_memory(10**6, dimension) == (1_310_924_808,) * 2
    assert is_dual(88, 100)
    assert not is_dual(91, 100)


def test_a_strong_penalty_leaves_the_mean():
    x, y = samples(40, 6)
    weights, bias = fit(x, y, 1e12)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    np.testing.assert_allclose(bias, y.mean(axis=0), atol=1e-6)


def test_a_single_sample_is_its_own_mean():
    weights, bias = fit(np.ones((1, 3), dtype=np.float16), np.array([[0.1, 0.2, 0.3, 0.4]]), 1e3)
    np.testing.assert_allclose(weights, 0, atol=1e-12)
    np.testing.assert_allclose(bias, [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("shape", [(5, 40), (40, 5)])
def test_features_that_are_not_finite(shape):
    x, y = samples(*shape)
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit(x, y, 1000.0)
