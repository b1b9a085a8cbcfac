import numpy as np
import pytest
from random_outcomes import random_detections
from scipy.stats import binom

from sppnet_cli.evaluation.bootstrap import Best, Times, Wins, interval, paired_interval
from sppnet_cli.evaluation.outcomes import AccuracyOutcome, DetectionOutcome, ErrorOutcome, MapOutcome


def errors(*wrong):
    return ErrorOutcome(np.array(wrong, dtype=bool))


def splits(right, labels):
    return AccuracyOutcome(np.array(right, dtype=np.int8), np.array(labels))


def test_interval_of_a_constant_difference_is_a_point():
    # Every image is wrong on one side and right on the other.
    assert paired_interval([errors(0, 0, 0)], [errors(1, 1, 1)], higher_is_better=False) == (1, 1)
    assert paired_interval([errors(1, 1, 1)], [errors(0, 0, 0)], higher_is_better=False) == (-1, -1)
    assert paired_interval([errors(1, 1, 1)], [errors(0, 0, 0)], higher_is_better=True) == (1, 1)


def test_pairing_takes_the_images_own_difficulty_out():
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    assert paired_interval([ErrorOutcome(hard)], [ErrorOutcome(hard)], higher_is_better=False) == (0, 0)
    worse = hard.copy()
    worse[np.flatnonzero(~hard)[:20]] = True  # 20 of 400 images, 5 points
    interval = paired_interval(
        [ErrorOutcome(hard)], [ErrorOutcome(worse)], higher_is_better=False, samples=4000
    )
    expected = binom.ppf([0.025, 0.975], 400, 0.05) / 400
    np.testing.assert_allclose(interval, expected, atol=1.01 / 400)


def test_seeds_are_drawn_too():
    # Two seeds that differ by 0 and by 1 on every image: the mean of two draws is 0, .5 or 1.
    better = [errors(0, 0), errors(0, 0)]
    worse = [errors(0, 0), errors(1, 1)]
    assert paired_interval(better, worse, higher_is_better=False) == (0, 1)
    # The images' part is the same for all seeds: equal seeds are no surer than one.
    rng = np.random.default_rng(1)
    one, other = (ErrorOutcome(rng.random(200) < p) for p in (0.3, 0.5))
    once = np.array(paired_interval([one], [other], higher_is_better=False, samples=4000))
    thrice = np.array(paired_interval([one] * 3, [other] * 3, higher_is_better=False, samples=4000))
    np.testing.assert_allclose(thrice, once, atol=0.01)


def test_classes_of_accuracy_are_drawn_each_for_itself():
    # One image a class: nothing is left to chance, where drawing over all images would lose classes.
    better = splits([[1, 1, 0, 1]], [0, 1, 2, 3])
    worse = splits([[1, 0, 0, 0]], [0, 1, 2, 3])
    assert paired_interval([better], [worse], higher_is_better=True) == (0.5, 0.5)


def test_interval_is_repeatable():
    rng = np.random.default_rng(1)
    better, worse = (random_detections(rng) for _ in range(2))
    first = paired_interval([better], [worse], higher_is_better=True, samples=200)
    assert paired_interval([better], [worse], higher_is_better=True, samples=200) == first
    assert paired_interval([better], [worse], higher_is_better=True, samples=200, seed=1) != first


def test_many_images_are_drawn_in_parts():
    # 10,000 images of which 1,000 differ: 4,000 samples are drawn 400 at a time.
    right, wrong = np.zeros(10_000, bool), np.arange(10_000) < 1_000
    interval = paired_interval(
        [ErrorOutcome(right)], [ErrorOutcome(wrong)], higher_is_better=False, samples=4000
    )
    np.testing.assert_allclose(interval, binom.ppf([0.025, 0.975], 10_000, 0.1) / 10_000, atol=5e-4)


def test_interval_covers_about_95_of_100_true_differences():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        difficulty = rng.random(150)
        better, worse = (ErrorOutcome(difficulty + rng.normal(0, 0.2, 150) > edge) for edge in (0.6, 0.5))
        low, high = paired_interval([better], [worse], higher_is_better=False, samples=300, seed=seed)
        covered += low <= 0.1 <= high  # the noise is symmetric: P(u + e > t) is 1 - t, nearly
    assert 178 <= covered <= 200


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"outcomes of \[1, 2\] images"):
        paired_interval([errors(1)], [errors(1, 0)], higher_is_better=False)
    with pytest.raises(ValueError, match="2 and 1 outcomes"):
        paired_interval([errors(1), errors(1)], [errors(1)], higher_is_better=False)
    with pytest.raises(ValueError, match="0 and 0 outcomes"):
        paired_interval([], [], higher_is_better=False)
    with pytest.raises(ValueError, match="different kinds"):
        paired_interval(
            [errors(1)],
            [MapOutcome(np.ones((1, 1), np.float32), np.ones((1, 1), np.int8))],
            higher_is_better=True,
        )
    with pytest.raises(ValueError, match="different classes"):
        paired_interval([splits([[1, 0]], [0, 1])], [splits([[1, 0]], [0, 0])], higher_is_better=True)


def test_wins_count_classes_and_best_takes_the_highest():
    rng = np.random.default_rng(2)
    a, b, c = (random_detections(rng) for _ in range(3))
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=4)
    aps = [outcome.resampled_aps(weights) for outcome in (a, b, c)]
    np.testing.assert_array_equal(
        Wins((a,), (b, c)).resampled(weights), (aps[0] > np.maximum(aps[1], aps[2])).sum(axis=0)
    )
    best = Best((a, b)).resampled(weights)
    np.testing.assert_array_equal(best, np.maximum(a.resampled(weights), b.resampled(weights)))
    np.testing.assert_array_equal(Times(3.0, a).resampled(weights), 3 * a.resampled(weights))


def test_interval_of_a_rate_is_that_of_the_binomial():
    outcome = errors(*[1] * 120, *[0] * 280)
    found = interval(outcome.resampled, outcome.strata, samples=4000)
    np.testing.assert_allclose(found, binom.ppf([0.025, 0.975], 400, 0.3) / 400, atol=1.01 / 400)


def test_intervals_of_each_class():
    rng = np.random.default_rng(0)
    outcome = random_detections(rng)
    low, high = interval(outcome.resampled_aps, outcome.strata)
    aps = outcome.resampled_aps(np.ones((1, outcome.images), np.int64))[:, 0]
    assert low.shape == high.shape == (3,)
    assert (low < aps).all()
    assert (aps < high).all()
    whole = interval(outcome.resampled, outcome.strata)
    assert low.min() < whole[0] < whole[1] < high.max()


def test_a_class_without_positives_has_no_interval_and_spoils_no_other():
    some = random_detections(np.random.default_rng(1), classes=2)
    positives = some.positives.copy()
    positives[:, 1] = 0
    positives[1:, 0] = 0  # a sample may lack the one image that has some
    outcome = DetectionOutcome(some.image, some.label, some.right, positives)
    low, high = interval(outcome.resampled_aps, outcome.strata)
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1], high[1]]).all()
