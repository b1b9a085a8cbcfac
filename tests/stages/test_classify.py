"""Transfer classification from features to its score."""

import csv
import json

import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, LinearSVC
from sppnet_cli.stages.classify import (
    AccuracyScore,
    ClassifierConfig,
    MapScore,
    RandomSplits,
    caltech_images,
    classifier_stage,
    score_classifier,
    voc_images,
)
from sppnet_cli.stages.extract import ExtractConfig, images_fingerprint

from sppnet_cli.data.splits import caltech_splits
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.outcomes import AccuracyOutcome, MapOutcome
from sppnet_cli.learning.image_svm import ImageSvms
from sppnet_cli.runs import fingerprint, run_stage

SPLITS = RandomSplits(count=3, train=2, test=1)


@pytest.fixture
def network(tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "network.json").write_text("{}")
    return folder


@pytest.fixture
def features_of(tmp_path, network):
    """Makes a run like `extract_stage`'s, of features that tell the classes up to some noise."""

    def make(
        images, name="features", layer="fc7", size=224, view="full", dimension=12, noise=0.5, by=network
    ):
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(len(images.class_names), dimension))
        rows = (images.labels == 1) @ directions + 1 + noise * rng.normal(size=(len(images.paths), dimension))

        def build(folder):
            np.save(folder / f"{layer.replace(' ', '-')}.npy", rows.astype(np.float32))

        inputs = {"network": fingerprint(by), "images": images_fingerprint(images.paths)}
        config = ExtractConfig((layer,), view, size)
        return run_stage(tmp_path / name, "extract-features", config, inputs, build)

    return make


@pytest.fixture
def voc(tiny_data):
    return voc_images(tiny_data / "VOCdevkit", "trainval")


@pytest.fixture
def caltech(tiny_data):
    return caltech_images(tiny_data / "caltech101")


def rows_of(run, layer="fc7"):
    x = np.load(run / f"{layer}.npy").astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_images_of_voc(tiny_data, voc):
    main = tiny_data / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    name = voc.class_names[3]
    with (main / f"{name}_trainval.txt").open() as file:
        listed = dict(csv.reader(file, delimiter=" ", skipinitialspace=True))
    assert [path.stem for path in voc.paths] == list(listed)
    assert voc.labels[:, 3].tolist() == [int(label) for label in listed.values()]
    assert (voc.dataset, voc.labels.dtype) == ("VOC", np.int8)


def test_the_images_of_caltech(caltech):
    assert caltech.dataset == "Caltech101"
    assert (caltech.labels == 1).sum(axis=1).tolist() == [1] * len(caltech.paths)
    for path, label in zip(caltech.paths, caltech.labels.argmax(axis=1), strict=True):
        assert path.parent.name == caltech.class_names[label]


@pytest.mark.parametrize("loss", ["hinge", "squared-hinge"])
def test_voc_from_features_to_map(tiny_data, voc, features_of, network, tmp_path, loss):
    run = features_of(voc)
    config = ClassifierConfig("fc7", loss=loss)
    folder = classifier_stage(config, network, run, voc, tmp_path / "classifier")
    svms = ImageSvms.load(folder)
    assert svms.loss == loss
    assert (svms.dataset, svms.class_names, svms.splits) == ("VOC", voc.class_names, ())
    assert svms.network == network.absolute()
    k = 4
    rows = voc.labels[:, k] != 0
    if loss == "hinge":
        reference = SVC(kernel="linear", tol=1e-6)
    else:
        reference = LinearSVC(C=1, tol=1e-8, max_iter=100_000)
    reference.fit(rows_of(run)[rows], voc.labels[rows, k])
    np.testing.assert_allclose(svms.weights[0, k], reference.coef_[0], atol=1e-3)
    np.testing.assert_allclose(svms.bias[0, k], reference.intercept_[0], atol=1e-3)

    test = voc_images(tiny_data / "VOCdevkit", "test")
    found = features_of(test, "test")
    score = score_classifier(folder, found, test)
    assert isinstance(score, MapScore)
    assert isinstance(score.outcome, MapOutcome)
    np.testing.assert_array_equal(score.outcome.labels, test.labels)
    expected = rows_of(found) @ svms.weights[0].T + svms.bias[0]
    np.testing.assert_allclose(score.outcome.scores, expected, atol=1e-5)
    result = score.as_dict()
    assert list(result) == ["mAP", "AP", "n"]
    assert list(result["AP"]) == list(voc.class_names)
    assert result["mAP"] == pytest.approx(np.mean(list(result["AP"].values())))
    assert (result["n"], result["mAP"] > 0.5) == (20, True)


