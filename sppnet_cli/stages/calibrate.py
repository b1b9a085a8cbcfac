"""Stage: a calibration for a detector, from images that its folds did not train on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import warn
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.evaluation.reliability import mark_rows
from sppnet_cli.learning.calibration import CalibrationRules, fit_calibration
from sppnet_cli.stages.folds import fold_name
from sppnet_cli.stages.score_detections import read_detections


@dataclass(frozen=True)
class CalibrateConfig:
    """How scores become confidences."""

    rules: CalibrationRules


def calibrate(config: CalibrateConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """The detector once more, with a calibration.

    The inputs `fold 1`, `fold 2`, ... hold detections in the images of these folds, by detectors that were trained as
    this one, on the images outside of the fold.  What they say of a score holds for the detector itself a little
    cautiously, since it has seen more images.  Where none of them is right, or none wrong, it gets
    no calibration.
    """
    detector = Detector.load(inputs["detector"])
    label_of = {name: label for label, name in enumerate(detector.class_names)}
    scores, labels, right = [], [], []
    for fold in range(1, config.rules.folds + 1):
        dataset = load_voc(inputs["data"], fold_name(fold), lists=inputs["lists"])
        frame, _ = read_detections(inputs[f"fold {fold}"], dataset)
        marks = mark_rows(frame, dataset)
        counted = frame[marks >= 0]
        scores.append(counted["score"].to_numpy())
        labels.append(counted["class"].map(label_of).to_numpy(np.int64))
        right.append(marks[marks >= 0] > 0)
    hits = np.concatenate(right)
    if hits.any() and not hits.all():
        detector.calibration = fit_calibration(
            np.concatenate(scores), np.concatenate(labels), hits, len(label_of), config.rules
        )
    else:
        kind = "wrong" if hits.any() else "right"
        warn(f"{inputs['detector']}: no {kind} detection in its folds, so no confidences; label more images")
    detector.save(folder)


def calibrate_cost(detector: dict[str, int]) -> Cost:
    """Of matching some thousand detections; the folds' detectors are stages of their own."""
    return Cost(3.0, detector)
