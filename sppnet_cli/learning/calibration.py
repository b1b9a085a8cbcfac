"""From an SVM's score to the probability that the detection is right: a logistic curve for each class, below a ceiling.

Scores of SVMs on window features cluster around -1 and differ in spread from class to class, so that no one threshold
suits all.  Platt (1999) fits a logistic curve to them.  Of detections even the highest scores are often wrong, since
their box overlaps the object by too little, and a curve that rises to 1 is far too sure there.  So the curves end at a
ceiling, which all classes share.  They are fitted to detections in images that the SVMs did not train on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

_CEILING_RIGHT, _CEILING_WRONG = 10.0, 1.0  # detections of the highest scores, imagined before any is seen
_LEAST = 1e-300


@dataclass(frozen=True)
class CalibrationRules:
    """What the curves depend on, beside the detections."""

    folds: int  # parts of the training images; each is scored by a detector that trained on the others
    # Standard deviations of the classes around the curve that they share, of few detections of a class the only guide:
    slope_spread: float  # of the slope's logarithm
    offset_spread: float  # of the offset, at the mean score of right detections


@dataclass(frozen=True)
class Calibration:
    """Per class: `confidence = ceiling / (1 + exp(-(slope * score + offset)))`."""

    slope: tuple[float, ...]  # (K,) positive
    offset: tuple[float, ...]  # (K,)
    ceiling: float  # a fraction

    def __call__(self, scores: NDArray[np.floating], label: int) -> NDArray[np.float64]:
        """Confidences (N,) in [0, 1] of the scores (N,) of class `label`."""
        margin = self.slope[label] * np.asarray(scores, np.float64) + self.offset[label]
        return self.ceiling * _logistic(margin)


def fit_calibration(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    right: NDArray[np.bool_],
    classes: int,
    rules: CalibrationRules,
) -> Calibration:
    """The most probable curves of `classes` classes, given held-out detections.

    Ceiling, common curve and the classes' deviations from it are fitted together.  As in Platt's paper the targets are
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
    if not right.any() or right.all():
        raise ValueError("right and wrong detections are needed, some of each")
    scores = np.asarray(scores, np.float64)
    centre = float(scores[right].mean())
    targets = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    loss = _Loss(np.subtract(scores, centre), labels, targets, classes, rules)
    found = minimize(loss, loss.start(), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    ceiling, slope, offset = loss.curves(found)
    return Calibration(tuple(slope.tolist()), tuple((offset - slope * centre).tolist()), ceiling)


@dataclass(frozen=True)
class _Loss:
    """Minus the logarithm of the curves' probability, and its gradient.

    Parameters (3 + 2K,): the ceiling's logit, the logarithm of the common slope, the common offset, and each class's
    deviation from the latter two.
    """

    scores: NDArray[np.float64]  # (N,) less their centre
    labels: NDArray[np.integer]  # (N,)
    targets: NDArray[np.float64]  # (N,)
    classes: int
    rules: CalibrationRules

    def start(self) -> NDArray[np.float64]:
        return np.array([2.0, 1.0, *[0.0] * (1 + 2 * self.classes)])

    def curves(self, at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """The ceiling, and the slopes (K,) and offsets (K,) of the classes."""
        slopes, offsets = at[3:].reshape(2, self.classes)
        return float(_logistic(at[0])), np.exp(at[1] + slopes), at[2] + offsets

    def __call__(self, at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        ceiling, slope, offset = self.curves(at)
        rise = slope[self.labels] * self.scores
        curve = _logistic(rise + offset[self.labels])
        chance = np.clip(ceiling * curve, _LEAST, 1 - 1e-15)
        loss = -(self.targets * np.log(chance) + (1 - self.targets) * np.log1p(-chance)).sum()
        loss -= _CEILING_RIGHT * np.log(ceiling) + _CEILING_WRONG * np.log1p(-ceiling)
        by_chance = (1 - self.targets) / (1 - chance) - self.targets / chance
        by_margin = by_chance * ceiling * curve * (1 - curve)
        by_slope = np.bincount(self.labels, by_margin * rise, self.classes)
        by_offset = np.bincount(self.labels, by_margin, self.classes)
        by_ceiling = ceiling * (1 - ceiling) * (by_chance @ curve)
        by_ceiling += _CEILING_WRONG * ceiling - _CEILING_RIGHT * (1 - ceiling)
        gradient = [by_ceiling, by_slope.sum(), by_offset.sum()]
        spreads = self.rules.slope_spread, self.rules.offset_spread
        for deviation, spread, by in zip(
            at[3:].reshape(2, self.classes), spreads, (by_slope, by_offset), strict=True
        ):
            loss += (deviation @ deviation) / (2 * spread**2)
            gradient += (by + deviation / spread**2).tolist()
        return float(loss), np.array(gradient)


def _logistic(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -margin))