def test_caltech_from_features_to_accuracy(caltech, features_of, network, tmp_path):
    run = features_of(caltech, noise=0.8)
    config = ClassifierConfig("fc7", SPLITS)
    folder = classifier_stage(config, network, run, caltech, tmp_path / "classifier")
    svms = ImageSvms.load(folder)
    labels = caltech.labels.argmax(axis=1)
    assert svms.weights.shape == (3, 12, 12)

    score = score_classifier(folder, run, caltech)
    assert isinstance(score, AccuracyScore)
    right = np.full((3, len(labels)), -1)
    x = rows_of(run)
    for s, (train, test) in enumerate(caltech_splits(labels, caltech.class_names, 3, 2, 1)):
        reference = OneVsRestClassifier(SVC(kernel="linear", tol=1e-6)).fit(x[train], labels[train])
        weights = [of_class.coef_[0] for of_class in reference.estimators_]
        np.testing.assert_allclose(svms.weights[s], weights, atol=1e-3)
        right[s, test] = reference.predict(x[test]) == labels[test]
    np.testing.assert_array_equal(score.outcome.right, right)
    np.testing.assert_array_equal(score.outcome.labels, labels)
    result = score.as_dict()
    assert list(result) == ["accuracy", "std", "splits"]
    assert result["splits"] == 3
    assert 0.2 < result["accuracy"] < 1


def test_accuracy_is_of_categories_then_of_splits():
    # Categories of two and four tested images: 1 and 1/2 in the first split, 0 and 1 in the second.
    labels = np.array([0, 0, 1, 1, 1, 1, 0])
    right = np.array([[1, 1, 1, 1, 0, 0, -1], [-1, 0, 1, 1, 1, 1, 0]], np.int8)
    score = AccuracyScore(AccuracyOutcome(right, labels))
    assert score.of_splits == [0.75, 0.5]
    assert score.as_dict() == {
        "accuracy": 0.625,
        "std": pytest.approx(0.125 * 2**0.5),  # over n - 1
        "splits": 2,
    }
    assert AccuracyScore(AccuracyOutcome(right[:1], labels)).as_dict() == {
        "accuracy": 0.75,
        "std": None,
        "splits": 1,
    }


def test_a_class_without_positives_has_no_ap():
    labels = np.array([[1, -1], [-1, -1], [1, 0]], np.int8)
    scores = np.array([[0.9, 0], [0.5, 1], [0.1, 0]], np.float32)
    result = MapScore(MapOutcome(scores, labels), ("cat", "dog")).as_dict()
    assert result["AP"] == {"cat": pytest.approx((6 * 1 + 5 * 2 / 3) / 11), "dog": None}
    assert result["mAP"] == result["AP"]["cat"]


def test_a_classifier_is_made_once(voc, features_of, network, tmp_path):
    run, out = features_of(voc), tmp_path / "classifier"
    classifier_stage(ClassifierConfig("fc7"), network, run, voc, out)
    before = (out / "classifier.json").stat().st_mtime_ns
    classifier_stage(ClassifierConfig("fc7"), network, run, voc, out)
    assert (out / "classifier.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="layer was 'fc7', not 'fc6'"):
        classifier_stage(ClassifierConfig("fc6"), network, features_of(voc, "other", "fc6"), voc, out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "fc6"}, "holds fc6, not fc7"),
        ({"size": 392}, "size 392, not 224"),
        ({"view": "warp"}, "view warp, not full"),
        ({"dimension": 13}, "13 numbers an image, but .* takes 12"),
    ],
)
def test_features_of_another_kind_are_refused(voc, features_of, network, tmp_path, change, message):
    folder = classifier_stage(ClassifierConfig("fc7"), network, features_of(voc), voc, tmp_path / "svm")
    with pytest.raises(DataError, match=message):
        score_classifier(folder, features_of(voc, "others", **change), voc)


