"""Average precision and precision against recall, class by class."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from sppnet_cli.evaluation.curves import class_curves
from sppnet_cli.evaluation.voc_ap import PrecisionRecall, average_precision_11, mean_ap
from sppnet_cli.records import read_csv
from sppnet_cli.report.detections import Detections
from sppnet_cli.report.plots import SERIES, as_svg, panel
from sppnet_cli.report.section import Section
from sppnet_cli.stages.report import AP_FILE, CURVES_FILE

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # recall and precision, fractions
Curves = Mapping[str, Mapping[str, Curve]]  # by detector and class
Aps = Mapping[str, Mapping[str, float | None]]  # the same, fractions; None: no objects

_MOST_POINTS = 120  # of a curve
_MOST_LINES = len(SERIES)
_VARIABLES = ("--accent", "--second", "--third", "--fourth")


def classes(aps: Aps, curves: Curves, about: str = "") -> Section:
    """A table of all APs, and a panel of curves for each class; `about` says of what they are."""
    names = list(next(iter(aps.values())))
    rows = [("mAP", [mean(of) for of in aps.values()])]
    rows += [(name, [of.get(name) for of in aps.values()]) for name in names]
    shown = dict(list(curves.items())[:_MOST_LINES])
    panels = [
        _panel(number, name, {detector: of[name] for detector, of in shown.items() if name in of})
        for number, name in enumerate(names, 1)
    ]
    return Section(
        "classes",
        "Classes",
        "Which classes are easy and which are hard: the area under a curve grows with the average precision (AP).",
        "classes.html",
        {
            "about": about,
            "sides": [(side, len(list(of))) for side, of in itertools.groupby(aps, _side)],
            "columns": [(name, name.removeprefix(_side(name)).strip(", ") or name) for name in aps],
            "rows": rows,
            "panels": list(zip(names, panels, strict=True)) if shown else [],
            "legend": list(zip(shown, _VARIABLES, strict=False)),
        },
    )


def of_detections(shown: Sequence[Detections]) -> tuple[Aps, Curves]:
    """APs and curves of detections."""
    found = {each.name: class_curves(each.frame(), each.dataset) for each in shown}
    aps = {
        name: {cls: _number(average_precision_11(c)) for cls, c in of.items()} for name, of in found.items()
    }
    return aps, {name: {cls: _curve(c) for cls, c in of.items()} for name, of in found.items()}


def of_report(folder: Path, name: str) -> tuple[Aps, Curves]:
    """APs and curves from the tables that `stages.report.write_report` wrote.  Raises `DataError`."""
    remedy = f"remove {folder} and score the detections again"
    kinds: dict[str, type[str | float | int]] = {"class": str, "ap": str, "positives": int, "detections": int}
    found = read_csv(folder / AP_FILE, kinds, remedy=remedy)
    aps = {cls: float(ap) if ap else None for cls, ap in zip(found["class"], found["ap"], strict=True)}
    points = pd.read_csv(folder / CURVES_FILE, keep_default_na=False, dtype={"class": str})
    curves = {
        str(cls): _thinned(of["recall"].to_numpy(float), of["precision"].to_numpy(float))
        for cls, of in points.groupby("class", sort=False)
    }
    return {name: aps}, {name: curves}


def of_record(record: Mapping[str, Any]) -> Aps:
    """APs of all detectors of Table 6, from its record."""
    sides = {"spp_1scale": "SPP-net, 1 scale", "spp_5scale": "SPP-net, 5 scales", "rcnn": "R-CNN"}
    return {
        f"{sides[column]}, {row}": aps
        for column, rows in record.get("AP", {}).items()
        for row, aps in rows.items()
    }


def _side(name: str) -> str:
    """What a detector's name begins with, all but the row of Table 6."""
    return name.rpartition(", ")[0]


def _curve(curve: PrecisionRecall) -> Curve:
    return _thinned(curve.recall, curve.precision) if curve.n_positive else (np.empty(0), np.empty(0))


def _thinned(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> Curve:
    """The best precision of each recall, at most `_MOST_POINTS` evenly spread ones."""
    _, first = np.unique(recall, return_index=True)
    kept = (
        first[np.unique(np.linspace(0, len(first) - 1, _MOST_POINTS).round().astype(int))]
        if len(first)
        else first
    )
    return recall[kept], precision[kept]


def _panel(number: int, name: str, curves: Mapping[str, Curve]) -> Markup:
    figure, axes = panel(1.8, 1.4, left=0.24, bottom=0.22)
    for (recall, precision), colour in zip(curves.values(), SERIES, strict=False):
        axes.plot(
            recall,
            precision,
            color=colour,
            linewidth=1.3,
            marker="o" if len(recall) == 1 else "",
            markersize=3,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set(xticklabels=("0", ".5", "1"), yticklabels=("0", ".5", "1"))
    return as_svg(figure, f"curve-{number}", f"Precision against recall of {name}, by {' and '.join(curves)}")


def mean(aps: Mapping[str, float | None]) -> float | None:
    """The mAP of a detector's APs; None where no class has objects."""
    return _number(mean_ap([math.nan if ap is None else ap for ap in aps.values()]))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
