"""Stage: detections in image files, with annotated pictures."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.atomic import write_text
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track, warn
from sppnet_cli.data.ahead import ahead
from sppnet_cli.data.images import write_image
from sppnet_cli.data.proposals import image_seed, read_and_propose, start_worker
from sppnet_cli.detection.detector import Detection, Detector
from sppnet_cli.detection.draw import draw_detections
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.detection.shown import Shown
from sppnet_cli.errors import DataError
from sppnet_cli.files import path_text, stem_for
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.processes import worker_pool
from sppnet_cli.records import read_csv
from sppnet_cli.stages import cost
from sppnet_cli.stages.detect import as_frame, columns_of
from sppnet_cli.stages.detection_rows import COCO_FILE, DETECTIONS_FILE, read_detection_rows

PHOTOS_FILE = "photos.csv"


@dataclass(frozen=True)
class PhotoConfig:
    """`sppnet detect` on image files."""

    scales: tuple[int, ...] | None  # None: the detector's
    fast: FastOptions | None  # None: exact
    precision: Precision | None  # None: fp32
    proposals: str
    seed: int
    max_windows: int | None  # of a photograph; None: all
    proposal_side: int  # pixels: larger photographs are shrunk for the search
    shown: Shown  # what pictures show; the CSV has all


def detect_photos(config: PhotoConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """`detections.csv`, a picture `<name>.jpg` of each image, and `photos.csv` (image, picture, problem).

    Where nothing reaches what `config.shown` asks for, and no `min_score` was given, a picture shows the surest
    detection, marked as weak.

    Pictures of equal names in different folders are numbered.  Of several files the next ones are read, and windows
    sought in them, by `workers` processes meanwhile.  A file that cannot be read is warned of and left out; the same
    call again tries it again.  Raises `DataError` when none of the files can be read.
    """
    paths = inputs.images
    (folder / COCO_FILE).unlink(missing_ok=True)  # of a run that is resumed
    detector = Detector.load(
        inputs["detector"], how.device, config.scales, fast=config.fast, precision=config.precision or "fp32"
    )
    rows, frames = [], []
    names = _picture_names(paths)
    read = track(read_ahead(config, paths, how.workers), "detecting in photographs", len(paths))
    for path, picture, reading in zip(map(path_text, map(str, paths)), names, read, strict=True):
        try:
            image, boxes = reading.result()
        except DataError as error:
            warn(f"skipped: {error}")
            rows.append((path, "", str(error)))
            continue
        found = detector.set_image(image).detect(boxes[: config.max_windows]) if len(boxes) else []
        draw(folder / picture, image, found, detector.class_names, config.shown)
        rows.append((path, picture, ""))
        frames.append(as_frame(path, found, detector.class_names, columns_of(detector)))
    skipped = len(paths) - len(frames)
    if not frames:
        raise DataError(f"none of the {len(paths)} images could be read; see above")
    if skipped:
        warn(f"{skipped} of {len(paths)} images were skipped")
    table = pd.DataFrame(rows, columns=["image", "picture", "problem"])
    for name, frame in ((DETECTIONS_FILE, pd.concat(frames)), (PHOTOS_FILE, table)):
        write_text(folder / name, frame.to_csv(index=False, lineterminator="\n"))


def draw(
    path: Path,
    image: NDArray[np.uint8],
    found: Sequence[Detection],
    class_names: tuple[str, ...],
    shown: Shown,
) -> None:
    """Write a picture of what is `shown` in an image, else of the surest detection, marked as weak."""
    drawn = [d for d in found if shown(d)]
    weak = not drawn and shown.min_score is None
    if weak and found:
        drawn = [max(found, key=lambda d: d.score if d.confidence is None else d.confidence)]
    write_image(path, draw_detections(image, drawn, class_names, weak=weak))


def lacks_photos(run: Path) -> bool:
    """Whether a run left out photographs, which the next call tries again."""
    return any(read_photos(run)[1].values())


def photos_cost(spec: NetworkSpec, fc: int, layer: str, walk: cost.Walk, device: str) -> Cost:
    """Of the search for windows, the features and the layers."""
    pixels = walk.size[0] * walk.size[1] * walk.images
    work = cost.feature_work(spec, walk, device) + cost.layer_work(spec, fc, layer, walk, device)
    files = {DETECTIONS_FILE: 18_000 * walk.images, f"pictures ({walk.images} files)": 150_000 * walk.images}
    files[PHOTOS_FILE] = 100 * walk.images
    return Cost(work.seconds + 3 * pixels * cost.SEARCH_SECONDS, files, flops=work.flops)


@dataclass(frozen=True)
class Photo:
    """What was found in one file: rows of `detections.csv`; the path as it stands there (`path_text`)."""

    path: Path
    picture: Path
    detections: pd.DataFrame


def read_photos(run: Path) -> tuple[list[Photo], dict[str, str]]:
    """What `detect_photos` found, and the files that it skipped, with the reason.  Raises `DataError`."""
    remedy = f"remove {run} and detect again"
    index = read_csv(run / PHOTOS_FILE, dict.fromkeys(("image", "picture", "problem"), str), remedy=remedy)
    rows = read_detection_rows(run / DETECTIONS_FILE, remedy)
    photos = [
        Photo(Path(image), run / picture, rows[rows["image"] == image])
        for image, picture in zip(index["image"], index["picture"], strict=True)
        if picture
    ]
    problems = zip(index["image"], index["problem"], strict=True)
    return photos, {image: problem for image, problem in problems if problem}


def read_ahead(
    config: PhotoConfig, paths: Sequence[Path], workers: int
) -> Iterator[Future[tuple[np.ndarray, np.ndarray]]]:
    """Each image and its windows, read and sought by `workers` processes while the ones before are dealt with."""
    processes = min(workers, len(paths))
    # One by one in a thread, else in processes, since OpenCV's random state is one per process.
    pool: Executor = ThreadPoolExecutor(1)
    if processes > 1:
        pool = worker_pool(processes, start_worker)

    jobs = [
        (path, config.proposals, image_seed(config.seed, path.stem), config.proposal_side) for path in paths
    ]
    with pool:
        yield from ahead(pool, read_and_propose, jobs, processes if processes > 1 else 0)


def _picture_names(paths: Sequence[Path]) -> list[str]:
    """What the picture of each image is called."""
    names: dict[str, None] = {}
    for path in paths:
        stem = stem_for(path)
        name, number = f"{stem}.jpg", 2
        while name in names:
            name, number = f"{stem}-{number}.jpg", number + 1
        names[name] = None
    return list(names)
