"""Confidences beside precision, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.evaluation.reliability import draw_reliability, mark_rows, reliability, reliability_table


def test_two_bins_by_hand():
    confidence = np.array([0.9, 0.2, 0.7, 0.4, 0.05])
    right = np.array([True, False, False, True, True])  # the last is below .1
    found = reliability(confidence, right, bins=2)
    assert found.confidence.tolist() == pytest.approx([0.3, 0.8])
    assert found.precision.tolist() == [0.5, 0.5]
    assert found.count.tolist() == [2, 2]
    assert found.error == pytest.approx((0.2 + 0.3) / 2)
    # Variances of a detection: .16 and .24, .21 and .09.
    assert found.chance == pytest.approx(math.sqrt(2 / math.pi) * (math.sqrt(0.4) + math.sqrt(0.3)) / 2 / 2)
    assert found.brier == pytest.approx((0.1**2 + 0.2**2 + 0.7**2 + 0.6**2) / 4)
    assert found.base_brier == 0.25
    assert reliability_table(found)["detections"].tolist() == [2, 2]


def test_bins_differ_by_one_at_most():
    found = reliability(np.linspace(0.1, 1, 23), np.ones(23, bool))
    assert found.count.tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert len(reliability(np.array([0.5, 0.6]), np.array([True, False])).count) == 2


def test_honest_confidences_have_no_gap():
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    found = reliability(confidence, rng.random(50_000) < confidence)
    assert found.error < 0.01
    assert found.brier < 0.75 * found.base_brier


@pytest.mark.parametrize("count", [50, 130, 1000])
def test_the_gap_of_right_confidences_by_drawing(count):
    rng = np.random.default_rng(0)
    confidence = 0.1 + 0.8 * rng.beta(1, 3, count)
    drawn = [reliability(confidence, rng.random(count) < confidence) for _ in range(500)]
    assert drawn[0].chance == pytest.approx(np.mean([found.error for found in drawn]), rel=0.08)


def test_nothing_sure_enough():
    found = reliability(np.array([0.01]), np.array([True]))
    assert math.isnan(found.error)
    assert math.isnan(found.chance)
    assert math.isnan(found.brier)
    assert reliability_table(found).empty


def test_rows_are_marked_in_their_own_order(data):
    dataset = load_voc(data, "test")
    image, other = dataset.ids[:2]
    truth = dataset.annotation(image)
    name, box = dataset.class_names[truth.labels[0]], truth.boxes[0].tolist()
    assert not truth.difficult[0]  # the main object of an embedded image
    rows = [
        (other, name, 0.9, 0.0, 0.0, 1.0, 1.0),
        (image, name, 0.1, *box),  # a repetition of the next
        (image, name, 0.5, *box),
    ]
    frame = pd.DataFrame(rows, columns=["image", "class", "score", "x1", "y1", "x2", "y2"])
    assert mark_rows(frame, dataset).tolist() == [0, 0, 1]
    assert mark_rows(frame.iloc[::-1], dataset).tolist() == [1, 0, 0]
    assert mark_rows(frame.iloc[:0], dataset).tolist() == []


def test_rows_of_difficult_objects_are_apart(data):
    dataset = load_voc(data, "test")
    for image in dataset.ids:
        truth = dataset.annotation(image)
        if truth.difficult.any():
            k = int(truth.difficult.argmax())
            row = (image, dataset.class_names[truth.labels[k]], 0.9, *truth.boxes[k].tolist())
            frame = pd.DataFrame([row], columns=["image", "class", "score", "x1", "y1", "x2", "y2"])
            assert mark_rows(frame, dataset).tolist() == [-1]
            return
    pytest.fail("no difficult object")


def test_a_picture(tmp_path):
    draw_reliability(
        reliability(np.array([0.5, 0.6]), np.array([True, False])), "a $title", tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
