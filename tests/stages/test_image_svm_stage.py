"""SVMs on whole images from features to their score."""

import csv
import json

import numpy as np
import pytest
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, LinearSVC

from sppnet_cli.data.splits import caltech_splits
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.outcomes import AccuracyOutcome, MapOutcome
from sppnet_cli.learning.image_svm import ImageSvms
from sppnet_cli.protocols import ImageSvmRules
from sppnet_cli.runs import fingerprint
from sppnet_cli.stages.extract_features import ExtractConfig, ImageSet
from sppnet_cli.stages.image_svm import (
    AccuracyScore,
    ImageSvmConfig,
    MapScore,
    RandomSplits,
    labelled_images,
    score_images,
    train_on_images,
)

SPLITS = RandomSplits(count=3, train=2, test=1)
VOC, CALTECH = ImageSet("VOC", "trainval"), ImageSet("Caltech101", None)


@pytest.fixture
def network(tmp_path):
    return network_in(tmp_path / "network")


def network_in(folder):
    folder.mkdir()
    (folder / "network.json").write_text(folder.name)
    return folder


@pytest.fixture
def folder_of(tiny_data):
    """The data of an image set."""
    return lambda images: tiny_data / ("VOCdevkit" if images.dataset == "VOC" else "caltech101")


@pytest.fixture
def features_of(make, network, folder_of):
    """Makes a run of features that tell the classes up to some noise."""

    def run(images, name="features", layer="fc7", size=224, view="full", dimension=12, noise=0.5, by=network):
        labelled = labelled_images(images, folder_of(images))
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(len(labelled.class_names), dimension))
        rows = (labelled.labels == 1) @ directions + 1
        rows += noise * rng.normal(size=(len(labelled.paths), dimension))

        def extract(_config, _inputs, folder, _how):
            np.save(folder / f"{layer.replace(' ', '-')}.npy", rows.astype(np.float32))

        inputs = {"network": by, "data": folder_of(images)}
        return make(
            extract, ExtractConfig((layer,), view, size, images), inputs, name, stage="extract-features"
        )

    return run


@pytest.fixture
def train(make, network, folder_of):
    """Trains SVMs on a run of features."""

    def run(features, images=VOC, splits=None, layer="fc7", loss="hinge"):
        config = ImageSvmConfig(layer, images, ImageSvmRules(loss, 1.0), splits)
        inputs = {"features": features, "network": network, "data": folder_of(images)}
        return make(train_on_images, config, inputs, "svms", stage="train-svm-images")

    return run


@pytest.fixture
def voc(folder_of):
    return labelled_images(VOC, folder_of(VOC))


@pytest.fixture
def voc_test(folder_of):
    return labelled_images(ImageSet("VOC", "test"), folder_of(VOC))


@pytest.fixture
def caltech(folder_of):
    return labelled_images(CALTECH, folder_of(CALTECH))


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
def test_voc_from_features_to_map(voc, voc_test, features_of, train, network, loss):
    run = features_of(VOC)
    folder = train(run, loss=loss)
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

    found = features_of(ImageSet("VOC", "test"), "test")
    score = score_images(folder, found, voc_test)
    assert isinstance(score, MapScore)
    assert isinstance(score.outcome, MapOutcome)
    np.testing.assert_array_equal(score.outcome.labels, voc_test.labels)
    expected = rows_of(found) @ svms.weights[0].T + svms.bias[0]
    np.testing.assert_allclose(score.outcome.scores, expected, atol=1e-5)
    result = score.as_dict()
    assert list(result) == ["mAP", "AP", "n"]
    assert list(result["AP"]) == list(voc.class_names)
    assert result["mAP"] == pytest.approx(np.mean(list(result["AP"].values())))
    assert (result["n"], result["mAP"] > 0.5) == (20, True)


def test_caltech_from_features_to_accuracy(caltech, features_of, train):
    run = features_of(CALTECH, noise=0.8)
    folder = train(run, CALTECH, SPLITS)
    svms = ImageSvms.load(folder)
    labels = caltech.labels.argmax(axis=1)
    assert svms.weights.shape == (3, 12, 12)

    score = score_images(folder, run, caltech)
    assert isinstance(score, AccuracyScore)
    right = np.full((3, len(labels)), -1)
    x = rows_of(run)
    for s, (rows, test) in enumerate(caltech_splits(labels, caltech.class_names, 3, 2, 1)):
        reference = OneVsRestClassifier(SVC(kernel="linear", tol=1e-6)).fit(x[rows], labels[rows])
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


