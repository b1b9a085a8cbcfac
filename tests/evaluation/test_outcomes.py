import math

import numpy as np
import pytest
from random_outcomes import random_detections

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.evaluation.outcomes import (
    AccuracyOutcome,
    DetectionOutcome,
    ErrorOutcome,
    MapOutcome,
    load_outcome,
    save_outcome,
)
from sppnet_cli.evaluation.voc_ap import PrecisionRecall, average_precision_11


def errors(*wrong):
    return ErrorOutcome(np.array(wrong, dtype=bool))


def ranking(scores, labels):
    return MapOutcome(np.array(scores, dtype=np.float32), np.array(labels, dtype=np.int8))


def splits(right, labels):
    return AccuracyOutcome(np.array(right, dtype=np.int8), np.array(labels))


def random_outcomes(seed):
    """One of each kind: many ties and ignored labels, a class without a positive, untested images."""
    rng = np.random.default_rng(seed)
    n = 23
    labels = rng.choice([-1, -1, -1, 0, 1], size=(n, 4))
    labels[:, 2] = np.minimum(labels[:, 2], 0)
    classes = rng.integers(0, 3, n) * 5
    return [
        errors(*rng.random(n) < 0.4),
        ranking(rng.integers(0, 6, (n, 4)) / 4, labels),
        splits(rng.choice([-1, 0, 1, 1], size=(3, n)), classes),
    ]


def repeated(outcome, weights):
    """The outcome of the image set itself in which each image is there that often."""
    rows = np.repeat(np.arange(outcome.images), weights)
    if isinstance(outcome, ErrorOutcome):
        return ErrorOutcome(outcome.wrong[rows])
    if isinstance(outcome, MapOutcome):
        return MapOutcome(outcome.scores[rows], outcome.labels[rows])
    return AccuracyOutcome(outcome.right[:, rows], outcome.labels[rows])


def plain_accuracy(outcome):
    """Loops in plain Python, for the definition."""
    of_splits = []
    for right in outcome.right.tolist():
        tested: dict[int, list[int]] = {}
        for label, mark in zip(outcome.labels.tolist(), right, strict=True):
            if mark != -1:
                tested.setdefault(label, []).append(mark)
        if tested:
            of_splits.append(sum(sum(marks) / len(marks) for marks in tested.values()) / len(tested))
    return sum(of_splits) / len(of_splits)


def plain_map(outcome):
    of_classes = []
    for scores, labels in zip(outcome.scores.T.tolist(), outcome.labels.T.tolist(), strict=True):
        ranked = [
            label
            for _, _, label in sorted((-score, i, labels[i]) for i, score in enumerate(scores))
            if label != 0
        ]
        n_positive = ranked.count(1)
        if n_positive == 0:
            continue
        ap = 0.0
        for level in range(11):
            precisions = [
                ranked[: k + 1].count(1) / (k + 1)
                for k in range(len(ranked))
                if ranked[: k + 1].count(1) * 10 >= level * n_positive + (level == 3)
            ]
            ap += max(precisions, default=0.0) / 11
        of_classes.append(ap)
    return sum(of_classes) / len(of_classes)


def test_error_is_the_fraction_of_wrong_images():
    outcome = errors(True, False, False, True, True)
    assert outcome.images == 5
    assert outcome.value() == pytest.approx(0.6)
    weights = np.array([[1, 1, 1, 1, 1], [0, 5, 0, 0, 0], [3, 1, 0, 0, 1]])
    np.testing.assert_allclose(outcome.resampled(weights), [0.6, 0, 0.8])


def test_map_is_the_mean_over_the_classes_with_positives():
    # First class: right, wrong, right of two positives: 6 levels of 1 and 5 of 2/3.  Second: ranked last of two,
    # its other positive is ignored.  Third: none.
    outcome = ranking(
        [[0.9, 0.1, 0.0], [0.5, 0.7, 0.0], [0.2, 0.9, 0.0]],
        [[1, 1, -1], [-1, -1, -1], [1, 0, 0]],
    )
    assert outcome.images == 3
    assert outcome.value() == pytest.approx(((6 + 5 * 2 / 3) / 11 + 0.5) / 2)
    # Only the first image: perfect in both classes.  Only the second: no positive of any class.
    resampled = outcome.resampled(np.array([[3, 0, 0], [0, 3, 0]]))
    assert resampled[0] == pytest.approx(1)
    assert math.isnan(resampled[1])


def test_accuracy_is_the_mean_over_splits_of_the_mean_over_classes():
    # Split one: class 7 has 2 of 3 right, class 9 has 1 of 1.  Split two: class 7 has 0 of 1, class 9 1 of 2.
    outcome = splits([[1, 1, 0, 1, -1], [0, -1, -1, 1, 0]], [7, 7, 7, 9, 9])
    assert outcome.images == 5
    assert outcome.value() == pytest.approx(((2 / 3 + 1) / 2 + (0 + 1 / 2) / 2) / 2)


