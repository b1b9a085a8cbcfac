"""Stage: detections of a VOC split by a detector."""

import csv
import io
import itertools
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sppnet_cli.atomic import atomic_path, write_text
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track, warn
from sppnet_cli.data.ahead import ahead
from sppnet_cli.detection.detector import Detection, Detector, detect_together
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.digests import file_digest
from sppnet_cli.distributed import gather, world
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.comp4 import write_comp4
from sppnet_cli.evaluation.proposal_recall import proposal_recall
from sppnet_cli.features.windows import ImageWindows, WindowSource
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import WEIGHTS_FILE
from sppnet_cli.records import read_csv
from sppnet_cli.stages import cost
from sppnet_cli.stages.detection_rows import (
    CALIBRATED_COLUMNS,
    COCO_FILE,
    COLUMNS,
    DETECTIONS_FILE,
    read_detection_rows,
)
from sppnet_cli.stages.windows import WindowConfig, window_source

RECALL_FILE = "proposal_recall.csv"
SKIPPED_FILE = "skipped.csv"
_PARTS = "parts"  # folder: what was found in each image, until none is left to try again


@dataclass(frozen=True)
class DetectConfig:
    """`sppnet detect` on a data set; rules and scale are those that the detectors carry, but for `scales`."""

    split: str
    max_windows: int | None  # proposals per image; None: all
    limit: int | None = None  # images
    scales: tuple[int, ...] | None = None  # of the first detector, where they are not its own
    fast: FastOptions | None = None  # None: exact
    precision: Precision | None = None  # None: fp32


