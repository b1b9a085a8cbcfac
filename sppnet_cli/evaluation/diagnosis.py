"""Kinds of errors among the best detections of each class (Hoiem, Chodpathumwan and Dai, ECCV 2012, section 3)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sppnet_cli.data.boxes import iou
from sppnet_cli.data.voc import Annotation
from sppnet_cli.evaluation.voc_ap import match_class

KINDS = ("correct", "localisation", "similar", "other", "background")
WEAK_IOU = 0.1  # a detection that overlaps an object less has nothing to do with it

SIMILAR: dict[str, frozenset[str]] = {
    # The paper's groups of VOC's classes; a class may be in several.
    "vehicles": frozenset({"aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"}),
    "animals": frozenset({"bird", "cat", "cow", "dog", "horse", "person", "sheep"}),
    "furniture": frozenset({"chair", "diningtable", "sofa"}),
    "in the air": frozenset({"aeroplane", "bird"}),
    # Groups of the embedded data's classes.
    "digits": frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}),
    "shapes": frozenset(
        {"disk", "ring", "triangle", "star", "cross"} | {"crescent", "arrow", "square", "heart", "hourglass"}
    ),
}
"""Groups of similar classes.  A class outside all groups is similar to none."""


def diagnose(
    detections: Mapping[str, Sequence[np.ndarray]],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    groups: Collection[frozenset[str]] = tuple(SIMILAR.values()),
) -> pd.DataFrame:
    """Sort the N best detections of each class, where N is its number of objects, into `KINDS`.

    - correct: right in the sense of AP (`match_class`).
    - localisation: overlaps an object of the class by at least .1, but too little, or one already detected.
    - similar, other: overlaps an object of a similar class, or of any other class, by at least .1.
    - background: the rest.

    As in AP, difficult objects do not count towards N, and detections matched to them are left out.  A smaller
    overlap with a difficult object counts like one with any object.

    Args:
        detections: for every class, per image (N_i, 5) x1, y1, x2, y2, score; images as in `annotations`.
        annotations: the objects of each image.
        class_names: label k of an annotation is class `class_names[k]`.
        groups: sets of classes that are similar to each other.

    Returns:
        A row per class and the row `all` (sums over the classes).  Columns: class; objects (N); detections (at most
        N); for each kind its count and its fraction of the detections (`correct_fraction`, ...), NaN where there
        are no detections.

    Raises:
        KeyError: a class has no entry in `detections`.
        ValueError: a class has another number of images than `annotations`.
    """
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(class_names):
        alike = {name}.union(*(group for group in groups if name in group))
        similar = np.array([other in alike for other in class_names])
        rows.append({"class": name, **_count_kinds(detections[name], annotations, label, similar)})
    sums = {column: sum(row[column] for row in rows) for column in ("objects", "detections", *KINDS)}
    table = pd.DataFrame([*rows, {"class": "all", **sums}])
    for kind in KINDS:
        table[f"{kind}_fraction"] = table[kind] / table["detections"]
    return table


def _count_kinds(
    detections: Sequence[np.ndarray], annotations: Sequence[Annotation], label: int, similar: np.ndarray
) -> dict[str, int]:
    """The row of one class.  `similar` (K,) bool marks the classes similar to it and the class itself."""
    of_class = [item.labels == label for item in annotations]
    matches = match_class(detections, annotations, label)
    top = np.flatnonzero(matches.marks >= 0)[: matches.n_positive]
    counts = dict.fromkeys(KINDS, 0)
    for k in top:
        image = matches.image[k]
        truth = annotations[image]
        near = iou(detections[image][[matches.row[k]], :4], truth.boxes)[0] >= WEAK_IOU
        if matches.marks[k] > 0:
            kind = "correct"
        elif (near & of_class[image]).any():
            kind = "localisation"
        elif (near & similar[truth.labels]).any():
            kind = "similar"
        else:
            kind = "other" if near.any() else "background"
        counts[kind] += 1
    return {"objects": matches.n_positive, "detections": len(top), **counts}
