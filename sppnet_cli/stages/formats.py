"""Detections in the formats of other tools, written beside a run once it is made."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sppnet_cli.data.images import image_size
from sppnet_cli.data.voc import VocDetection
from sppnet_cli.detection.shown import Shown
from sppnet_cli.evaluation.coco_results import CocoIds, coco_ids, write_coco_results
from sppnet_cli.evaluation.label_files import write_voc_annotations, write_yolo_labels
from sppnet_cli.files import path_text
from sppnet_cli.stages.detection_rows import COCO_FILE

Format = Literal["csv", "coco", "yolo", "voc"]


@dataclass(frozen=True)
class Images:
    """What the formats need to know of the images, each by its name in `detections.csv`."""

    ids: CocoIds
    names: Mapping[str, str]  # of their label files, without a suffix
    file_names: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]  # (height, width)


def images_of_set(dataset: VocDetection) -> Images:
    """The images of a split; COCO's numbers are those of the export that it was imported from (`coco_ids`)."""
    return Images(
        coco_ids(dataset),
        {image_id: image_id for image_id in dataset.ids},
        {image_id: dataset.image_path(image_id).name for image_id in dataset.ids},
        {image_id: dataset.annotation(image_id).size for image_id in dataset.ids},
    )


def images_of_files(
    paths: Sequence[Path], pictures: Mapping[str, Path], class_names: Sequence[str]
) -> Images:
    """Image files by their paths; COCO's numbers are their places in `paths`, and the classes' places, from 1.

    `pictures` names the annotated picture of each file that could be read, by its name in `detections.csv`: label
    files are called as these are.
    """
    named = {path_text(str(path)): path for path in paths}
    return Images(
        CocoIds(
            {name: k for k, name in enumerate(named, 1)},
            {name: k for k, name in enumerate(class_names, 1)},
        ),
        {name: picture.stem for name, picture in pictures.items()},
        {name: path_text(named[name].name) for name in pictures},
        {name: image_size(named[name]) for name in pictures},
    )


def write_formats(
    folder: Path,
    frame: pd.DataFrame,
    formats: Collection[Format],
    shown: Shown,
    images: Images,
    class_names: Sequence[str],
) -> list[str]:
    """Write the formats into `folder` and return the names of what was written; `csv` is there already.

    `detections.json` holds all detections, as `detections.csv`.  `yolo/` and `voc/` hold a label file for each image
    with what is shown, for a person to correct; an earlier one is replaced.
    """
    written = []
    if "coco" in formats:
        write_coco_results(folder / COCO_FILE, frame, images.ids)
        written.append(COCO_FILE)
    rows = frame[shown.rows(frame)]
    rows = rows.assign(image=rows["image"].map(dict(images.names)))
    sizes = {name: images.sizes[image] for image, name in images.names.items()}
    for name in ("yolo", "voc"):
        if name in formats:
            shutil.rmtree(folder / name, ignore_errors=True)
            written.append(f"{name}/")
    if "yolo" in formats:
        write_yolo_labels(folder / "yolo", rows, sizes, class_names)
    if "voc" in formats:
        file_names = {name: images.file_names[image] for image, name in images.names.items()}
        write_voc_annotations(folder / "voc", rows, sizes, file_names)
    return written
