"""The curves from scores to confidences, beside a second solver and with answers worked by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from sppnet_cli.learning.calibration import Calibration, CalibrationRules, fit_calibration

FREE = CalibrationRules(folds=3, slope_spread=100.0, offset_spread=100.0)
TIED = CalibrationRules(folds=3, slope_spread=0.3, offset_spread=2.0)


def curve(scores, slope, offset, knee=0.0, bend=1.0):
    """The curve written down anew: its slope is `bend` far above the knee."""
    margin = slope * scores + offset
    return 1 / (1 + np.exp(-margin) * (1 + np.exp(margin - knee)) ** (1 - bend))


def drawn(slope, offset, count, knee=0.0, bend=1.0, seed=0):
    """Scores like those of SVMs, and whether detections are right with the chance of that curve."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 0.4, count)
    return scores, rng.random(count) < curve(scores, slope, offset, knee, bend)


def joined(*parts):
    """Scores, labels and marks of several classes."""
    scores, right = (np.concatenate(each) for each in zip(*parts, strict=True))
    return scores, np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]), right


def test_a_curve_by_hand():
    found = Calibration((2.0, 1.0), (1.0, -1.0), 0.0, 1.0)  # no bend: Platt's
    assert found(np.array([-0.5, 0.0]), 0).tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1))])
    assert found(np.array([1.0], np.float32), 1).tolist() == [0.5]
    bent = Calibration((2.0, 1.0), (1.0, -1.0), 0.5, 0.25)
    # A margin of .5 is at the knee: logit .5 - .75 log 2.
    assert bent(np.array([-0.25]), 0)[0] == pytest.approx(1 / (1 + math.exp(-0.5 + 0.75 * math.log(2))))
    assert bent(np.array([-1e4, 1e4]), 0).tolist() == [0, 1]
    logits = [math.log(c / (1 - c)) for c in bent(np.array([-10.0, -9.0, 9.0, 10.0]), 0)]
    assert logits[1] - logits[0] == pytest.approx(2, abs=1e-6)
    assert logits[3] - logits[2] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("bend", [0.1, 0.5, 1.0])
def test_the_curve_that_drew_the_detections_is_found(bend):
    scores, right = drawn(8, 7, 60_000, 0.5, bend)
    found = fit_calibration(scores, np.zeros(60_000, int), right, 1, FREE)
    at = np.linspace(-1.6, -0.3, 9)
    assert found(at, 0) == pytest.approx(curve(at, 8, 7, 0.5, bend), abs=0.02)


def test_a_second_solver_agrees():
    """A search without gradients, of the same probability written down anew."""
    scores, labels, right = joined(drawn(6, 5, 300, 0.5, 0.4), drawn(4, 2, 120, 0.5, 0.4, seed=1))
    found = fit_calibration(scores, labels, right, 2, TIED)
    n, m, centre = right.sum(), (~right).sum(), scores[right].mean()
    targets = np.where(right, (n + 1) / (n + 2), 1 / (m + 2))

    def loss(at):
        bend = 1 / (1 + math.exp(-at[0]))
        total = (at[0] + 1) ** 2 / (2 * 1.5**2) + (at[1] - 0.5) ** 2 / (2 * 0.7**2)
        for k in (0, 1):
            total += at[4 + k] ** 2 / (2 * 0.3**2) + at[6 + k] ** 2 / (2 * 2.0**2)
            own = labels == k
            chance = curve(scores[own] - centre, math.exp(at[2] + at[4 + k]), at[3] + at[6 + k], at[1], bend)
            total -= (targets[own] * np.log(chance) + (1 - targets[own]) * np.log(1 - chance)).sum()
        return total

    best = minimize(loss, [-1, 0.5, 1.5, *[0] * 5], method="Powell", options={"xtol": 1e-8, "ftol": 1e-13}).x
    slope, offset = np.exp(best[2] + best[4:6]), best[3] + best[6:]
    at = np.linspace(-1.8, -0.2, 9)
    for k in (0, 1):
        theirs = curve(at - centre, slope[k], offset[k], best[1], 1 / (1 + math.exp(-best[0])))
        assert found(at, k) == pytest.approx(theirs, abs=2e-3)


def test_a_class_of_few_detections_stays_near_the_common_curve():
    unlucky = np.array([-0.2, -0.4, -1.5]), np.array([False, False, False])
    scores, labels, right = joined(drawn(5, 4, 3000), unlucky)
    free, tied = (fit_calibration(scores, labels, right, 3, rules) for rules in (FREE, TIED))
    at = np.array([-0.3])
    common = tied(at, 2)[0]  # a class of which nothing was detected
    assert common > 0.5
    assert free(at, 1)[0] < 0.1
    assert free(at, 1)[0] + 0.15 < tied(at, 1)[0] < common


def test_a_class_of_many_detections_goes_its_own_way():
    scores, labels, right = joined(drawn(5, 5, 5000), drawn(5, 2, 5000, seed=1))
    found = fit_calibration(scores, labels, right, 2, TIED)
    for label, offset in enumerate((5, 2)):
        at = np.array([-1.2, -0.8, -0.4])
        assert found(at, label) == pytest.approx(1 / (1 + np.exp(-(5 * at + offset))), abs=0.05)


def test_a_higher_score_is_never_less_sure():
    rng = np.random.default_rng(0)
    scores = rng.normal(-1, 0.3, 400)
    right = rng.random(400) < np.where(scores > -1, 0.1, 0.6)  # the wrong way round
    found = fit_calibration(scores, np.zeros(400, int), right, 1, TIED)
    assert found.slope[0] >= 0
    assert found(scores, 0).mean() == pytest.approx(right.mean(), abs=0.05)


def test_scores_that_part_right_from_wrong_make_no_step():
    scores = np.array([-1.2, -1.1, -0.9, -0.8])
    found = fit_calibration(scores, np.zeros(4, int), scores > -1, 1, TIED)
    assert 0.55 < found(np.array([-0.8]), 0)[0] < 0.95


def test_the_order_of_the_detections_does_not_matter():
    scores, labels, right = joined(drawn(6, 5, 300), drawn(4, 2, 100, seed=1))
    order = np.random.default_rng(0).permutation(400)
    one = fit_calibration(scores, labels, right, 2, TIED)
    other = fit_calibration(scores[order], labels[order], right[order], 2, TIED)
    assert one.slope == pytest.approx(other.slope, rel=1e-3)


@pytest.mark.parametrize("right", [[True, True], [False, False]])
def test_one_kind_alone_says_nothing(right):
    with pytest.raises(ValueError, match="right and wrong detections are needed"):
        fit_calibration(np.array([0.0, 1.0]), np.zeros(2, int), np.array(right), 1, TIED)
