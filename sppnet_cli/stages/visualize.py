"""Stage: pictures of detections (Figure 6) and of the strongest responses of conv5 (Figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track, warn
from sppnet_cli.data.images import read_image, write_image
from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.draw import contact_sheet, draw_detections
from sppnet_cli.detection.shown import Shown
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.responses import FilterResponses
from sppnet_cli.files import path_text, stem_for
from sppnet_cli.network.weights import load_network
from sppnet_cli.stages.extract_features import ImageSet, image_paths
from sppnet_cli.stages.score_detections import read_detections

SHEET_FILE = "contact-sheet.jpg"
_PICTURE_SIDE = 800  # pixels: smaller images are enlarged until their longer side is this long
_SHEET_WIDTH, _SHEET_HEIGHT = 1600, 240  # width of the sheet and height of an image on it, in pixels


@dataclass(frozen=True)
class DetectionPictures:
    """`sppnet visualize detections`."""

    split: str
    ids: tuple[str, ...] = ()  # images; none: `count` of those with a detection, evenly spread
    count: int = 24
    shown: Shown = field(
        default_factory=Shown
    )  # what is drawn; without confidence or score: `best_of_classes`
    truth: bool = True  # draw the ground truth too


@dataclass(frozen=True)
class ResponsePictures:
    """`sppnet visualize conv5`."""

    images: ImageSet | None  # that are searched; None: the user's image files
    size: int = 392  # short side of the network's input, in pixels
    count: int = 4  # images drawn, of those that are searched
    filters: tuple[int, ...] = ()  # none: the strongest of each image
    strongest: int = 4  # how many these are
    excited: int = 5  # other images shown beside each filter


def require_drawable(config: DetectionPictures, detections: Path, data: Path) -> None:
    """Raise as `picture_detections` does for detections, ids or data that do not fit together."""
    dataset = load_voc(data, config.split)
    read_detections(detections, dataset)
    for image_id in config.ids:
        if image_id not in dataset.ids:
            raise UsageError(f"{image_id}: no image of this name in {config.split} of {dataset.root}")


def picture_detections(config: DetectionPictures, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Draw `detections` of a VOC split: a JPEG `<id>.jpg` per image, and `contact-sheet.jpg`.

    An image that cannot be read gives a warning and is left out.  Raises `UsageError` for an id that is not in the split,
    `DataError` for detections of other images or classes, and if there is nothing to draw.
    """
    detections = inputs["detections"]
    require_drawable(config, detections, inputs["data"])
    dataset = load_voc(inputs["data"], config.split)
    frame, _ = read_detections(detections, dataset)
    best = config.shown.min_score is None and "confidence" not in frame
    shown = best_of_classes(frame, dataset) if best else frame[config.shown.rows(frame)]
    with_any = set(frame["image"])
    detected = [image_id for image_id in dataset.ids if image_id in with_any]
    chosen = list(dict.fromkeys(config.ids)) or [detected[k] for k in _evenly(len(detected), config.count)]
    if not chosen:
        raise DataError(f"{detections}: holds no detection; name the images to draw")
    pictures: dict[str, Path] = {}
    thumbnails = []
    for image_id in track(chosen, "drawing"):
        try:
            image, annotation = dataset.image(image_id), dataset.annotation(image_id)
        except DataError as error:
            warn(f"skipped: {error}")
            continue
        detected_here = _detections(shown[shown["image"] == image_id], dataset.class_names)
        large = max(1.0, _PICTURE_SIDE / max(annotation.size))
        small = min(_SHEET_HEIGHT / annotation.size[0], _SHEET_WIDTH / 2 / annotation.size[1])
        drawn, thumbnail = (
            draw_detections(
                image,
                detected_here,
                dataset.class_names,
                truth=annotation if config.truth else None,
                zoom=zoom,
            )
            for zoom in (large, small)
        )
        pictures[image_id] = folder / f"{image_id.replace('/', '-')}.jpg"
        write_image(pictures[image_id], drawn)
        thumbnails.append(thumbnail)
    if not pictures:
        raise DataError(f"{dataset.root}: none of the {len(chosen)} images could be read; see above")
    write_image(folder / SHEET_FILE, contact_sheet(thumbnails, list(pictures), _SHEET_WIDTH))


