"""Stage: window proposals of the images of a VOC split, a file per image."""

import csv
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sppnet_cli.atomic import atomic_path
from sppnet_cli.console import track, warn
from sppnet_cli.data.proposals import image_seed, propose, read_boxes, start_worker, write_boxes
from sppnet_cli.data.voc import VocDetection, load_voc
from sppnet_cli.distributed import gather, world
from sppnet_cli.errors import DataError
from sppnet_cli.runs import fingerprint, run_stage


@dataclass(frozen=True)
class ProposeConfig:
    """`sppnet propose`."""

    split: str
    method: str  # one of `data.proposals.METHODS`
    seed: int
    limit: int | None = None  # images
    max_side: int | None = None  # pixels: larger images are shrunk for the search


def propose_stage(config: ProposeConfig, data: Path, out: Path, *, workers: int) -> Path:
    """`boxes/<id>.npy` (see `data.proposals`) and `index.csv` with the count of each image.

    Images are shared among processes (of torchrun, and `workers` of each) and the result does not depend on how
    many; a stage that was cut off goes on with the images that are missing.  An unreadable image is warned of and
    gets no windows.
    """
    dataset = load_voc(data, config.split, config.limit)

    def build(folder: Path) -> None:
        boxes = folder / "boxes"
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
        for problem in track(_run(jobs, workers), f"proposals of {config.split}", len(jobs)):
            if problem:
                warn(problem)
                problems.append(problem)
        for others in gather(problems)[1:]:
            for problem in others:
                warn(problem)
        if here.first:
            with atomic_path(folder / "index.csv") as temporary, temporary.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("image", "windows"))
                writer.writerows((i, len(read_boxes(boxes / f"{i}.npy"))) for i in dataset.ids)

    inputs = {"data": fingerprint(dataset.root)}
    return run_stage(out, "propose", config, inputs, build, together=True)


_Job = tuple[VocDetection, str, Path, str, int, int | None]


def _run(jobs: list[_Job], workers: int) -> Iterator[str | None]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_propose_one, jobs)
        return
    # Processes, since OpenCV's random state is one per process; spawned, since torch's threads do not fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=start_worker)
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