def test_accuracy_leaves_a_class_out_where_it_is_not_tested():
    outcome = splits([[1, -1], [-1, 0]], [0, 1])
    assert outcome.value() == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(10))
def test_values_equal_the_definitions(seed):
    _, of_map, of_accuracy = random_outcomes(seed)
    assert of_map.value() == pytest.approx(plain_map(of_map), abs=1e-12)
    assert of_accuracy.value() == pytest.approx(plain_accuracy(of_accuracy), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", range(3))
def test_resampled_equals_the_value_of_the_repeated_images(seed, kind):
    outcome = random_outcomes(seed)[kind]
    rng = np.random.default_rng(100 + seed)
    weights = np.vstack(
        [
            np.ones(outcome.images, int),
            rng.multinomial(outcome.images, np.full(outcome.images, 1 / outcome.images), size=30),
            rng.integers(0, 2, (5, outcome.images)),
        ]
    )
    expected = [repeated(outcome, row).value() for row in weights]
    resampled = outcome.resampled(weights)
    assert resampled.shape == (36,)
    np.testing.assert_allclose(resampled, expected, rtol=0, atol=1e-12)
    assert resampled[0] == pytest.approx(outcome.value(), abs=1e-12)


@pytest.mark.parametrize("kind", range(3))
def test_a_saved_outcome_comes_back(kind, tmp_path):
    outcome = random_outcomes(0)[kind]
    save_outcome(outcome, tmp_path / "cell.npz")
    back = load_outcome(tmp_path / "cell.npz")
    assert type(back) is type(outcome)
    for name, array in vars(outcome).items():
        np.testing.assert_array_equal(getattr(back, name), array)
        assert getattr(back, name).dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["cell.npz"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cell\.npz: no such \.npz file; measure its table again"):
        load_outcome(tmp_path / "cell.npz")


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "array", "other", "wrong shape", "pickle"])
def test_a_bad_file_is_named(kind, tmp_path):
    path = tmp_path / "cell.npz"
    save_outcome(errors(True, False), path)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3, bool))
    elif kind == "other":
        np.savez(path, right=np.zeros(3))
    elif kind == "wrong shape":
        np.savez(path, wrong=np.zeros((2, 2), bool))
    else:
        np.savez(path, wrong=np.array([None, {}], dtype=object))
    with pytest.raises(
        DataError, match=r"cell\.npz: (not the outcome of a test|holds no arrays .*); measure its table again"
    ):
        load_outcome(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SppnetError, match=r"nowhere/cell\.npz: cannot be written"):
        save_outcome(errors(True), tmp_path / "nowhere" / "cell.npz")


def test_malformed_outcomes_are_refused():
    with pytest.raises(ValueError, match="wrong must be"):
        ErrorOutcome(np.zeros(0, bool))
    with pytest.raises(ValueError, match="scores of shape"):
        ranking([[1.0, 2.0]], [[1], [1]])
    with pytest.raises(ValueError, match="finite"):
        ranking([[math.nan]], [[1]])
    with pytest.raises(ValueError, match="labels must be"):
        ranking([[1.0]], [[2]])
    with pytest.raises(ValueError, match="right must be"):
        splits([[3]], [0])
    with pytest.raises(ValueError, match="2 whole numbers"):
        splits([[1, 0]], [0])
    with pytest.raises(ValueError, match="whole numbers"):
        splits([[1, 0]], [0.0, 1.0])


def test_detections_give_the_average_precision_of_their_curve():
    outcome = random_detections(np.random.default_rng(0))
    aps = []
    for label in range(3):
        right = outcome.right[outcome.label == label]
        n_right, n_counted = np.cumsum(right == 1), np.cumsum(right >= 0)
        n_positive = outcome.positives[:, label].sum()
        with np.errstate(invalid="ignore"):
            curve = PrecisionRecall(
                n_right / n_counted, n_right / n_positive, -np.arange(len(right)), n_positive
            )
        aps.append(average_precision_11(curve))
    assert outcome.value() == pytest.approx(np.mean(aps))


def test_resampled_detections_are_those_of_a_repeated_image():
    rng = np.random.default_rng(1)
    outcome = random_detections(rng)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=5)
    for counts, value in zip(weights, outcome.resampled(weights), strict=True):
        rows = np.repeat(np.arange(150), counts[outcome.image])  # copies stand side by side
        again = DetectionOutcome(
            *(getattr(outcome, name)[rows] for name in ("image", "label", "right")),
            positives=outcome.positives * counts[:, None],
        )
        assert again.value() == pytest.approx(value)


def test_detections_of_an_unknown_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown image or class"):
        DetectionOutcome(
            np.array([4], np.int32),
            np.array([0], np.int16),
            np.array([1], np.int8),
            np.ones((4, 1), np.int32),
        )
    outcome = random_detections(np.random.default_rng(3))
    save_outcome(outcome, tmp_path / "a.npz")
    assert load_outcome(tmp_path / "a.npz").value() == outcome.value()
