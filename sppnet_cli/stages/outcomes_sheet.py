"""A picture of how a detector does on a split: what it found, found barely, missed and imagined."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.console import warn
from sppnet_cli.data.boxes import iou
from sppnet_cli.data.images import write_image
from sppnet_cli.data.voc import Annotation, VocDetection
from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.draw import contact_sheet, draw_detections
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.reliability import mark_rows
from sppnet_cli.stages.score_detections import read_detections

SURE, POSITIVE = 0.5, 0.0  # confidence and, without one, score from which on an object counts as found
_COUNT = 6  # pictures of each kind
_WIDTH, _HEIGHT = 1500, 200  # pixels: of the sheet, and of an image on it


class Outcome(NamedTuple):
    """A detection in an image; one with a score of minus infinity is an object that was missed."""

    image: str
    detection: Detection


def outcomes(frame: pd.DataFrame, dataset: VocDetection) -> dict[str, Iterable[Outcome]]:
    """The best, worst, missed and false ones, most telling first.

    best and worst: right detections, surest first and least sure first; worst ones are sure enough to count as found.
    missed: objects, difficult ones apart, without a right detection that counts as found, largest first.  false: wrong
    detections, surest first.  What counts as found has a confidence of `SURE`, or, of detectors without, a score above
    `POSITIVE`.
    """
    by = "confidence" if "confidence" in frame else "score"
    frame = frame.assign(mark=mark_rows(frame, dataset)).sort_values(by, ascending=False, kind="stable")
    found = frame["confidence"] >= SURE if by == "confidence" else frame["score"] > POSITIVE
    right = list(_outcomes(frame[(frame["mark"] > 0) & found], dataset))
    return {
        "best": right,
        "worst": right[::-1],
        "missed": sorted(_missed(right, dataset), key=lambda each: -_area(each.detection.box)),
        "false": _outcomes(frame[frame["mark"] == 0], dataset),
    }


def draw_outcomes(detections: Path, dataset: VocDetection, path: Path) -> None:
    """Draw a sheet of `outcomes`, a row of pictures of each kind, every image at most once in a row.

    An image that cannot be read is warned of and left out.  Raises as `read_detections` and `write_image`.
    """
    frame, _ = read_detections(detections, dataset)
    strips = [
        contact_sheet(*strip, _WIDTH)
        for kind, found in outcomes(frame, dataset).items()
        if (strip := _strip(kind, found, dataset))[0]
    ]
    if strips:
        widest = max(strip.shape[1] for strip in strips)
        rows = [np.pad(s, ((0, 0), (0, widest - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
        write_image(path, np.concatenate(rows))


def draw_outcome(
    outcome: Outcome, image: NDArray[np.uint8], class_names: Sequence[str], zoom: float
) -> NDArray[np.uint8]:
    """Its RGB image `(H, W, 3)`, `zoom` times as large, with the detection, or with the object that was missed."""
    missed = outcome.detection.score == -np.inf
    return draw_detections(
        image,
        [] if missed else [outcome.detection],
        class_names,
        truth=_annotation(outcome.detection, image) if missed else None,
        zoom=zoom,
    )


def _strip(
    kind: str, found: Iterable[Outcome], dataset: VocDetection
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    pictures: dict[str, NDArray[np.uint8]] = {}
    width = 0.0
    for each in found:
        if each.image in pictures:
            continue
        try:
            image = dataset.image(each.image)
        except DataError as error:
            warn(f"skipped: {error}")
            continue
        zoom = _HEIGHT / image.shape[0]
        width += zoom * image.shape[1] + 14
        if width > _WIDTH or len(pictures) == _COUNT:
            break
        pictures[each.image] = draw_outcome(each, image, dataset.class_names, zoom)
    return list(pictures.values()), [f"{kind}: {image}" for image in pictures]


def _missed(right: Sequence[Outcome], dataset: VocDetection) -> Iterable[Outcome]:
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for each in right:
        found.setdefault((each.image, each.detection.label), []).append(each.detection.box)
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        for label in np.unique(truth.labels).tolist():
            rows = np.flatnonzero(truth.labels == label)
            boxes = found.get((image_id, label), [])
            taken = iou(np.array(boxes), truth.boxes[rows]).argmax(axis=1) if boxes else []
            for row in np.delete(rows, taken):
                if not truth.difficult[row]:
                    x1, y1, x2, y2 = truth.boxes[row].tolist()
                    yield Outcome(image_id, Detection(label, -np.inf, (x1, y1, x2, y2)))


def _annotation(missed: Detection, image: NDArray[np.uint8]) -> Annotation:
    boxes = np.array([missed.box], np.float32)
    return Annotation(boxes, np.array([missed.label]), np.array([False]), image.shape[:2])


def _outcomes(rows: pd.DataFrame, dataset: VocDetection) -> Iterator[Outcome]:
    """One by one: of hundreds of thousands of false detections few are looked at."""
    for k in range(len(rows)):
        row = rows.iloc[k]
        box = (row["x1"], row["y1"], row["x2"], row["y2"])
        label = dataset.class_names.index(row["class"])
        yield Outcome(row["image"], Detection(label, row["score"], box, row.get("confidence")))


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
