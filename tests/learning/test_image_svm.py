"""SVMs on whole images: training, against scikit-learn's and the definition of both losses, and what lies on disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.optimize import minimize
from sklearn.svm import SVC, LinearSVC

from sppnet_cli.data.splits import Split
from sppnet_cli.errors import DataError
from sppnet_cli.learning import image_svm
from sppnet_cli.learning.image_svm import (
    FeatureKind,
    ImageSvms,
    gram,
    linear_weights,
    scores,
    train_image_svms,
)


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


def trained(x, labels, c=1.0, loss="squared-hinge"):
    products, norms = gram(x)
    names = [f"class{k}" for k in range(labels.shape[1])]
    duals = train_image_svms(products, labels, names, c=c, loss=loss)
    return duals, linear_weights(duals.coefficients, x, norms)


@pytest.mark.parametrize("block", [64 * 2**20, 200])
def test_inner_products_of_normalised_features(monkeypatch, block):
    monkeypatch.setattr(image_svm, "_BLOCK", block)  # the smaller one: in blocks of three columns
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
def test_the_squared_hinge_is_liblinears(c):
    x, labels = problem()
    duals, weights = trained(x, labels, c)
    for k in range(labels.shape[1]):
        rows = labels[:, k] != 0
        reference = LinearSVC(C=c, dual=True, tol=1e-9, max_iter=200_000)
        reference.fit(normalised(x)[rows], labels[rows, k])
        np.testing.assert_allclose(weights[k], reference.coef_[0], atol=2e-4)
        np.testing.assert_allclose(duals.bias[k], reference.intercept_[0], atol=2e-4)


def test_the_squared_hinge_is_least():
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


@pytest.mark.parametrize("c", [0.1, 1.0, 30.0])
def test_the_hinge_is_libsvms_of_two_classes(c):
    x, labels = problem()
    duals, weights = trained(x, labels, c, "hinge")
    for k in range(labels.shape[1]):
        rows = labels[:, k] != 0
        reference = SVC(kernel="linear", C=c, tol=1e-6).fit(normalised(x)[rows], labels[rows, k])
        expected = reference.decision_function(normalised(x))
        np.testing.assert_allclose(normalised(x) @ weights[k] + duals.bias[k], expected, atol=5e-3)
        np.testing.assert_allclose(weights[k], reference.coef_[0], atol=5e-3 * max(1, c))


def test_the_hinge_by_hand_leaves_the_bias_unregularised():
    """One positive at (1, 0), three negatives at (0, 1), C = .4: w = (a, -a), where a is the positive's multiplier.

    The negatives' multipliers sum to a, and the dual 2a - a^2 grows up to a = 1, so a ends at its bound .4.  The
    negatives are below their bounds, which puts them on the margin: -a + b = -1, b = -.6.
    """
    x = np.array([[5, 0], [0, 1], [0, 2], [0, 3]], np.float32)
    labels = np.array([[1], [-1], [-1], [-1]], np.int8)
    duals, weights = trained(x, labels, 0.4, "hinge")
    np.testing.assert_allclose(weights, [[0.4, -0.4]], atol=1e-5)
    np.testing.assert_allclose(duals.bias, [-0.6], atol=1e-5)
    # A regularised bias would be this sum.
    np.testing.assert_allclose(duals.coefficients.sum(axis=1), [0], atol=1e-6)


def test_the_hinge_is_least():
    x, labels = problem(n=25, classes=2, seed=3)
    duals, weights = trained(x, labels, 2.0, "hinge")
    unit, sign = normalised(x).astype(np.float64), labels[:, 0].astype(np.float64)

    def loss(w):
        return w[:-1] @ w[:-1] / 2 + 2 * np.maximum(0, 1 - sign * (unit @ w[:-1] + w[-1]))[sign != 0].sum()

    found = np.append(weights[0], duals.bias[0])
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1, 1):
        assert all(loss(found) <= loss(found + size * rng.normal(size=len(found))) + 1e-3 for _ in range(200))


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge"])
def test_positives_score_above_negatives(loss):
    x = np.array([[5, 1], [9, 1], [1, 5], [1, 8]], np.float32)
    labels = np.array([[1, -1], [1, -1], [-1, 1], [-1, 1]], np.int8)
    duals, weights = trained(x, labels, c=100.0, loss=loss)
    found = scores(x, weights, duals.bias)
    assert (np.sign(found) == labels).all()
    assert (np.sign(duals.coefficients.T) * labels >= 0).all()


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge"])
def test_ignored_images_change_nothing(loss):
    x, labels = problem()
    kept = labels[:, 0] != 0
    duals, weights = trained(x, labels[:, :1], loss=loss)
    fewer, expected = trained(x[kept], labels[kept, :1], loss=loss)
    assert not duals.coefficients[0, ~kept].any()
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    np.testing.assert_allclose(duals.bias, fewer.bias, atol=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge"])
@pytest.mark.parametrize("block", [64 * 2**20, 50])
def test_scores_are_of_normalised_features(monkeypatch, block, loss):
    monkeypatch.setattr(image_svm, "_BLOCK", block)
    x, labels = problem()
    products, norms = gram(x)
    duals = train_image_svms(products, labels, ["a", "b", "c"], c=1.0, loss=loss)
    weights = linear_weights(duals.coefficients, x, norms)
    found = scores(x * 3, weights, duals.bias)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, products @ duals.coefficients.T + duals.bias, atol=1e-5)
    np.testing.assert_allclose(found, normalised(x) @ weights.T + duals.bias, atol=1e-5)


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge"])
@pytest.mark.parametrize(("label", "name"), [(1, "negative"), (-1, "positive")])
def test_a_class_that_lacks_a_side_is_named(label, name, loss):
    x, labels = problem()
    labels[:, 1] = label
    labels[:5, 1] = 0
    with pytest.raises(DataError, match=f"no {name} training image of cow"):
        train_image_svms(gram(x).products, labels, ["ant", "cow", "dog"], c=1.0, loss=loss)


@pytest.mark.parametrize("seed", range(20))
def test_of_the_squared_hinge_only_examples_inside_the_margin_count(seed):
    """The loss is least where every coefficient is 2C times what the example lacks to the margin."""
    c = 10.0 ** np.random.default_rng(seed).uniform(-2, 2)
    x, labels = problem(n=40, dimension=5, classes=2, seed=seed)
    products = gram(x).products
    duals = train_image_svms(products, labels, ["a", "b"], c=c, loss="squared-hinge")
    found = products @ duals.coefficients.T + duals.bias
    expected = 2 * c * labels * np.maximum(0, 1 - labels * found)
    np.testing.assert_allclose(duals.coefficients.T, expected, atol=2e-3 * max(1, c))


@pytest.fixture
def svms():
    rng = np.random.default_rng(0)
    return ImageSvms(
        dataset="Caltech101",
        features=FeatureKind("SPP pool5", "full", 224, "abc"),
        network=Path("net"),
        images="def",
        class_names=("ant", "bee", "cat"),
        c=1.0,
        loss="hinge",
        splits=(Split(np.array([0, 2]), np.array([1])), Split(np.array([1, 2]), np.array([0, 3]))),
        weights=rng.normal(size=(2, 3, 5)).astype(np.float32),
        bias=rng.normal(size=(2, 3)).astype(np.float32),
    )


def test_what_is_saved_is_loaded(svms, tmp_path):
    svms.save(tmp_path)
    found = ImageSvms.load(tmp_path)
    for name in ("dataset", "features", "images", "class_names", "c", "loss"):
        assert getattr(found, name) == getattr(svms, name)
    assert found.network == Path("net").absolute()
    for a, b in zip(found.splits, svms.splits, strict=True):
        np.testing.assert_array_equal(a.train, b.train)
        np.testing.assert_array_equal(a.test, b.test)
    np.testing.assert_array_equal(found.weights, svms.weights)
    np.testing.assert_array_equal(found.bias, svms.bias)


def test_voc_has_no_splits(svms, tmp_path):
    replace(svms, dataset="VOC", splits=(), weights=svms.weights[:1], bias=svms.bias[:1]).save(tmp_path)
    assert ImageSvms.load(tmp_path).splits == ()


def test_no_classifier(tmp_path):
    with pytest.raises(
        DataError, match=r"nowhere/classifier\.json.*not a classifier: .*train-svm --task classification"
    ):
        ImageSvms.load(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["splits", "class_names", "features", "network", "loss"])
def test_a_broken_description(svms, tmp_path, missing):
    svms.save(tmp_path)
    path = tmp_path / "classifier.json"
    about = json.loads(path.read_text())
    del about[missing]
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match="not a classifier"):
        ImageSvms.load(tmp_path)


def test_weights_of_other_splits_or_classes(svms, tmp_path):
    svms.save(tmp_path)
    save_file(
        {"weights": svms.weights[:, :2], "bias": svms.bias[:, :2]},
        tmp_path / "classifier.safetensors",
    )
    with pytest.raises(DataError, match=r"weights of shape \(2, 2, 5\).* says 2 splits and 3 classes"):
        ImageSvms.load(tmp_path)


def test_weights_that_are_missing(svms, tmp_path):
    svms.save(tmp_path)
    (tmp_path / "classifier.safetensors").unlink()
    with pytest.raises(DataError, match=r"classifier\.safetensors: no such weights file"):
        ImageSvms.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"c": "1"},
        {"dataset": "COCO"},
        {"features": []},
        {"class_names": "ant"},
        {"class_names": [1, 2, 3]},
        {"splits": [{"train": [0.5], "test": [1]}] * 2},
        {"splits": [{"train": [0], "test": [-1]}] * 2},
        {"splits": [{"train": [0], "test": []}] * 2},
        {"network": "a\0b"},
        {"loss": None},
    ],
    ids=str,
)
def test_a_description_of_wrong_types(svms, tmp_path, change):
    svms.save(tmp_path)
    path = tmp_path / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"classifier\.json: .*not a classifier"):
        ImageSvms.load(tmp_path)


def test_files_are_readable_by_others(svms, tmp_path):
    before = os.umask(0o022)
    try:
        svms.save(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
