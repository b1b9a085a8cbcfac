"""Stage: detections in image files, with annotated pictures."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sppnet_cli.atomic import write_text
from sppnet_cli.console import track, warn
from sppnet_cli.data.ahead import ahead
from sppnet_cli.data.images import image_files, require_apart, write_image
from sppnet_cli.data.proposals import image_seed, read_and_propose, start_worker
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
    config: PhotoConfig, detector: Detector, paths: Sequence[Path], out: Path, *, workers: int = 1
) -> tuple[list[Photo], dict[Path, str]]:
    """Detect in image files; returns what was found and the files that were skipped, with the reason.

    Of several files the next ones are read, and windows sought in them, by `workers` processes meanwhile.

    Writes `detections.csv` and a picture `<name>.jpg` per image into `out`; pictures of equal names in different
    folders are numbered.  Raises `DataError` when none of the files can be read, `UsageError` where `out` holds one
    of them or pictures that are not of this call.
    """
    require_apart(out, paths)
    pictures = _picture_paths(paths, out)
    ours = {*pictures} if (out / DETECTIONS_FILE).is_file() else set()  # of an earlier call
    others = sorted({*image_files(out)} - ours) if out.is_dir() else []
    if others:
        raise UsageError(
            f"{out}: holds {others[0].name}, which is no picture of these images; remove what an earlier call left "
            "there or give another --out"
        )
    photos: list[Photo] = []
    skipped: dict[Path, str] = {}
    read = track(_ahead(config, paths, workers), "detecting", len(paths))
    for path, picture, reading in zip(paths, pictures, read, strict=True):
        try:
            image, boxes = reading.result()
        except DataError as error:
            warn(f"skipped: {error}")
            skipped[path] = str(error)
            continue
        found = detector.set_image(image).detect(boxes[: config.max_windows]) if len(boxes) else []
        out.mkdir(parents=True, exist_ok=True)
        write_image(picture, draw_detections(image, found, detector.class_names, config.min_score))
        photos.append(Photo(path, picture, found))
    if not photos:
        raise DataError(f"none of the {len(paths)} images could be read; see above")
    if skipped:
        warn(f"{len(skipped)} of {len(paths)} images were skipped")
    frames = [as_frame(str(photo.path), photo.detections, detector.class_names) for photo in photos]
    write_text(out / DETECTIONS_FILE, pd.concat(frames).to_csv(index=False, lineterminator="\n"))
    return photos, skipped


def _ahead(
    config: PhotoConfig, paths: Sequence[Path], workers: int
) -> Iterator[Future[tuple[np.ndarray, np.ndarray]]]:
    """Each image and its windows."""
    processes = min(workers, len(paths))
    # One by one in a thread, else in processes, since OpenCV's random state is one per process.
    pool: Executor = ThreadPoolExecutor(1)
    if processes > 1:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=start_worker)

    jobs = [
        (path, config.proposals, image_seed(config.seed, path.stem), config.proposal_side) for path in paths
    ]
    with pool:
        yield from ahead(pool, read_and_propose, jobs, processes if processes > 1 else 0)


def _picture_paths(paths: Sequence[Path], out: Path) -> list[Path]:
    """Where the picture of each image goes."""
    pictures: dict[Path, None] = {}
    for path in paths:
        picture, number = out / f"{path.stem}.jpg", 2
        while picture in pictures:
            picture, number = out / f"{path.stem}-{number}.jpg", number + 1
        pictures[picture] = None
    return list(pictures)
