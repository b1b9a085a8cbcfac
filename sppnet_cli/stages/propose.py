"""Stage: proposals for the images of a VOC split, a file per image."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sppnet_cli.atomic import atomic_path
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track, warn
from sppnet_cli.data.mat_boxes import load_mat_boxes
from sppnet_cli.data.proposals import image_seed, join_boxes, propose, read_boxes, start_worker, write_boxes
from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.distributed import gather, world
from sppnet_cli.errors import DataError
from sppnet_cli.files import visible
from sppnet_cli.processes import worker_pool
from sppnet_cli.stages.cost import SEARCH_SECONDS

BOXES, INDEX_FILE = "boxes", "index.csv"
_TYPICAL_WINDOWS = 1200  # per image, for estimates


@dataclass(frozen=True)
class ProposeConfig:
    """`sppnet propose`."""

    split: str
    method: str  # one of `data.proposals.METHODS`
    seed: int
    limit: int | None = None  # images
    max_side: int | None = None  # pixels: larger images are shrunk for the search


def propose_windows(config: ProposeConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write `boxes/<id>.npy` (see `data.proposals`), and `index.csv` with the number of windows of each image.

    The processes of torchrun share the images, and so do the `workers` of each; the result does not depend on their
    numbers.  Resumes with the images that are missing.  An unreadable image gets a warning and no windows.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit)
    boxes = folder / BOXES
    boxes.mkdir(exist_ok=True)
    here = world()
    jobs = [
        (
            replace(dataset, ids=()),  # small: it goes to another process
            i,
            boxes / f"{i}.npy",
            config.method,
            image_seed(config.seed, i),
            config.max_side,
        )
        for i in dataset.ids[here.rank :: here.size]
        if not (boxes / f"{i}.npy").is_file()
    ]
    problems = []
    for problem in track(_run(jobs, how.workers), f"proposals of {config.split}", len(jobs)):
        if problem:
            warn(problem)
            problems.append(problem)
    for others in gather(problems)[1:]:
        for problem in others:
            warn(problem)
    if here.first:
        _write_index(folder, dataset.ids)


def propose_cost(config: ProposeConfig, images: int, size: tuple[int, int], workers: int) -> Cost:
    """Cost of the search, which takes one thread per worker."""
    files = {f"{BOXES}/ ({images} files)": images * 16 * _TYPICAL_WINDOWS, INDEX_FILE: images * 20}
    quicker = 4.0 if config.method == "edgeboxes" else 0.5 if config.method == "ss-paper" else 1.0
    return Cost(images * size[0] * size[1] * SEARCH_SECONDS / quicker / max(workers, 1), files)


_Job = tuple[VocDetection, str, Path, str, int, int | None]


def _run(jobs: list[_Job], workers: int) -> Iterator[str | None]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_propose_one, jobs)
        return
    # Processes, since OpenCV's random state is one per process.
    pool = worker_pool(min(workers, len(jobs)), start_worker)
    try:
        yield from pool.map(_propose_one, jobs, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _propose_one(job: _Job) -> str | None:
    dataset, image_id, target, method, seed, max_side = job
    try:
        boxes, problem = propose(dataset.image(image_id), method, seed, max_side), None
    except DataError as error:
        boxes, problem = np.empty((0, 4), dtype=np.float32), f"no proposals: {error}"
    write_boxes(target, boxes)
    return problem


@dataclass(frozen=True)
class ImportBoxesConfig:
    """`--proposals FILE.mat`."""

    split: str
    limit: int | None = None  # images


def find_mat(given: Path, split: str) -> Path | None:
    """The .mat file of a split: `given` itself, or `*_<split>.mat` in that folder; None for anything else.

    Raises `DataError` for a folder of .mat files without one for this split.
    """
    if given.suffix == ".mat":
        return given
    if not given.is_dir() or not (files := visible(given, "*.mat")):
        return None
    of_split = [path for path in files if path.stem.endswith(f"_{split}")]
    if len(of_split) != 1:
        raise DataError(
            f"{given}: {len(of_split)} files are called *_{split}.mat; it must hold one, as voc_2007_{split}.mat"
        )
    return of_split[0]


def import_windows(config: ImportBoxesConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Write the authors' precomputed windows of a split, in the order of their `.mat` file.

    Raises `DataError` if the file lacks an image of the split.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit)
    boxes = load_mat_boxes(inputs["mat"])
    missing = [image_id for image_id in dataset.ids if image_id not in boxes]
    if missing:
        more = f" and {len(missing) - 1} more images" * (len(missing) > 1)
        raise DataError(
            f"{inputs['mat']}: has no windows of {missing[0]}{more} of {config.split}; give the file of that split, or "
            "the folder that holds voc_2007_trainval.mat and voc_2007_test.mat"
        )
    (folder / BOXES).mkdir(exist_ok=True)
    for image_id in dataset.ids:
        write_boxes(folder / BOXES / f"{image_id}.npy", boxes[image_id])
    _write_index(folder, dataset.ids)


def import_cost(images: int) -> Cost:
    """Cost: seconds."""
    files = {f"{BOXES}/ ({images} files)": images * 16 * _TYPICAL_WINDOWS, INDEX_FILE: images * 20}
    return Cost(images * 2e-3, files)


@dataclass(frozen=True)
class JoinConfig:
    """`--proposals A+B`."""

    split: str
    limit: int | None = None  # images


def join_windows(config: JoinConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Write the windows of several methods together; the journal edition trains on selective search and EdgeBoxes.

    The inputs are `data` and the methods' runs, in the order in which their windows follow (`join_boxes`).  Raises
    `DataError` where one of them lacks an image.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit)
    sources = [path for name, path in inputs.items() if name != "data"]
    (folder / BOXES).mkdir(exist_ok=True)
    for image_id in dataset.ids:
        file = f"{image_id}.npy"
        write_boxes(
            folder / BOXES / file, join_boxes([read_boxes(source / BOXES / file) for source in sources])
        )
    _write_index(folder, dataset.ids)


def _write_index(folder: Path, ids: Iterable[str]) -> None:
    with (
        atomic_path(folder / INDEX_FILE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "windows"))
        writer.writerows((i, len(read_boxes(folder / BOXES / f"{i}.npy"))) for i in ids)
