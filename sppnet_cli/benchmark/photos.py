"""Benchmark of photographs from the file to the picture: by part for one alone, and for many that overlap."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sppnet_cli.benchmark.detect import FAST, DetectSpeed, contenders
from sppnet_cli.benchmark.images import benchmark_network, drawn_image
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.clock import Clock
from sppnet_cli.console import track
from sppnet_cli.data.images import find_images, read_image, write_image
from sppnet_cli.data.layouts import layout_of
from sppnet_cli.data.proposals import image_seed, propose
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector, detections_of
from sppnet_cli.detection.detector_files import fastest
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.detection.shown import Shown
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.limits import machine
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.stages.photos import PhotoConfig, draw, read_ahead

METHODS = ("ss-fast", "edgeboxes")
_WINDOWS = 2000  # of an image at most, as `sppnet detect` takes by default
_SIDE = 1000  # pixels, beyond which windows are sought in a smaller copy, likewise
_PASSING = 0.1  # share of the windows that score above the threshold, where the detector has learnt nothing


@dataclass(frozen=True)
class PhotoSpeed:
    """Settings."""

    images: int = 8
    workers: int = 2  # processes that read and propose ahead, where images overlap
    repeats: int = 3
    seed: int = 0


class PhotoTime(NamedTuple):
    """Seconds of one image alone."""

    read: float  # file to pixels
    proposals: float
    conv: float  # resized to the detector's scales, and convolved
    pool: float
    score: float  # cascade, fc layers and SVMs
    nms: float  # NMS, box regression, NMS
    draw: float  # and writing the picture


def benchmark_photos(
    config: PhotoSpeed, *, data: Path | None = None, detector: Path | None = None, device: str = "cpu"
) -> Benchmark:
    """Time `sppnet detect` on photographs, with windows of each of `METHODS`, exact and fast.

    Of one image alone each part is timed, after one image to warm up; medians over the repeats, means over the images.
    Of overlapping images the time from one to the next, once all workers are at work.

    Args:
        config: how much is measured.
        data: VOC (its test images) or a folder of images; without it, drawn photographs of 375x500.
        detector: without it, a full-width ZF-5 at 1 scale with 20 classes, all of random weights.
        device: where the detector runs.
    """
    with _photographs(data, config) as paths, tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        detectors = _loaded(detector, device) if detector else _random(paths[0], config, device)
        sides = {f"{method}{name}": (method, each) for method in METHODS for name, each in detectors.items()}
        laps: dict[str, list[list[PhotoTime]]] = {name: [[] for _ in paths] for name in sides}
        turns = [(k, name) for _ in range(config.repeats) for k in range(len(paths)) for name in sides]
        for method, each in sides.values():
            _time(paths[0], method, each, out, config.seed)
        for k, name in track(turns, "one alone"):
            method, each = sides[name]
            laps[name][k].append(_time(paths[k], method, each, out, config.seed))
        rows = []
        for name, (method, each) in track(sides.items(), "overlapping", len(sides)):
            times = PhotoTime(
                *np.mean([np.median(of_image, axis=0) for of_image in laps[name]], axis=0).tolist()
            )
            seconds = {f"{part}_seconds": value for part, value in times._asdict().items()}
            overlapped = _overlapped(paths, method, each, out, config)
            rows.append(
                {"side": name, **seconds, "alone_seconds": sum(times), "overlapped_seconds": overlapped}
            )
    table = pd.DataFrame(rows)
    about = machine(device)
    note = (
        f"Seconds per image on {about.get('gpu', about['cpu'])}, {torch.get_num_threads()} threads of torch's; {FAST}: "
        f"as with --fast.  alone: the sum of the parts.  overlapped: of many images, {config.workers} processes read and "
        "seek windows meanwhile."
    )
    if not detector:
        note += f"  The detector has learnt nothing; {_PASSING:.0%} of the windows score above the threshold of a class."
    elif len(detectors) == 1:
        note += "  The detector has no fc layers: --fast is exact."
    record = {
        "sides": rows,
        "detector": str(detector) if detector else "zf5, random weights",
        "threads": torch.get_num_threads(),
        "workers": config.workers,
        "device": device,
        "images": len(paths),
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": about,
    }
    return Benchmark("photos", record, table, note)


@contextmanager
def _photographs(data: Path | None, config: PhotoSpeed) -> Iterator[Sequence[Path]]:
    """The files; drawn ones are removed afterwards."""
    if data is not None and layout_of(data) == "VOC":
        voc = load_voc(data, "test", config.images)
        yield [voc.image_path(image_id) for image_id in voc.ids]
    elif data is not None:
        yield find_images([data])[: config.images]
    else:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{k}.jpg" for k in range(config.images)]
            for k, path in enumerate(paths):
                write_image(path, drawn_image(config.seed, k))
            yield paths


def _loaded(folder: Path, device: str) -> dict[str, Detector]:
    exact, fast = Detector.load(folder, device), fastest(folder)
    return {"": exact} | ({FAST: Detector.load(folder, device, fast=fast)} if fast != FastOptions() else {})


def _random(path: Path, config: PhotoSpeed, device: str) -> dict[str, Detector]:
    """Detectors of random weights, whose thresholds let through a share of the windows of one image."""
    network, head = benchmark_network(None, config.seed, device)
    sides = contenders(network, head, DetectSpeed(seed=config.seed), device)
    image = read_image(path)
    boxes = propose(image, METHODS[0], config.seed)
    found = {}
    for name in ("", FAST):
        model = sides[f"spp_1scale{name}"].detector
        scores = model.set_image(image).score(boxes)
        bias = model.rules.score_threshold - np.quantile(
            scores[np.isfinite(scores).all(1)], 1 - _PASSING, axis=0
        )
        classes = len(bias)
        found[name] = Detector(
            model.extractor,
            "fc7",
            model.class_names,
            replace(model.svms, bias=bias.astype(np.float32)),
            head=head,
            bbox=BoxRegressors(
                np.zeros((classes, network.pooled_size, 4), np.float32),
                np.zeros((classes, 4), np.float32),
                1.0,
            ),
            shortcuts=model.shortcuts,
            fast=model.fast,
        )
    return found


def _time(path: Path, method: str, detector: Detector, out: Path, seed: int) -> PhotoTime:
    """Do what `sppnet detect` does with one photograph, a lap after each part."""
    clock = Clock(detector.extractor.device)
    image = read_image(path)
    read = clock.lap()
    boxes = propose(image, method, image_seed(seed, path.stem), _SIDE)[:_WINDOWS]
    proposals = clock.lap()
    if not len(boxes):
        raise DataError(f"{path}: {method} finds no windows in it; leave it out")
    prepared = detector.extractor.prepare(image)
    conv = clock.lap()
    pooled = detector.extractor.pool_distinct(prepared, boxes)
    pool = clock.lap()
    scores = detector.score_pooled(pooled.vectors)[pooled.rows]
    score = clock.lap()
    found = detections_of([detector], [pooled], scores, boxes, prepared.size)
    nms = clock.lap()
    draw(out / f"{path.stem}.jpg", image, found, detector.class_names, Shown())
    return PhotoTime(read, proposals, conv, pool, score, nms, clock.lap())


def _overlapped(
    paths: Sequence[Path], method: str, detector: Detector, out: Path, config: PhotoSpeed
) -> float:
    """Seconds from one image to the next, over all of them after a first round that starts the workers."""
    photos = PhotoConfig(None, None, None, method, config.seed, _WINDOWS, _SIDE, Shown())
    clock = Clock(detector.extractor.device)
    rounds = [*paths, *paths]
    for k, (path, reading) in enumerate(zip(rounds, read_ahead(photos, rounds, config.workers), strict=True)):
        if k == len(paths):
            clock.lap()
        image, boxes = reading.result()
        found = detector.set_image(image).detect(boxes[:_WINDOWS])
        draw(out / f"{path.stem}.jpg", image, found, detector.class_names, photos.shown)
    return clock.lap() / len(paths)
