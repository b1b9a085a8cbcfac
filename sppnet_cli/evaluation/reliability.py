"""Whether confidences are the precision that they promise: the reliability curve and two errors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.voc import VocDetection
from sppnet_cli.evaluation.curves import ranked_detections, rows_by_class
from sppnet_cli.evaluation.voc_ap import match_class

LEAST = (
    0.1  # confidence from which on detections are looked at: below are thousands, nearly all of them wrong
)
BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Of n detections by ascending confidence, in bins of equal count; fractions.

    confidence, precision: (B,) means of each bin.  count: (B,).  error: mean of |confidence - precision| over the bins.
    chance: what it would be, on average, if each detection were right with the probability that its confidence says.
    brier: mean of (confidence - right)^2, base_brier: of a confidence that is the precision of all n, which knows
    nothing of the single detection.  All are NaN, and B is 0, where n is 0.
    """

    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float
    chance: float
    brier: float
    base_brier: float


def reliability(
    confidence: NDArray[np.floating],
    right: NDArray[np.bool_],
    least: float = LEAST,
    bins: int = BINS,
) -> Reliability:
    """How confidences (N,) agree with whether the detections are right (N,), of those with `least` or more.

    Where there are fewer detections than bins, each is a bin.  Equal confidences keep their order.
    """
    kept = confidence >= least
    order = np.argsort(confidence[kept], kind="stable")
    sure = np.asarray(confidence, np.float64)[kept][order]
    hits = np.asarray(right, np.float64)[kept][order]
    if not len(sure):
        none, nan = np.empty(0), float("nan")
        return Reliability(none, none, np.empty(0, np.int64), nan, nan, nan, nan)
    parts = np.array_split(np.arange(len(sure)), min(bins, len(sure)))
    means = np.array([(sure[part].mean(), hits[part].mean()) for part in parts])
    # The precision of a bin deviates by this; of a normal deviate the mean size is sqrt(2 / pi) of the deviation.
    deviations = [np.sqrt((sure[part] * (1 - sure[part])).sum()) / len(part) for part in parts]
    rate = float(hits.mean())
    return Reliability(
        means[:, 0],
        means[:, 1],
        np.array([len(part) for part in parts]),
        float(np.abs(means[:, 0] - means[:, 1]).mean()),
        float(np.sqrt(2 / np.pi) * np.mean(deviations)),
        float(np.square(sure - hits).mean()),
        rate * (1 - rate),
    )


def mark_rows(frame: pd.DataFrame, dataset: VocDetection) -> NDArray[np.int8]:
    """Of each row of `frame`, as AP counts it: 1 right, 0 wrong, -1 matched to a difficult object.

    frame: columns image, class, score, x1, y1, x2, y2 as in `detections.csv`, of images and classes of `dataset`.
    """
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    marks = np.zeros(len(frame), np.int8)
    ranked, scores = ranked_detections(frame, dataset), frame["score"].to_numpy()
    for label, (name, rows) in enumerate(rows_by_class(frame, dataset).items()):
        best_first = rows[np.argsort(-scores[rows], kind="stable")]
        marks[best_first] = match_class(ranked[name], annotations, label).marks
    return marks


def reliability_of(frame: pd.DataFrame, dataset: VocDetection) -> Reliability:
    """The reliability of a frame that has confidences; detections matched to difficult objects are left out."""
    marks = mark_rows(frame, dataset)
    return reliability(frame["confidence"].to_numpy()[marks >= 0], marks[marks >= 0] > 0)


def reliability_table(found: Reliability) -> pd.DataFrame:
    """A row per bin: confidence, precision, detections."""
    return pd.DataFrame(
        {"confidence": found.confidence, "precision": found.precision, "detections": found.count}
    )


def draw_reliability(found: Reliability, title: str, path: Path) -> None:
    """Draw a PNG of the curve beside the diagonal.  Raises `SppnetError` when the file cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as promised")
    axes.plot(found.confidence, found.precision, "C0o-", markersize=4, linewidth=1.2, label="measured")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="precision", aspect="equal")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=9, frameon=False)
    axes.set_title(
        f"{title}\nmean gap {found.error:.3f}, by chance {found.chance:.3f}", fontsize=10, parse_math=False
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
