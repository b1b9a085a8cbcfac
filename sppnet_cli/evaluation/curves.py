"""Precision against recall, class by class: as numbers and as a picture."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path
from sppnet_cli.data.voc import VocDetection
from sppnet_cli.evaluation.voc_ap import (
    RECALL_LEVELS,
    PrecisionRecall,
    average_precision_11,
    interpolated_precision,
    match_class,
    precision_recall,
)

_LEVELS_LABEL = "best precision at this recall or beyond; AP is the mean of the 11"
_PANEL = (2.1, 1.9)  # inches
_COLUMNS = 5


def rows_by_class(frame: pd.DataFrame, dataset: VocDetection) -> dict[str, NDArray[np.int64]]:
    """Numbers of the rows of each class, in their order; `frame` has a column class."""
    codes = pd.Categorical(frame["class"], categories=list(dataset.class_names)).codes
    by_class = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_class], np.arange(len(dataset.class_names) + 1))
    return {name: by_class[a:b] for name, a, b in zip(dataset.class_names, starts, starts[1:], strict=False)}


def ranked_detections(frame: pd.DataFrame, dataset: VocDetection) -> dict[str, list[NDArray[np.float64]]]:
    """Detections as `average_precisions` takes them, with their negative rank in the class in place of the score.

    Equal scores thus keep the order of the rows, as `VOCevaldet` keeps that of the lines of a file.

    Args:
        frame: columns image, class, score, x1, y1, x2, y2 as in `detections.csv`.
        dataset: holds all images and classes of the frame.

    Returns:
        For every class, per image (N_i, 5) x1, y1, x2, y2, -rank.
    """
    place = {image_id: index for index, image_id in enumerate(dataset.ids)}
    image = frame["image"].map(place).to_numpy(np.int64)
    score = frame["score"].to_numpy()
    corners = frame[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    result = {}
    for name, rows in rows_by_class(frame, dataset).items():
        best_first = rows[np.argsort(-score[rows], kind="stable")]
        boxes = np.column_stack([corners[best_first], -np.arange(len(rows))])
        by_image = np.argsort(image[best_first], kind="stable")
        ends = np.searchsorted(image[best_first][by_image], np.arange(1, len(dataset)))
        result[name] = np.split(boxes[by_image], ends)
    return result


def class_curves(frame: pd.DataFrame, dataset: VocDetection) -> dict[str, PrecisionRecall]:
    """The curve of every class; `frame` and `dataset` as for `ranked_detections`."""
    detections = ranked_detections(frame, dataset)
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    curves = {}
    all_scores = frame["score"].to_numpy(np.float64)
    for label, (name, rows) in enumerate(rows_by_class(frame, dataset).items()):
        scores = np.sort(all_scores[rows])[::-1]
        curve = precision_recall(match_class(detections[name], annotations, label))
        curves[name] = replace(curve, scores=scores)
    return curves


def curve_table(curves: Mapping[str, PrecisionRecall]) -> pd.DataFrame:
    """A row per detection, by descending score within its class: class, score, recall, precision (fractions)."""
    parts = [
        pd.DataFrame({"class": name, "score": c.scores, "recall": c.recall, "precision": c.precision})
        for name, c in curves.items()
    ]
    return pd.concat(parts, ignore_index=True)


def draw_curves(curves: Mapping[str, PrecisionRecall], title: str, path: Path) -> None:
    """Draw a PNG with a panel per class: the curve, the 11 precisions whose mean is the AP, and the AP in percent.

    Raises `SppnetError` when the file cannot be written.
    """
    from matplotlib.figure import Figure

    n_columns = min(len(curves), max(_COLUMNS, math.ceil(math.sqrt(len(curves)))))
    n_rows = math.ceil(len(curves) / n_columns)
    width, height = max(_PANEL[0] * n_columns, 5.0) + 0.8, _PANEL[1] * n_rows + 1.1
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for k, (axes, (name, curve)) in enumerate(zip(grid, curves.items(), strict=False)):
        ap = average_precision_11(curve)
        heading = f"{name}  {'no positives' if math.isnan(ap) else f'{100 * ap:.1f}%'}"
        axes.set_title(heading, fontsize=9, pad=5, parse_math=False)
        axes.fill_between(curve.recall, curve.precision, color="C0", alpha=0.12, linewidth=0)
        axes.plot(curve.recall, curve.precision, "C0", linewidth=1.2, label="precision")
        best = (
            interpolated_precision(curve.precision, curve.recall) if curve.n_positive else np.full(11, np.nan)
        )
        axes.plot(RECALL_LEVELS, best, "C1o", markersize=3.5, clip_on=False, label=_LEVELS_LABEL)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set(xticklabels=("0", ".5", "1"), yticklabels=("0", ".5", "1"))
        axes.tick_params(labelsize=8, length=2)
        axes.tick_params(labelbottom=k >= len(curves) - n_columns, labelleft=k % n_columns == 0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    # Shared axes or a computed layout would take a minute for 200 panels.  Numbers are inches.
    figure.subplots_adjust(
        0.65 / width, 0.75 / height, 1 - 0.2 / width, 1 - 0.75 / height, wspace=0.14, hspace=0.36
    )
    figure.suptitle(title, y=1 - 0.25 / height, fontsize=12, parse_math=False, va="center")
    figure.supxlabel("recall", y=0.4 / height, fontsize=10, va="center")
    figure.supylabel("precision", x=0.25 / width, fontsize=10, ha="center")
    figure.legend(
        handles=grid[0].lines,
        loc="center",
        bbox_to_anchor=(0.5, 0.17 / height),
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
