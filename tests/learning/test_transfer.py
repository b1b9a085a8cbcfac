"""SVMs on l2-normalised features, against scikit-learn's and the definition."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

from sppnet_cli.errors import DataError
from sppnet_cli.learning import transfer
from sppnet_cli.learning.transfer import gram, linear_weights, scores, train_svms


def problem(n=60, dimension=9, classes=3, seed=0):
    """Features that are mostly positive, as a network's, and labels of which some are 0."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, classes, n)
    centres = rng.normal(0.5, 1, (classes, dimension))
    x = (centres[kinds] + rng.normal(0, 1.2, (n, dimension)) + 1).astype(np.float32) * 7
    labels = np.where(kinds[:, None] == np.arange(classes), 1, -1).astype(np.int8)
    labels[rng.random(labels.shape) < 0.1] = 0
    return x, labels


def normalised(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def trained(x, labels, c=1.0):
    products, norms = gram(x)
    duals = train_svms(products, labels, [f"class{k}" for k in range(labels.shape[1])], c)
    return duals, linear_weights(duals.coefficients, x, norms)


@pytest.mark.parametrize("block", [64 * 2**20, 200])
def test_inner_products_of_normalised_features(monkeypatch, block):
    monkeypatch.setattr(transfer, "_BLOCK", block)  # the smaller one: in blocks of three columns
    x, _ = problem()
    products, norms = gram(x)
    np.testing.assert_allclose(products, normalised(x) @ normalised(x).T, atol=1e-6)
    np.testing.assert_allclose(norms, np.linalg.norm(x, axis=1), rtol=1e-6)


def test_a_row_of_zeros_has_no_direction():
    products, norms = gram(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_array_equal(products, [[1, 0], [0, 0]])
    assert norms.tolist() == [5, 1]
    found = scores(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), np.array([0.5], np.float32))
    assert found.tolist() == [[0.5]]


def test_what_is_not_finite_is_refused():
    with pytest.raises(DataError, match="NaN or infinity"):
        gram(np.array([[1, np.nan], [0, 1]], np.float32))


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
def test_weights_and_bias_are_liblinears(c):
    x, labels = problem()
    duals, weights = trained(x, labels, c)
    for k in range(labels.shape[1]):
        rows = labels[:, k] != 0
        reference = LinearSVC(C=c, dual=True, tol=1e-9, max_iter=200_000)
        reference.fit(normalised(x)[rows], labels[rows, k])
        np.testing.assert_allclose(weights[k], reference.coef_[0], atol=2e-4)
        np.testing.assert_allclose(duals.bias[k], reference.intercept_[0], atol=2e-4)


def test_the_loss_is_the_least():
    x, labels = problem(n=25, classes=2, seed=3)
    duals, weights = trained(x, labels)
    unit, sign = normalised(x).astype(np.float64), labels[:, 0].astype(np.float64)

    def loss(w):
        hinge = np.maximum(0, 1 - sign * (unit @ w[:-1] + w[-1]))[sign != 0]
        return w @ w / 2 + hinge @ hinge

    best = minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-9})
    found = np.append(weights[0], duals.bias[0])
    assert loss(found) == pytest.approx(best.fun, rel=1e-6)
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_more_numbers_than_images_and_repeated_images():
    x, labels = problem(n=20, dimension=300)
    x, labels = np.concatenate([x, x]), np.concatenate([labels, labels])
    duals, weights = trained(x, labels)
    rows = labels[:, 0] != 0
    reference = LinearSVC(C=1, dual=True, tol=1e-9, max_iter=200_000).fit(
        normalised(x)[rows], labels[rows, 0]
    )
    np.testing.assert_allclose(weights[0], reference.coef_[0], atol=2e-4)
    np.testing.assert_allclose(duals.bias[0], reference.intercept_[0], atol=2e-4)


def test_positives_score_above_negatives():
    x = np.array([[5, 1], [9, 1], [1, 5], [1, 8]], np.float32)
    labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]], np.int8)
    duals, weights = trained(x, labels, c=100.0)
    found = scores(x, weights, duals.bias)
    assert (np.sign(found) == labels).all()
    assert (np.sign(duals.coefficients.T) * labels >= 0).all()


def test_ignored_images_change_nothing():
    x, labels = problem()
    kept = labels[:, 0] != 0
    duals, weights = trained(x, labels[:, :1])
    fewer, expected = trained(x[kept], labels[kept, :1])
    assert not duals.coefficients[0, ~kept].any()
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(duals.bias, fewer.bias, atol=1e-5)


@pytest.mark.parametrize("block", [64 * 2**20, 50])
def test_scores_are_of_normalised_features(monkeypatch, block):
    monkeypatch.setattr(transfer, "_BLOCK", block)
    x, labels = problem()
    products, norms = gram(x)
    duals = train_svms(products, labels, ["a", "b", "c"], 1.0)
    weights = linear_weights(duals.coefficients, x, norms)
    found = scores(x * 3, weights, duals.bias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, products @ duals.coefficients.T + duals.bias, atol=1e-5)
    np.testing.assert_allclose(found, normalised(x) @ weights.T + duals.bias, atol=1e-5)


@pytest.mark.parametrize(("label", "name"), [(1, "negative"), (-1, "positive")])
def test_a_class_that_lacks_a_side_is_named(label, name):
    x, labels = problem()
    labels[:, 1] = label
    labels[:5, 1] = 0
    with pytest.raises(DataError, match=f"no {name} training image of cow"):
        train_svms(gram(x).products, labels, ["ant", "cow", "dog"], 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_only_what_is_inside_the_margin_has_a_part(seed):
    """The loss is least where every coefficient is 2C times what the example lacks to the margin."""
    c = 10.0 ** np.random.default_rng(seed).uniform(-2, 2)
    x, labels = problem(n=40, dimension=5, classes=2, seed=seed)
    products = gram(x).products
    duals = train_svms(products, labels, ["a", "b"], c)
    found = products @ duals.coefficients.T + duals.bias
    expected = 2 * c * labels * np.maximum(0, 1 - labels * found)
    np.testing.assert_allclose(duals.coefficients.T, expected, atol=2e-3 * max(1, c))
