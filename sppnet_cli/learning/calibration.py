"""From an SVM's score to the probability that the detection is right: a bent logistic curve for each class.

Scores of SVMs on window features cluster around -1 and differ in spread from class to class, so that no one threshold
suits all.  Platt (1999) fits a logistic curve to them.  Of detections even the highest scores are often wrong, since
their box overlaps the object by too little, and a curve that follows the many low scores is far too sure there.  So
the curves rise more slowly above a knee, which all classes share.  They are fitted to detections in images that the
SVMs did not train on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What is believed of the curves' shape before any detection is seen: mean and standard deviation.
_BEND = (-1.0, 1.5)  # of the bend's logit
_KNEE = (0.5, 0.7)


@dataclass(frozen=True)
class CalibrationRules:
    """What the curves depend on, beside the detections."""

    folds: int  # parts of the training images; each is scored by a detector that trained on the others
    # Standard deviations of the classes around the curve that they share, of few detections of a class the only guide:
    slope_spread: float  # of the slope's logarithm
    offset_spread: float  # of the offset, at the mean score of right detections


@dataclass(frozen=True)
class Calibration:
    """Per class a curve from scores to confidences.

    `confidence = 1 / (1 + exp(-logit))` with `margin = slope * score + offset` and
    `logit = margin - (1 - bend) * log(1 + exp(margin - knee))`: it rises like the margin below the knee, and `bend`
    times as fast above it.
    """

    slope: tuple[float, ...]  # (K,) positive
    offset: tuple[float, ...]  # (K,)
    knee: float
    bend: float  # a fraction

    def __call__(self, scores: NDArray[np.floating], label: int) -> NDArray[np.float64]:
        """Confidences (N,) in [0, 1] of the scores (N,) of class `label`."""
        margin = self.slope[label] * np.asarray(scores, np.float64) + self.offset[label]
        return _logistic(margin - (1 - self.bend) * np.logaddexp(0, margin - self.knee))


def fit_calibration(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    right: NDArray[np.bool_],
    classes: int,
    rules: CalibrationRules,
) -> Calibration:
    """The most probable curves of `classes` classes, given held-out detections.

    Knee, bend, common curve and the classes' deviations from it are fitted together.  As in Platt's paper the targets are
    not 0 and 1 but 1 / (m + 2) and (n + 1) / (n + 2) for m wrong and n right detections, so that no curve becomes a
    step.

    Args:
        scores: (N,) of the SVMs, finite.
        labels: (N,) classes.
        right: (N,) whether the detection is right.
        classes: K.
        rules: how far the classes may be apart.

    Raises:
        ValueError: none of the detections is right, or none is wrong.
    """
    from scipy.optimize import minimize  # takes a third of a second, for fitting alone

    if not right.any() or right.all():
        raise ValueError("right and wrong detections are needed, some of each")
    scores = np.asarray(scores, np.float64)
    centre = float(scores[right].mean())
    targets = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    loss = _Loss(np.subtract(scores, centre), labels, targets, classes, rules)
    found = minimize(loss, loss.start(), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    slope, offset = loss.curves(found)
    bend, knee = float(_logistic(found[0])), float(found[1])
    return Calibration(tuple(slope.tolist()), tuple((offset - slope * centre).tolist()), knee, bend)


@dataclass(frozen=True)
class _Loss:
    """Minus the logarithm of the curves' probability, and its gradient.

    Parameters (4 + 2K,): the bend's logit, the knee, the logarithm of the common slope, the common offset, and each
    class's deviation from the latter two.
    """

    scores: NDArray[np.float64]  # (N,) less their centre
    labels: NDArray[np.integer]  # (N,)
    targets: NDArray[np.float64]  # (N,)
    classes: int
    rules: CalibrationRules

    def start(self) -> NDArray[np.float64]:
        return np.array([_BEND[0], _KNEE[0], 1.5, *[0.0] * (1 + 2 * self.classes)])

    def curves(self, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The slopes (K,) and offsets (K,) of the classes."""
        slopes, offsets = at[4:].reshape(2, self.classes)
        return np.exp(at[2] + slopes), at[3] + offsets

    def __call__(self, at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, offset = self.curves(at)
        bend, knee = float(_logistic(at[0])), at[1]
        rise = slope[self.labels] * self.scores
        margin = rise + offset[self.labels]
        above, beyond = np.logaddexp(0, margin - knee), _logistic(margin - knee)
        logit = margin - (1 - bend) * above
        loss = float(np.logaddexp(0, logit).sum() - self.targets @ logit)
        by_logit = _logistic(logit) - self.targets
        by_margin = by_logit * (1 - (1 - bend) * beyond)
        by_slope = np.bincount(self.labels, by_margin * rise, self.classes)
        by_offset = np.bincount(self.labels, by_margin, self.classes)
        shared = [bend * (1 - bend) * (by_logit @ above), (1 - bend) * (by_logit @ beyond)]
        gradient = np.concatenate([shared, [by_slope.sum(), by_offset.sum()], by_slope, by_offset])
        means = np.array([_BEND[0], _KNEE[0], *[0.0] * (2 + 2 * self.classes)])
        spreads = [self.rules.slope_spread] * self.classes + [self.rules.offset_spread] * self.classes
        precision = np.array([_BEND[1], _KNEE[1], np.inf, np.inf, *spreads]) ** -2.0
        loss += float(precision @ (at - means) ** 2) / 2
        return loss, gradient + precision * (at - means)


def _logistic(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -margin))