def test_svms_are_trained_once(features_of, train):
    run = features_of(VOC)
    about = train(run) / "classifier.json"
    before = about.stat().st_mtime_ns
    train(run)
    assert about.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="layer was 'fc7', not 'fc6'"):
        train(features_of(VOC, "other", "fc6"), layer="fc6")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "fc6"}, "no features of fc7"),
        ({"size": 392}, "size 392, not 224"),
        ({"view": "warp"}, "view warp, not full"),
        ({"dimension": 13}, "13 numbers an image, but .* takes 12"),
    ],
)
def test_features_of_another_kind_are_refused(voc, features_of, train, change, message):
    folder = train(features_of(VOC))
    with pytest.raises(DataError, match=message):
        score_images(folder, features_of(VOC, "others", **change), voc)


def test_features_of_another_network_are_refused(voc, features_of, train, network, tmp_path):
    folder = train(features_of(VOC))
    other = network_in(tmp_path / "other-network")
    with pytest.raises(DataError, match=f"network {fingerprint(other)}, not {fingerprint(network)}"):
        score_images(folder, features_of(VOC, "others", by=other), voc)


def test_features_of_other_images_are_refused(voc, features_of, train, tmp_path):
    fewer = ImageSet("VOC", "trainval", 7)
    with pytest.raises(DataError, match="features of other images"):
        train(features_of(fewer, "fewer"))
    folder = train(features_of(VOC))
    with pytest.raises(DataError, match="features of other images"):
        score_images(folder, tmp_path / "fewer", voc)


def test_a_run_that_holds_no_features_is_refused(voc, features_of, train, tmp_path):
    folder = train(features_of(VOC))
    with pytest.raises(DataError, match="a run of train-svm-images, which has no features"):
        score_images(folder, folder, voc)
    with pytest.raises(DataError, match="not a complete run directory"):
        score_images(folder, tmp_path / "nowhere", voc)


def test_another_set_of_classes_is_refused(caltech, features_of, train):
    folder = train(features_of(VOC))
    with pytest.raises(DataError, match="knows the 20 classes of a VOC set, which are not the 12 of"):
        score_images(folder, features_of(CALTECH, "others"), caltech)


def test_splits_of_other_images_are_refused(features_of, folder_of, train):
    folder = train(features_of(CALTECH), CALTECH, SPLITS)
    fewer = ImageSet("Caltech101", None, 40)
    with pytest.raises(DataError, match="not the images that the splits of"):
        score_images(folder, features_of(fewer, "fewer"), labelled_images(fewer, folder_of(fewer)))


def test_a_broken_split_list_is_refused(caltech, features_of, train):
    run = features_of(CALTECH)
    folder = train(run, CALTECH, SPLITS)
    about = json.loads((folder / "classifier.json").read_text())
    del about["splits"][0]["test"]
    (folder / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="not a classifier"):
        score_images(folder, run, caltech)


def test_a_category_that_is_too_small(features_of, train):
    with pytest.raises(DataError, match="category BACKGROUND_Google has 4 images, but 31 are needed"):
        train(features_of(CALTECH), CALTECH, RandomSplits())


def test_a_limit_that_leaves_too_few_images(features_of, train):
    few = ImageSet("VOC", "trainval", 1)
    with pytest.raises(DataError, match="--limit 1 leaves 0 images of"):
        train(features_of(few), few)


def test_splits_belong_to_caltech(features_of, train):
    for images, splits in ((VOC, SPLITS), (CALTECH, None), (CALTECH, RandomSplits(count=0))):
        with pytest.raises(UsageError, match="Caltech101 takes one random split or more"):
            train(features_of(images, images.dataset), images, splits)


def test_the_splits_follow_from_their_seed(caltech, features_of, train, tmp_path):
    run = features_of(CALTECH)
    labels = caltech.labels.argmax(axis=1)
    folder = train(run, CALTECH, RandomSplits(3, 2, 1, seed=5))
    expected = caltech_splits(labels, caltech.class_names, 3, 2, 1, 5)
    for found, split in zip(ImageSvms.load(folder).splits, expected, strict=True):
        np.testing.assert_array_equal(found.train, split.train)
        np.testing.assert_array_equal(found.test, split.test)


def test_a_class_list_that_is_missing(tmp_path):
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n")
    (tmp_path / "ImageSets" / "Main" / "cat_test.txt").write_text("000001 1\n")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    with pytest.raises(DataError, match=r"cat_trainval\.txt: no such per-class list"):
        labelled_images(VOC, tmp_path)
