"""Average precision of detections, ours or any detector's."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli.chain import Stage, path_of
from sppnet_cli.console import warn
from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.coco_results import coco_ids, read_coco_results
from sppnet_cli.evaluation.comp4 import read_comp4
from sppnet_cli.evaluation.curves import ranked_detections
from sppnet_cli.evaluation.outcomes import DetectionOutcome, detection_outcome
from sppnet_cli.evaluation.reliability import Reliability, reliability_of
from sppnet_cli.evaluation.voc_ap import average_precisions, mean_ap
from sppnet_cli.records import read_csv
from sppnet_cli.stages.detection_rows import CALIBRATED_COLUMNS, DETECTIONS_FILE
from sppnet_cli.stages.report import write_report


@dataclass(frozen=True)
class DetectionScore:
    """VOC 2007 11-point APs, fractions; NaN for a class without positives or without given detections."""

    mean_ap: float
    ap: dict[str, float]
    images: int
    outcome: DetectionOutcome
    reliability: Reliability | None = None  # None without confidences

    def as_dict(self) -> dict[str, Any]:
        """`mAP`, `AP` by class and `n`; None for NaN."""
        plain = {name: None if np.isnan(ap) else ap for name, ap in self.ap.items()}
        return {"mAP": None if np.isnan(self.mean_ap) else self.mean_ap, "AP": plain, "n": self.images}


def evaluate_detections(
    detections: Path, data: Path, split: str, limit: int | None = None, report: Path | None = None
) -> DetectionScore:
    """Score detections on a VOC split, whose images need not be there.

    `detections` is a `detections.csv`, the run directory that holds it, or of any detector a folder of the devkit's
    result files (`read_comp4`) or a `.json` of COCO results (`read_coco_results`).  A missing result file gives a
    warning, and NaN for the AP of its class and the mean.  With a `report` folder, a report is written there too
    (`write_report`).
    """
    dataset = load_voc(data, split, limit)
    frame, missing = read_detections(detections, dataset)
    if missing:
        names = ", ".join(name for name in dataset.class_names if name in missing)
        warn(f"{detections}: no result file of {names}: no AP of these and no mAP")
    _warn_of_uncovered(detections, frame, dataset)
    if report is not None:
        write_report(frame, dataset, report, missing)
    return score_frame(frame, dataset, missing)


def _warn_of_uncovered(detections: Path, frame: pd.DataFrame, dataset: VocDetection) -> None:
    """Warn where the detections are of fewer images than the list: all objects in the others count as missed."""
    covered = set(frame["image"].unique())
    if not covered or len(covered) == len(dataset):
        return
    last = max(index for index, image_id in enumerate(dataset.ids) if image_id in covered) + 1
    remedy = (
        f"--limit {last} scores the first {last} alone"
        if last < len(dataset)
        else f"for these alone write their names to ImageSets/Main/NAME.txt of {dataset.root} and give --split NAME"
    )
    warn(
        f"{detections}: holds detections in {len(covered)} of the {len(dataset)} images of {dataset.split}; what is in "
        f"the others counts as missed: {remedy}"
    )


def score_run(made: Stage) -> DetectionScore:
    """Score a run of `detect` on the images that it was made on."""
    config = made.config
    return evaluate_detections(made.folder, path_of(made.inputs["data"]), config.split, config.limit)


def read_detections(path: Path, dataset: VocDetection) -> tuple[pd.DataFrame, frozenset[str]]:
    """A frame of `COLUMNS` or `CALIBRATED_COLUMNS`, all in the data set's images and of its classes.

    And the classes without a result file.  A JSON file holds COCO results.
    """
    missing: frozenset[str] = frozenset()
    if path.is_dir() and not (path / DETECTIONS_FILE).is_file():
        frame, missing = read_comp4(path, dataset.split, dataset.class_names)
    elif path.suffix.lower() == ".json":
        frame = read_coco_results(path, coco_ids(dataset))
    else:
        path = path / DETECTIONS_FILE if path.is_dir() else path
        types = {"image": str, "class": str} | dict.fromkeys(CALIBRATED_COLUMNS[2:], float)
        frame = read_csv(
            path,
            types,
            remedy="these are no detections of `sppnet detect`",
            ids=("image",),
            optional=("confidence",),
        )
        if (frame["x1"].gt(frame["x2"]) | frame["y1"].gt(frame["y2"])).any():
            raise DataError(f"{path}: holds an inverted box, x1 > x2 or y1 > y2; correct it")
        if "confidence" in frame and not frame["confidence"].between(0, 1).all():
            raise DataError(f"{path}: holds a confidence that is not between 0 and 1; correct it")
    strangers = frame[~frame["image"].isin(dataset.ids)]
    if len(strangers):
        first = strangers.iloc[0]
        raise DataError(
            f"{path}: detections in {first['image']} ({first['class']}), which is not in {dataset.split} of "
            f"{dataset.root}; name the --data, --split and --limit that they were made with"
        )
    unknown = sorted(set(frame["class"].unique()) - set(dataset.class_names))
    if unknown:
        raise DataError(f"{path}: class {unknown[0]!r} is not one of {', '.join(dataset.class_names)}")
    return frame, missing


def score_frame(
    frame: pd.DataFrame, dataset: VocDetection, missing: frozenset[str] = frozenset()
) -> DetectionScore:
    """Score detections given as a frame of `COLUMNS` or more; classes in `missing` get NaN, and so does the mean."""
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    detections = ranked_detections(frame, dataset)
    ap = average_precisions(detections, annotations, dataset.class_names)
    ap |= dict.fromkeys(missing, float("nan"))
    outcome = detection_outcome([detections[name] for name in dataset.class_names], annotations)
    found = reliability_of(frame, dataset) if "confidence" in frame else None
    mean = math.nan if missing else mean_ap(ap.values())
    return DetectionScore(mean, ap, len(dataset), outcome, found)