def best_of_classes(frame: pd.DataFrame, dataset: VocDetection) -> pd.DataFrame:
    """The detections of highest score in all images, of each class as many as it has objects in the split.

    Scores of SVMs of different classes have no common zero.  Of an image that has none among them the best is taken.
    """
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    labels = np.concatenate([each.labels[~each.difficult] for each in annotations])
    objects = dict(
        zip(dataset.class_names, np.bincount(labels, minlength=len(dataset.class_names)), strict=True)
    )
    ordered = frame.sort_values("score", ascending=False, kind="stable")
    rank = ordered.groupby("class").cumcount()
    chosen = ordered[rank < ordered["class"].map(objects)]
    best = ordered.drop_duplicates("image")
    return pd.concat([chosen, best[~best["image"].isin(chosen["image"])]])


def picture_responses(config: ResponsePictures, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Draw the conv5 responses in `config.count` images, evenly spread over all: a PNG each.

    Each picture has a row per filter: its strongest response in the image, with the receptive field, and the other
    images with the strongest ones, as far as they respond at all.  An image that cannot be read gives a warning and
    is left out.  Raises `UsageError` for a filter that the network does not have, `DataError` where no image can be read.
    """
    from sppnet_cli.detection.draw_responses import Excited, draw_responses  # and Matplotlib with it

    network = inputs["network"]
    paths = image_paths(config.images, inputs["data"]) if config.images else inputs.images
    net = load_network(network)
    unknown = [k for k in config.filters if not 0 <= k < net.channels]
    if unknown:
        raise UsageError(f"filter {unknown[0]}: conv5 of {network} has the filters 0 to {net.channels - 1}")
    respond = FilterResponses(net, config.size, how.device)
    readable, strongest, fields = [], [], []
    for path in track(paths, "conv5 responses"):
        try:
            responses = respond(read_image(path))
        except DataError as error:
            warn(f"skipped: {error}")
            continue
        readable.append(path)
        strongest.append(responses.strongest)
        fields.append(responses.fields)
    if not readable:
        raise DataError(f"none of the {len(paths)} images could be read; see above")
    table = np.stack(strongest)  # (images, filters)
    for number, k in enumerate(_evenly(len(readable), config.count), 1):
        filters = config.filters or tuple(_descending(table[k])[: config.strongest].tolist())
        others = [
            [j for j in _descending(table[:, f]) if j != k and table[j, f] > 0][: config.excited]
            for f in filters
        ]
        excited = [
            [Excited(read_image(readable[j]), float(table[j, f]), fields[j][f]) for j in row]
            for f, row in zip(filters, others, strict=True)
        ]
        image = read_image(readable[k])
        title = f"{path_text(readable[k].name)}: strongest responses of conv5, and in other images"
        picture = draw_responses(title, image, respond(image), filters, excited)
        write_image(folder / f"{number}-{stem_for(readable[k])}.png", picture)


def pictures_cost(count: int, seconds: float) -> Cost:
    """Cost of so many pictures, after a search of `seconds`."""
    return Cost(seconds + 0.3 * count, {f"pictures ({count} files)": 500_000 * count})


def _evenly(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` items, at most all: the first, the last and evenly between them."""
    return [round(place) for place in np.linspace(0, total - 1, min(count, total)).tolist()]


def _descending(values: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.argsort(-values, kind="stable")


def _detections(rows: pd.DataFrame, class_names: Sequence[str]) -> list[Detection]:
    return [
        Detection(
            class_names.index(row["class"]),
            row["score"],
            (row["x1"], row["y1"], row["x2"], row["y2"]),
            row.get("confidence"),
        )
        for row in rows.to_dict("records")
    ]
