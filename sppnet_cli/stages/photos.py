"""Stage: detections in image files, with annotated pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sppnet_cli.atomic import atomic_path
from sppnet_cli.console import track, warn
from sppnet_cli.data.images import read_image, write_image
from sppnet_cli.data.proposals import image_seed, propose
from sppnet_cli.detection.detector import Detection, Detector
from sppnet_cli.detection.draw import draw_detections
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.stages.detect import DETECTIONS_FILE, as_frame


@dataclass(frozen=True)
class PhotoConfig:
    """`sppnet detect` on image files."""

    proposals: str = "ss-fast"
    seed: int = 0
    max_windows: int = 2000
    proposal_side: int = 1000  # pixels: larger photographs are shrunk for the search
    min_score: float = 0.0  # of what is drawn; the CSV has all


@dataclass(frozen=True)
class Photo:
    """What was found in one file."""

    path: Path
    picture: Path
    detections: list[Detection]


def detect_photos(
    config: PhotoConfig, detector: Detector, paths: Sequence[Path], out: Path
) -> tuple[list[Photo], dict[Path, str]]:
    """Detect in image files; returns what was found and the files that were skipped, with the reason.

    Writes `detections.csv` and a picture `<name>.jpg` per image into `out`; pictures of equal names in different
    folders are numbered.  Raises `DataError` when none of the files can be read.
    """
    inside = [path for path in paths if path.resolve().parent == out.resolve()]
    if inside:
        raise UsageError(
            f"{out}: holds {inside[0].name}, which the picture of it would replace; give another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    photos: list[Photo] = []
    skipped: dict[Path, str] = {}
    for path in track(paths, "detecting"):
        try:
            image = read_image(path)
        except DataError as error:
            warn(f"skipped: {error}")
            skipped[path] = str(error)
            continue
        boxes = propose(image, config.proposals, image_seed(config.seed, path.stem), config.proposal_side)
        found = detector.set_image(image).detect(boxes[: config.max_windows]) if len(boxes) else []
        picture = _picture_path(path, out, photos)
        write_image(picture, draw_detections(image, found, detector.class_names, config.min_score))
        photos.append(Photo(path, picture, found))
    if not photos:
        raise DataError(f"none of the {len(paths)} images could be read; see above")
    if skipped:
        warn(f"{len(skipped)} of {len(paths)} images were skipped")
    frames = [as_frame(str(photo.path), photo.detections, detector.class_names) for photo in photos]
    with atomic_path(out / DETECTIONS_FILE) as temporary:
        pd.concat(frames).to_csv(temporary, index=False, lineterminator="\n")
    return photos, skipped


def _picture_path(path: Path, out: Path, photos: Sequence[Photo]) -> Path:
    taken = {photo.picture.name for photo in photos}
    name, number = f"{path.stem}.jpg", 2
    while name in taken:
        name, number = f"{path.stem}-{number}.jpg", number + 1
    return out / name
