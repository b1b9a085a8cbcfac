"""A transfer classifier on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sppnet_cli.data.splits import Split
from sppnet_cli.errors import DataError
from sppnet_cli.learning.classifier import FeatureKind, TransferClassifier


@pytest.fixture
def classifier():
    rng = np.random.default_rng(0)
    return TransferClassifier(
        dataset="Caltech101",
        features=FeatureKind("SPP pool5", "full", 224, "abc"),
        network=Path("net"),
        images="def",
        class_names=("ant", "bee", "cat"),
        c=1.0,
        splits=(Split(np.array([0, 2]), np.array([1])), Split(np.array([1, 2]), np.array([0, 3]))),
        weights=rng.normal(size=(2, 3, 5)).astype(np.float32),
        bias=rng.normal(size=(2, 3)).astype(np.float32),
    )


def test_what_is_saved_is_loaded(classifier, tmp_path):
    classifier.save(tmp_path)
    found = TransferClassifier.load(tmp_path)
    for name in ("dataset", "features", "images", "class_names", "c"):
        assert getattr(found, name) == getattr(classifier, name)
    assert found.network == Path("net").absolute()
    for a, b in zip(found.splits, classifier.splits, strict=True):
        np.testing.assert_array_equal(a.train, b.train)
        np.testing.assert_array_equal(a.test, b.test)
    np.testing.assert_array_equal(found.weights, classifier.weights)
    np.testing.assert_array_equal(found.bias, classifier.bias)


def test_voc_has_no_splits(classifier, tmp_path):
    replace(
        classifier, dataset="VOC", splits=(), weights=classifier.weights[:1], bias=classifier.bias[:1]
    ).save(tmp_path)
    assert TransferClassifier.load(tmp_path).splits == ()


def test_no_classifier(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: not a classifier .*train-svm --task classification"):
        TransferClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["splits", "class_names", "features", "network"])
def test_a_broken_description(classifier, tmp_path, missing):
    classifier.save(tmp_path)
    path = tmp_path / "classifier.json"
    about = json.loads(path.read_text())
    del about[missing]
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match="not a classifier"):
        TransferClassifier.load(tmp_path)


def test_weights_of_other_splits_or_classes(classifier, tmp_path):
    classifier.save(tmp_path)
    save_file(
        {"weights": classifier.weights[:, :2], "bias": classifier.bias[:, :2]},
        tmp_path / "classifier.safetensors",
    )
    with pytest.raises(DataError, match=r"weights of shape \(2, 2, 5\).* 2 splits and 3 classes"):
        TransferClassifier.load(tmp_path)


def test_weights_that_are_missing(classifier, tmp_path):
    classifier.save(tmp_path)
    (tmp_path / "classifier.safetensors").unlink()
    with pytest.raises(DataError, match=r"classifier\.safetensors: no such weights file"):
        TransferClassifier.load(tmp_path)
