"""Stage: average precision of detections, and classification error."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli.data.imagenet import ImageFolder, load_image_folder
from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.classification import ClassificationError, classification_error
from sppnet_cli.evaluation.voc_ap import average_precisions, mean_ap
from sppnet_cli.network.classifiers import load_classifier
from sppnet_cli.network.weights import load_network
from sppnet_cli.stages.detect import COLUMNS, DETECTIONS_FILE
from sppnet_cli.stages.pretrain import CLASSES_FILE


@dataclass(frozen=True)
class DetectionScore:
    """VOC 2007 11-point APs, fractions; NaN for a class without positives."""

    mean_ap: float
    ap: dict[str, float]
    images: int

    def as_dict(self) -> dict[str, Any]:
        """`mAP`, `AP` by class and `n`; None where there is nothing to measure."""
        plain = {name: None if np.isnan(ap) else ap for name, ap in self.ap.items()}
        return {"mAP": None if np.isnan(self.mean_ap) else self.mean_ap, "AP": plain, "n": self.images}


def evaluate_detections(detections: Path, data: Path, split: str, limit: int | None = None) -> DetectionScore:
    """Score a `detections.csv` (or the run directory that holds it) on a VOC split."""
    dataset = load_voc(data, split, limit)
    path = detections / DETECTIONS_FILE if detections.is_dir() else detections
    try:
        frame = pd.read_csv(path, dtype={"image": str, "class": str})
        if tuple(frame.columns) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not detections ({error}); make them with `sppnet detect`") from None
    strangers = sorted(set(frame["image"]) - set(dataset.ids))
    if strangers:
        raise DataError(
            f"{path}: detections in {strangers[0]}, which is not in {dataset.split} of {dataset.root}"
        )
    unknown = sorted(set(frame["class"]) - set(dataset.class_names))
    if unknown:
        raise DataError(f"{path}: class {unknown[0]!r} is not one of {', '.join(dataset.class_names)}")
    return score_frame(frame, dataset)


def score_frame(frame: pd.DataFrame, dataset: VocDetection) -> DetectionScore:
    """Score detections given as a frame of `COLUMNS`."""
    place = {image_id: index for index, image_id in enumerate(dataset.ids)}
    by_class: dict[str, list[np.ndarray]] = {
        name: [np.empty((0, 5))] * len(dataset) for name in dataset.class_names
    }
    for (name, image_id), rows in frame.groupby(["class", "image"], sort=False):
        by_class[str(name)][place[str(image_id)]] = rows[["x1", "y1", "x2", "y2", "score"]].to_numpy(float)
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    ap = average_precisions(by_class, annotations, dataset.class_names)
    return DetectionScore(mean_ap(ap.values()), ap, len(dataset))


def evaluate_network(
    network: Path, data: Path, views: str, *, device: str = "cpu", limit: int | None = None, workers: int = 0
) -> ClassificationError:
    """Error of a network on `data/val` (or on `data`, where it holds the class folders itself).

    Raises `DataError` where the classes are not those that the network was trained on.
    """
    images = _validation(data, limit)
    model = load_network(network)
    if (network / CLASSES_FILE).is_file():
        known = (network / CLASSES_FILE).read_text().splitlines()
        for k, (own, given) in enumerate(zip_longest(known, images.class_names), 1):
            if own != given:
                raise DataError(
                    f"{data}: class {k} is {given or 'missing'}, but {network} was trained with "
                    f"{own or 'no more classes'}; give --data of the same classes"
                )
    _require_count(str(network), model.spec.classes, data, images)
    return classification_error(model, images, views, device, workers)


def evaluate_classifier(
    arch: str,
    weights: str,
    data: Path,
    views: str,
    *,
    device: str = "cpu",
    limit: int | None = None,
    workers: int = 0,
) -> ClassificationError:
    """Error of a classifier of torchvision, `weights` a file or `DEFAULT`, on images as in `evaluate_network`."""
    images = _validation(data, limit)
    model = load_classifier(arch, weights)
    _require_count(f"{arch} {weights}", model.classes, data, images)
    return classification_error(model, images, views, device, workers)


def validation_folder(data: Path) -> Path:
    """`data/val`, or `data` where it holds the class folders itself."""
    return data / "val" if (data / "val").is_dir() else data


def _validation(data: Path, limit: int | None) -> ImageFolder:
    return load_image_folder(validation_folder(data), limit)


def _require_count(name: str, classes: int, data: Path, images: ImageFolder) -> None:
    if classes != len(images.class_names):
        raise UsageError(f"{name}: knows {classes} classes, but {data} holds {len(images.class_names)}")