def detect(config: DetectConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """`detections.csv`: a row per detection; boxes in 0-based inclusive pixels of the original image.

    Of one calibrated detector it has `CALIBRATED_COLUMNS`, else `COLUMNS`.

    The same as the devkit's result files, 1-based: `comp4/comp4_det_<split>_<class>.txt`; and how well the
    proposals cover the objects: `proposal_recall.csv`.  Several detectors (`detector`, `detector 2`, ...) are combined
    (`detect_together`).

    Several processes of torchrun share the images; what one finds is on disk at once, so that a call that was cut off
    resumes with the image that it had in hand.  An image that cannot be read, or whose proposals cannot, is warned of,
    counted in `skipped.csv` and left out; the same call again tries it again, and only it.  `workers` threads read the
    next images meanwhile.
    """
    names = sorted(
        (name for name in inputs if name.startswith("detector")), key=lambda name: (len(name), name)
    )
    detectors = [inputs[name] for name in names]
    models = _load(config, detectors, how)
    pooled = [
        window_source(
            WindowConfig(
                config.split,
                model.extractor.method,
                model.extractor.scales,
                model.extractor.mapping,
                config.max_windows,
                config.limit,
            ),
            inputs,
            how,
            model.extractor,
            file_digest(path / WEIGHTS_FILE),
            truth=False,
        )
        for model, path in zip(models, detectors, strict=True)
    ]
    source = pooled[0]
    if source.dataset.class_names != models[0].class_names:
        raise UsageError(
            f"{detectors[0]}: detects {', '.join(models[0].class_names[:3])}, ..., which are not the classes of "
            f"{source.dataset.root}"
        )
    parts = folder / _PARTS
    parts.mkdir(exist_ok=True)
    found = gather(_detect_share(models, pooled, parts, how.workers))
    skipped = sorted(itertools.chain.from_iterable(found))
    if len(skipped) == len(source):
        raise DataError(
            f"{source.dataset.root}: none of its {len(source)} images could be used: {skipped[0][2]}"
        )
    if not world().first:
        return
    for _, _, reason in itertools.chain.from_iterable(found[1:]):
        warn(f"skipped: {reason}")
    _write_skipped(folder, skipped, len(source))
    left_out = {image_id for _, image_id, _ in skipped}
    (folder / COCO_FILE).unlink(missing_ok=True)  # of a run that is resumed
    with atomic_path(folder / DETECTIONS_FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(",".join(_columns(models)) + "\n")
        for image_id in source.dataset.ids:
            if image_id not in left_out:
                file.write((parts / f"{image_id}.csv").read_text(encoding="utf-8"))
    rows = read_detection_rows(folder / DETECTIONS_FILE, "start over with --no-resume")
    write_comp4(folder / "comp4", rows, config.split, source.dataset.class_names)
    seen = [
        source.windows(index) for index, image_id in enumerate(source.dataset.ids) if image_id not in left_out
    ]
    recall = proposal_recall(
        [each.boxes for each in seen], [each.truth for each in seen], source.dataset.class_names
    )
    write_text(folder / RECALL_FILE, recall.table().to_csv(index=False, lineterminator="\n"))
    if not skipped:
        shutil.rmtree(parts)


def lacks_images(run: Path) -> bool:
    """Whether a run left out images, which the next call tries again."""
    return (run / SKIPPED_FILE).is_file()


def detect_cost(spec: NetworkSpec, fc: int, layer: str, walk: cost.Walk, device: str) -> Cost:
    """Of the features and of the layers on them; SVMs and NMS take little."""
    work = cost.feature_work(spec, walk, device) + cost.layer_work(spec, fc, layer, walk, device)
    size = walk.images * 18_000
    files = {DETECTIONS_FILE: size, "comp4/": size, RECALL_FILE: 1300}
    return Cost(work.seconds, files, cost.memory(0.7), work.flops)


def _write_skipped(folder: Path, skipped: list[tuple[int, str, str]], images: int) -> None:
    (folder / SKIPPED_FILE).unlink(missing_ok=True)
    if skipped:
        warn(f"{len(skipped)} of {images} images were skipped")
        frame = pd.DataFrame(skipped, columns=["index", "image", "reason"])
        write_text(folder / SKIPPED_FILE, frame[["image", "reason"]].to_csv(index=False, lineterminator="\n"))


def skipped_images(run: Path) -> dict[str, str]:
    """The images that a run of `detect` left out, each with the reason."""
    if not (run / SKIPPED_FILE).is_file():
        return {}
    remedy = f"remove {run} and detect again"
    rows = read_csv(run / SKIPPED_FILE, dict.fromkeys(("image", "reason"), str), remedy=remedy)
    return dict(zip(rows["image"], rows["reason"], strict=True))


def _load(config: DetectConfig, detectors: Sequence[Path], how: Resources) -> list[Detector]:
    """The detectors, the first at the config's scales where it names some; `UsageError` where they do not fit together."""
    scales = [config.scales] + [None] * (len(detectors) - 1)
    models = [
        Detector.load(path, how.device, each, fast=config.fast, precision=config.precision or "fp32")
        for path, each in zip(detectors, scales, strict=True)
    ]
    for path, model in zip(detectors, models, strict=True):
        if (model.class_names, model.rules) != (models[0].class_names, models[0].rules):
            raise UsageError(
                f"{path}: is of other classes or another protocol than {detectors[0]}: cannot be combined"
            )
    return models


def _detect_share(
    models: Sequence[Detector], sources: Sequence[WindowSource], parts: Path, workers: int
) -> list[tuple[int, str, str]]:
    """Write a file of rows for each image of this process's share; returns (index, image, reason) of those skipped."""
    here, ids = world(), sources[0].dataset.ids
    share = range(here.rank, len(ids), here.size)
    missing = [index for index in share if not (parts / f"{ids[index]}.csv").is_file()]
    skipped = []

    def read(index: int) -> tuple[ImageWindows, NDArray[np.uint8] | None]:
        wanted = any(source.wants_image(index) for source in sources)
        return sources[0].windows(index), sources[0].dataset.image(ids[index]) if wanted else None

    threads = max(1, workers)
    title = f"detecting with {' and '.join(model.layer.name for model in models)}"
    with ThreadPoolExecutor(threads) as pool:
        images = ahead(pool, read, missing, 2 * threads)
        for index, reading in zip(missing, track(images, title, len(missing)), strict=True):
            try:
                windows, image = reading.result()
                pooled = [source.pooled_distinct(index, windows, image) for source in sources]
                found = detect_together(models, pooled, windows.boxes, windows.size)
            except DataError as error:
                warn(f"skipped: {error}")
                skipped.append((index, ids[index], str(error)))
                continue
            text = io.StringIO(newline="")
            rows = _rows(ids[index], found, models[0].class_names, _columns(models))
            csv.writer(text, lineterminator="\n").writerows(rows)
            write_text(parts / f"{ids[index]}.csv", text.getvalue())
    return skipped


def _columns(models: Sequence[Detector]) -> tuple[str, ...]:
    """Scores of several detectors compete, and no calibration is of their combination."""
    return columns_of(models[0]) if len(models) == 1 else COLUMNS


def columns_of(detector: Detector) -> tuple[str, ...]:
    """Those of `detections.csv`: a detector that is not calibrated gives no confidence."""
    return COLUMNS if detector.calibration is None else CALIBRATED_COLUMNS


def as_frame(
    image: str, detections: list[Detection], class_names: tuple[str, ...], columns: tuple[str, ...] = COLUMNS
) -> pd.DataFrame:
    """Detections of one image as rows of `columns`, which are `COLUMNS` or `CALIBRATED_COLUMNS`."""
    frame = pd.DataFrame(_rows(image, detections, class_names, columns), columns=list(columns))
    return frame.astype({"image": str, "class": str, **dict.fromkeys(columns[2:], float)})


def _rows(
    image: str, detections: list[Detection], class_names: tuple[str, ...], columns: tuple[str, ...]
) -> list[tuple[Any, ...]]:
    sure = "confidence" in columns
    return [
        (image, class_names[d.label], d.score, *([d.confidence] if sure else []), *d.box) for d in detections
    ]
