"""From an SVM's score to the probability that the detection is right: a logistic curve for each class (Platt, 1999).

Scores of SVMs on window features cluster around -1 and differ in spread from class to class, so that no one threshold
suits all.  The curves are fitted to detections in images that the SVMs did not train on.  A class with few such
detections is pulled towards the curve that all classes share.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS, _TOLERANCE = 100, 1e-9  # of Newton's method
_LEAST_SLOPE = 0.05  # a higher score never means less


@dataclass(frozen=True)
class CalibrationRules:
    """What the curves depend on, beside the detections."""

    folds: int  # parts of the training images; each is scored by a detector that trained on the others
    prior: float  # right detections that the common curve counts for, in the curve of each class


@dataclass(frozen=True)
class Calibration:
    """Per class: `confidence = 1 / (1 + exp(-(slope * score + offset)))`."""

    slope: tuple[float, ...]  # (K,) positive
    offset: tuple[float, ...]  # (K,)

    def __call__(self, scores: NDArray[np.floating], label: int) -> NDArray[np.float64]:
        """Confidences (N,) in [0, 1] of the scores (N,) of class `label`."""
        return _logistic(self.slope[label] * np.asarray(scores, np.float64) + self.offset[label])


def fit_calibration(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    right: NDArray[np.bool_],
    classes: int,
    rules: CalibrationRules,
) -> Calibration:
    """The curves of `classes` classes from held-out detections.

    The common curve is fitted first.  Each class then moves from it as far as its detections ask for against a penalty
    that is as curved as the common fit would be with `rules.prior` right detections.  As in Platt's paper the targets
    are not 0 and 1 but (n + 1) / (n + 2) and 1 / (m + 2) for n right and m wrong ones, so that no curve becomes a step.

    Args:
        scores: (N,) of the SVMs, finite.
        labels: (N,) classes.
        right: (N,) whether the detection is right.
        classes: K.
        rules: the weight of the common curve.

    Raises:
        ValueError: none of the detections is right, or none is wrong.
    """
    scores = np.asarray(scores, np.float64)
    if not right.any() or right.all():
        raise ValueError("right and wrong detections are needed, some of each")
    features = np.column_stack([scores, np.ones(len(scores))])
    nothing = np.zeros((2, 2))
    common = _fit(features, right, np.array([1.0, 0.0]), nothing)
    chance = _logistic(features @ common)
    curvature = (features * (chance * (1 - chance))[:, None]).T @ features * (rules.prior / right.sum())
    curves = []
    for label in range(classes):
        rows = labels == label
        curves.append(_fit(features[rows], right[rows], common, curvature) if rows.any() else common)
    slope, offset = np.array(curves).T
    return Calibration(tuple(slope.tolist()), tuple(offset.tolist()))


def _fit(
    features: NDArray[np.float64],
    right: NDArray[np.bool_],
    centre: NDArray[np.float64],
    curvature: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Slope and offset `(2,)` of least log loss plus a penalty of that `curvature` around `centre`."""
    n_right, n_wrong = right.sum(), (~right).sum()
    targets = np.where(right, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))

    def loss(at: NDArray[np.float64]) -> float:
        margin = features @ at
        away = at - centre
        return float(np.logaddexp(0, margin).sum() - targets @ margin + away @ curvature @ away / 2)

    at = centre.copy()
    for _ in range(_STEPS):
        chance = _logistic(features @ at)
        gradient = features.T @ (chance - targets) + curvature @ (at - centre)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features + curvature
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2) * (1 + np.trace(hessian)), gradient)
        size = 1.0
        while loss(at - size * step) > loss(at) and size > _TOLERANCE:
            size /= 2
        at = at - size * step
        if np.abs(size * step).max() < _TOLERANCE:
            break
    if at[0] < _LEAST_SLOPE:  # the scores of this class say nothing, or the reverse: its rate alone, nearly
        at = np.array([_LEAST_SLOPE, np.log(targets.mean() / (1 - targets.mean()))])
        at[1] -= _LEAST_SLOPE * features[:, 0].mean()
    return at


def _logistic(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -margin))
