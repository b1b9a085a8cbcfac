"""The curves from scores to confidences, beside a second solver and with answers worked by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from sppnet_cli.learning.calibration import Calibration, CalibrationRules, fit_calibration

NONE = CalibrationRules(folds=3, prior=0.0)
SOME = CalibrationRules(folds=3, prior=10.0)


def drawn(slope, offset, count, seed=0):
    """Scores like those of SVMs, and whether detections are right with the chance of that curve."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 0.4, count)
    return scores, rng.random(count) < 1 / (1 + np.exp(-(slope * scores + offset)))


def test_a_curve_by_hand():
    found = Calibration((2.0, 1.0), (1.0, -1.0))
    assert found(np.array([-0.5, 0.0]), 0).tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1))])
    assert found(np.array([1.0], np.float32), 1).tolist() == [0.5]
    assert found(np.array([-1e4, 1e4]), 0).tolist() == [0, 1]


def test_the_curve_that_drew_the_detections_is_found():
    scores, right = drawn(6, 5, 20_000)
    found = fit_calibration(scores, np.zeros(20_000, int), right, 1, NONE)
    assert found.slope[0] == pytest.approx(6, rel=0.05)
    assert found.offset[0] == pytest.approx(5, rel=0.05)


def test_a_second_solver_agrees():
    """Without a prior each class has Platt's curve of its own: least log loss against his targets."""
    parts = [drawn(5, 4, 300), drawn(2, 0, 80, seed=1)]
    scores, right = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = fit_calibration(scores, np.repeat([0, 1], [300, 80]), right, 2, NONE)
    for label, (own, hits) in enumerate(parts):
        high, low = (hits.sum() + 1) / (hits.sum() + 2), 1 / ((~hits).sum() + 2)
        targets = np.where(hits, high, low)

        def loss(at, own=own, targets=targets):
            chance = 1 / (1 + np.exp(-(at[0] * own + at[1])))
            return -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).sum()

        best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
        assert (found.slope[label], found.offset[label]) == pytest.approx(tuple(best), abs=1e-4)


def test_a_class_of_few_detections_stays_near_the_common_curve():
    scores, right = drawn(5, 4, 3000)
    few = np.array([-0.2, -0.4]), np.array([False, False])  # unlucky, where half would be right
    labels = np.repeat([0, 1], [3000, 2])
    every = np.concatenate([scores, few[0]]), labels, np.concatenate([right, few[1]])
    free, tied = (fit_calibration(*every, 3, rules) for rules in (NONE, SOME))
    at = np.array([-0.3])
    common = tied(at, 2)[0]  # a class of which nothing was detected
    assert common == pytest.approx(tied(at, 0)[0], abs=0.01)
    assert abs(tied(at, 1)[0] - common) < 0.35 * abs(free(at, 1)[0] - common)
    assert tied(at, 1)[0] < common


def test_a_class_of_many_detections_goes_its_own_way():
    parts = [drawn(5, 5, 5000), drawn(5, 2, 5000, seed=1)]
    scores, right = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = fit_calibration(scores, np.repeat([0, 1], 5000), right, 2, SOME)
    assert found.offset == pytest.approx((5, 2), abs=0.4)


def test_a_higher_score_is_never_less_sure():
    rng = np.random.default_rng(0)
    scores = rng.normal(-1, 0.3, 400)
    right = rng.random(400) < np.where(scores > -1, 0.1, 0.6)  # the wrong way round
    found = fit_calibration(scores, np.zeros(400, int), right, 1, NONE)
    assert found.slope[0] > 0
    assert found(scores, 0).mean() == pytest.approx(right.mean(), abs=0.02)


def test_scores_that_part_right_from_wrong_make_no_step():
    scores = np.array([-1.2, -1.1, -0.9, -0.8])
    found = fit_calibration(scores, np.zeros(4, int), scores > -1, 1, NONE)
    assert 0.6 < found(np.array([-0.8]), 0)[0] < 0.9


@pytest.mark.parametrize("right", [[True, True], [False, False]])
def test_one_kind_alone_says_nothing(right):
    with pytest.raises(ValueError, match="right and wrong detections are needed"):
        fit_calibration(np.array([0.0, 1.0]), np.zeros(2, int), np.array(right), 1, SOME)
