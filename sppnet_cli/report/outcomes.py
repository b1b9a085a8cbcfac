"""Detectors at work: their best, worst, missed and false detections."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sppnet_cli.errors import DataError
from sppnet_cli.report.detections import Detections
from sppnet_cli.report.pictures import Picture, picture
from sppnet_cli.report.section import Section
from sppnet_cli.stages.outcomes_sheet import Outcome, draw_outcome, outcomes

_MOST = 200  # pictures on the page
_EACH = 5  # at most, of a detector and kind
_SIZE = 240, 150  # pixels
_KINDS = {
    "best": "Best: right and surest",
    "worst": "Worst: right and least sure",
    "missed": "Missed: the largest objects without a sure right detection",
    "false": "False: wrong and surest",
}


def detectors_at_work(detections: Sequence[Detections], aps: Mapping[str, float | None]) -> Section | None:
    """Pictures of each detector; `aps` are the mAPs that are known, fractions.  None where there is nothing to show."""
    if not detections:
        return None
    each = max(1, min(_EACH, _MOST // (len(_KINDS) * len(detections))))
    best = max(detections, key=lambda of: aps.get(of.name) or 0)
    shown = [
        {"name": of.name, "mean_ap": aps.get(of.name), "kinds": _kinds(of, each), "open": of is best}
        for of in detections
    ]
    return Section(
        "outcomes",
        "Detectors at work",
        "What each detector finds most surely, finds barely, misses, and takes for an object although it is none.",
        "outcomes.html",
        {"detectors": shown},
    )


def _kinds(detections: Detections, count: int) -> list[dict[str, Any]]:
    found = outcomes(detections.frame(), detections.dataset)
    return [
        {"name": _KINDS[kind], "pictures": _pictures(kind, of_kind, detections, count)}
        for kind, of_kind in found.items()
    ]


def _pictures(kind: str, found: Iterable[Outcome], detections: Detections, count: int) -> list[Picture]:
    """The first ones, each of another image; images that cannot be read are passed over."""
    dataset, pictures = detections.dataset, dict[str, Picture]()
    for each in found:
        if each.image in pictures:
            continue
        if len(pictures) == count:
            break
        try:
            image = dataset.image(each.image)
        except DataError:
            continue
        zoom = min(_SIZE[0] / image.shape[1], _SIZE[1] / image.shape[0])
        name = dataset.class_names[each.detection.label]
        sure = each.detection.score if each.detection.confidence is None else each.detection.confidence
        caption = f"{each.image}: {name}" + ("" if sure == -np.inf else f" {sure:.2f}")
        text = f"{kind} of {detections.name}: {name} in image {each.image}"
        pictures[each.image] = picture(draw_outcome(each, image, dataset.class_names, zoom), text, caption)
    return list(pictures.values())
