"""Tables and pictures of what is behind the mAP of detections."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.data.voc import VocDetection
from sppnet_cli.errors import UsageError
from sppnet_cli.evaluation.curves import class_curves, curve_table, draw_curves, ranked_detections
from sppnet_cli.evaluation.diagnosis import diagnose
from sppnet_cli.evaluation.reliability import draw_reliability, reliability_of, reliability_table
from sppnet_cli.evaluation.voc_ap import PrecisionRecall, average_precision_11, mean_ap
from sppnet_cli.files import visible

AP_FILE = "ap.csv"
CURVES_FILE = "precision_recall.csv"
CURVES_PICTURE = "precision_recall.png"
ERRORS_FILE = "errors.csv"
RELIABILITY_FILE = "reliability.csv"
RELIABILITY_PICTURE = "reliability.png"
OUTCOMES_PICTURE = "contact-sheet.jpg"  # of `sppnet train`


_OWN = (
    *(AP_FILE, CURVES_FILE, CURVES_PICTURE, ERRORS_FILE, RELIABILITY_FILE, RELIABILITY_PICTURE),
    OUTCOMES_PICTURE,
)


def require_report_folder(folder: Path) -> None:
    """Raise `UsageError` for a folder with anything but an earlier report (and hidden files)."""
    if folder.is_dir():
        others = [entry.name for entry in visible(folder) if entry.name not in _OWN]
        if others:
            raise UsageError(
                f"{folder}: holds {others[0]}, which is no report's; give --report a folder of its own"
            )
    elif folder.exists():
        raise UsageError(f"{folder}: is a file; give --report a folder")


def write_report(
    frame: pd.DataFrame, dataset: VocDetection, folder: Path, missing: frozenset[str] = frozenset()
) -> None:
    """Write a report into `folder`, which is made if it does not exist; numbers are fractions.

    - `ap.csv`: class, ap, positives, detections; an empty ap where nothing can be measured.
    - `precision_recall.csv`: class, score, recall, precision; a row per detection.
    - `precision_recall.png`: the same as a panel per class.
    - `errors.csv`: kinds of errors among the best detections of each class (`evaluation.diagnosis.diagnose`).
    - `reliability.csv`: confidence, precision, detections; a row per bin (`evaluation.reliability`), and
      `reliability.png`: the same as a curve; where the frame has confidences.

    Args:
        frame: detections as in `detections.csv`, in images and of classes of `dataset`.
        dataset: the split that they are measured on.
        folder: an earlier report in it is replaced.
        missing: classes without given detections; they get no AP and no curve.

    Raises:
        UsageError: `folder` holds something else.
        SppnetError: a file cannot be written.
        DataError: an annotation cannot be read.
    """
    require_report_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _OWN:
        (folder / name).unlink(missing_ok=True)
    curves = class_curves(frame, dataset)
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    errors = diagnose(ranked_detections(frame, dataset), annotations, dataset.class_names)
    given = {name: curve for name, curve in curves.items() if name not in missing}
    write_text(folder / AP_FILE, _csv(_ap_table(curves, missing)))
    write_text(folder / CURVES_FILE, _csv(curve_table(given)))
    write_text(folder / ERRORS_FILE, _csv(errors[~errors["class"].isin(missing)]))
    if "confidence" in frame:
        found = reliability_of(frame, dataset)
        write_text(folder / RELIABILITY_FILE, _csv(reliability_table(found)))
        draw_reliability(found, f"{dataset.split} of {dataset.root.name}", folder / RELIABILITY_PICTURE)
    draw_curves(
        given,
        f"{dataset.split} of {dataset.root.name}: {_mean_text(given, missing)}",
        folder / CURVES_PICTURE,
    )


def _ap_table(curves: Mapping[str, PrecisionRecall], missing: frozenset[str]) -> pd.DataFrame:
    rows = [
        (name, math.nan if name in missing else average_precision_11(c), c.n_positive, len(c.scores))
        for name, c in curves.items()
    ]
    return pd.DataFrame(rows, columns=["class", "ap", "positives", "detections"])


def _mean_text(curves: Mapping[str, PrecisionRecall], missing: frozenset[str]) -> str:
    mean = float("nan") if missing else mean_ap(map(average_precision_11, curves.values()))
    return "no mAP" if math.isnan(mean) else f"mAP {100 * mean:.1f}%"


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))
