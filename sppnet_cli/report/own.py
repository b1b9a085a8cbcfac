"""What `sppnet train` and `sppnet evaluate --report` wrote beside detections: calibration, errors, contact sheet."""

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from sppnet_cli.data.images import read_image
from sppnet_cli.evaluation.curves import ranked_detections
from sppnet_cli.evaluation.diagnosis import KINDS, diagnose
from sppnet_cli.evaluation.reliability import reliability_of, reliability_table
from sppnet_cli.report.detections import Detections
from sppnet_cli.report.pictures import picture
from sppnet_cli.report.plots import MUTED, SERIES, as_svg, panel
from sppnet_cli.report.section import Section
from sppnet_cli.stages.report import ERRORS_FILE, OUTCOMES_PICTURE, RELIABILITY_FILE

_SHEET = 1500, 4000  # pixels, at most


def contact_sheet(folder: Path) -> Section | None:
    """The picture of what a detector found and missed; None where `folder` has none."""
    path = folder / OUTCOMES_PICTURE
    if not path.is_file():
        return None
    sheet = picture(read_image(path), "Pictures of what the detector found, missed and imagined", "", _SHEET)
    return Section(
        "sheet",
        "Contact sheet",
        "A row each of its best, worst, missed and false detections, in images that it did not learn from.",
        "sheet.html",
        {"picture": sheet},
    )


def calibration(bins: pd.DataFrame) -> Section:
    """Confidence against precision; `bins` as `reliability_table`."""
    gap = (bins["confidence"] - bins["precision"]).abs().mean()
    return Section(
        "calibration",
        "Calibration",
        "Of the detections with a confidence of 70%, 70% should be right: the points should lie on the diagonal.",
        "calibration.html",
        {"svg": _diagonal(bins), "gap": f"{gap:.3f}", "rows": bins.to_dict("records")},
    )


def errors(found: pd.DataFrame) -> Section:
    """Kinds of errors; `found` as `diagnose` gives it."""
    return Section(
        "errors",
        "Kinds of errors",
        "What the best detections of each class are, as many as it has objects.",
        "errors.html",
        {"kinds": KINDS, "rows": found.to_dict("records")},
    )


def of_report(folder: Path) -> list[Section]:
    """Sections from the tables of a report folder, as far as it has them."""
    found: list[Section] = []
    if (folder / RELIABILITY_FILE).is_file():
        found.append(calibration(pd.read_csv(folder / RELIABILITY_FILE)))
    if (folder / ERRORS_FILE).is_file():
        found.append(errors(pd.read_csv(folder / ERRORS_FILE, dtype={"class": str}, keep_default_na=False)))
    return found


def of_detections(detections: Detections) -> list[Section]:
    """The same sections from detections."""
    found: list[Section] = []
    frame, dataset = detections.frame(), detections.dataset
    if "confidence" in frame:
        found.append(calibration(reliability_table(reliability_of(frame, dataset))))
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    found.append(errors(diagnose(ranked_detections(frame, dataset), annotations, dataset.class_names)))
    return found


def _diagonal(bins: pd.DataFrame) -> Markup:
    figure, axes = panel(3.2, 3.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    axes.plot(bins["confidence"], bins["precision"], color=SERIES[0], marker="o", markersize=4, linewidth=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.set_xlabel("confidence")
    axes.set_ylabel("precision")
    return as_svg(figure, "reliability", "Precision by confidence, with the diagonal")
