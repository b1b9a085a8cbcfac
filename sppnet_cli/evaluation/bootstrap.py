"""How sure measured numbers and their differences are: the bootstrap over test images, and over seeds."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.evaluation.outcomes import DetectionOutcome, Outcome

_CHUNK = 4_000_000  # weights in memory at once


class Resampled(Protocol):
    """A number that depends on the test images: an outcome, or one made of several."""

    @property
    def images(self) -> int:
        """How many images were tested."""

    @property
    def strata(self) -> NDArray[np.integer]:
        """As `Outcome.strata`."""

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """As `Outcome.resampled`."""


@dataclass(frozen=True)
class Best:
    """The highest value of several outcomes of one test set."""

    outcomes: tuple[Outcome, ...]

    @property
    def images(self) -> int:
        return self.outcomes[0].images

    @property
    def strata(self) -> NDArray[np.integer]:
        return self.outcomes[0].strata

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.max([outcome.resampled(weights) for outcome in self.outcomes], axis=0)


@dataclass(frozen=True)
class Wins:
    """The number of classes in which one detector's AP is above those of all others."""

    winners: tuple[DetectionOutcome, ...]  # the best of these in each class
    others: tuple[DetectionOutcome, ...]

    @property
    def images(self) -> int:
        return self.winners[0].images

    @property
    def strata(self) -> NDArray[np.integer]:
        return self.winners[0].strata

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        sides = (self.winners, self.others)
        first, second = (np.max([o.resampled_aps(weights) for o in side], axis=0) for side in sides)
        return np.asarray((first > second).sum(axis=0), np.float64)


@dataclass(frozen=True)
class Times:
    """`factor` times an outcome."""

    factor: float
    outcome: Outcome | Best

    @property
    def images(self) -> int:
        return self.outcome.images

    @property
    def strata(self) -> NDArray[np.integer]:
        return self.outcome.strata

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        return self.factor * self.outcome.resampled(weights)


def paired_interval(
    better: Sequence[Resampled],
    worse: Sequence[Resampled],
    *,
    higher_is_better: bool,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of how much better `better` is than `worse`, by a paired bootstrap.

    The difference is mean over seeds of `better` - mean over seeds of `worse`, or the reverse where lower is
    better.  Every sample draws test images with replacement, each stratum (`Outcome.strata`) by itself; there is
    one test set, so the same images are drawn for both sides and for all seeds.  Where there are several seeds,
    they are drawn with replacement too.

    Args:
        better: one outcome per seed; all of one test set, images in the same order.
        worse: likewise; entry k has the same seed as entry k of `better`.
        higher_is_better: False for errors and seconds.
        samples: how often to draw.
        seed: of the random numbers.

    Returns:
        The lower and the upper end, in the unit of the outcomes; NaN where a sample has no value (an mAP without
        positives).

    Raises:
        ValueError: no outcome, or outcomes that differ in number, kind, images or the images' classes.
    """
    outcomes = [*better, *worse]
    if not better or len(better) != len(worse):
        raise ValueError(f"{len(better)} and {len(worse)} outcomes: one of each seed is needed on both sides")
    if len({type(outcome) for outcome in outcomes} - {Best, Wins, Times}) > 1:
        raise ValueError("outcomes of different kinds cannot be compared")
    if len({outcome.images for outcome in outcomes}) > 1:
        raise ValueError(f"outcomes of {sorted({outcome.images for outcome in outcomes})} images")
    strata = outcomes[0].strata
    if not all(np.array_equal(outcome.strata, strata) for outcome in outcomes):
        raise ValueError("outcomes of images of different classes")

    rng = np.random.default_rng(seed)
    sign = 1 if higher_is_better else -1
    n_seeds, rows = len(better), max(1, _CHUNK // len(strata))
    differences = []
    for start in range(0, samples, rows):
        count = min(rows, samples - start)
        weights = _draw(rng, strata, count)
        values = np.array([outcome.resampled(weights) for outcome in outcomes])  # (2 * seeds, count)
        difference = sign * (values[:n_seeds] - values[n_seeds:])
        drawn = rng.integers(n_seeds, size=(n_seeds, count))
        differences.append(np.take_along_axis(difference, drawn, axis=0).mean(axis=0))
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5])
    return float(low), float(high)


def interval(
    values: Callable[[NDArray[np.integer]], NDArray[np.float64]],
    strata: NDArray[np.integer],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% percentile intervals of numbers measured on test images, by the bootstrap over these.

    Args:
        values: of weights (B, n) as of `Outcome.resampled`, the numbers (..., B): `resampled` itself, or
            `DetectionOutcome.resampled_aps` for the AP of each class.
        strata: (n,) as of `Outcome.strata`.
        samples: how often to draw.
        seed: of the random numbers.

    Returns:
        Lower and upper ends (...,).  Samples without a value (an AP without positives) are left out; NaN where none
        has one.
    """
    rng, rows = np.random.default_rng(seed), max(1, _CHUNK // len(strata))
    counts = [min(rows, samples - start) for start in range(0, samples, rows)]
    drawn = np.concatenate([values(_draw(rng, strata, count)) for count in counts], axis=-1)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # all are NaN
        low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=-1)
    return low, high


def _draw(rng: np.random.Generator, strata: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count, n): how often each image is drawn when each stratum is drawn as often as it has images."""
    n = len(strata)
    drawn = []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn.append(members[rng.integers(len(members), size=(count, len(members)))])
    cells = np.hstack(drawn) + n * np.arange(count)[:, None]
    return np.bincount(cells.ravel(), minlength=count * n).reshape(count, n)