def test_features_of_another_network_are_refused(voc, features_of, network, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    run = features_of(voc)
    with pytest.raises(DataError, match=f"features of another network than {other}"):
        classifier_stage(ClassifierConfig("fc7"), other, run, voc, tmp_path / "svm")
    folder = classifier_stage(ClassifierConfig("fc7"), network, run, voc, tmp_path / "svm")
    with pytest.raises(DataError, match=f"network {fingerprint(other)}, not {fingerprint(network)}"):
        score_classifier(folder, features_of(voc, "others", by=other), voc)


def test_features_of_other_images_are_refused(tiny_data, voc, features_of, network, tmp_path):
    test = voc_images(tiny_data / "VOCdevkit", "test")
    with pytest.raises(DataError, match="features of other images"):
        classifier_stage(ClassifierConfig("fc7"), network, features_of(test), voc, tmp_path / "svm")


def test_a_run_that_holds_no_features_is_refused(voc, features_of, network, tmp_path):
    folder = classifier_stage(ClassifierConfig("fc7"), network, features_of(voc), voc, tmp_path / "svm")
    with pytest.raises(DataError, match="a run of train-svm classification"):
        score_classifier(folder, folder, voc)
    with pytest.raises(DataError, match="not a complete run directory"):
        score_classifier(folder, tmp_path / "nowhere", voc)


def test_another_set_of_classes_is_refused(voc, caltech, features_of, network, tmp_path):
    folder = classifier_stage(ClassifierConfig("fc7"), network, features_of(voc), voc, tmp_path / "svm")
    with pytest.raises(DataError, match="knows the 20 classes of a VOC set, which are not the 12 of"):
        score_classifier(folder, features_of(caltech, "others"), caltech)


def test_splits_of_other_images_are_refused(tiny_data, caltech, features_of, network, tmp_path):
    run = features_of(caltech)
    folder = classifier_stage(ClassifierConfig("fc7", SPLITS), network, run, caltech, tmp_path / "svm")
    fewer = caltech_images(tiny_data / "caltech101", limit=40)
    with pytest.raises(DataError, match="not the images that the splits of"):
        score_classifier(folder, features_of(fewer, "fewer"), fewer)


def test_a_broken_split_list_is_refused(caltech, features_of, network, tmp_path):
    run = features_of(caltech)
    folder = classifier_stage(ClassifierConfig("fc7", SPLITS), network, run, caltech, tmp_path / "svm")
    about = json.loads((folder / "classifier.json").read_text())
    del about["splits"][0]["test"]
    (folder / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="not a classifier"):
        score_classifier(folder, run, caltech)


def test_a_category_that_is_too_small(caltech, features_of, network, tmp_path):
    config = ClassifierConfig("fc7", RandomSplits())
    with pytest.raises(DataError, match="category BACKGROUND_Google has 4 images, but 31 are needed"):
        classifier_stage(config, network, features_of(caltech), caltech, tmp_path / "svm")


def test_splits_belong_to_caltech(voc, caltech, features_of, network, tmp_path):
    for images, splits in ((voc, SPLITS), (caltech, None), (caltech, RandomSplits(count=0))):
        with pytest.raises(UsageError, match="Caltech101 takes one random split or more"):
            classifier_stage(
                ClassifierConfig("fc7", splits), network, tmp_path / "features", images, tmp_path / "svm"
            )


def test_a_class_list_that_is_missing(tiny_data, tmp_path):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n")
    (tmp_path / "ImageSets" / "Main" / "cat_test.txt").write_text("000001 1\n")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    with pytest.raises(DataError, match=r"cat_trainval\.txt: no such per-class list"):
        voc_images(tmp_path, "trainval")
