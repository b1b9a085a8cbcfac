"""Benchmark of pre-training: images per second, fed by the loader or from tensors in memory."""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sppnet_cli.benchmark.images import FC, drawn_image
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.data.imagenet import ImageFolder, load_image_folder
from sppnet_cli.data.images import write_image
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.limits import float32_everywhere, gemm_gflops, machine
from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.learning.crops import Crops, load_short_side
from sppnet_cli.learning.pretrain import Recipe, Tally, Trainer, at_size, training_step
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.precision import Precision, require
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

SIZES = (CROP, 180)  # multi-size training's
_CLASSES = 1000
_DRAWN = 256  # different photographs at most


@dataclass(frozen=True)
class PretrainSpeed:
    """Settings."""

    batch: int = 32
    batches: int = 2  # of an epoch
    width: float = 1.0  # factor of the filter numbers
    fc: int = FC  # outputs of fc6 and fc7
    repeats: int = 3
    seed: int = 0
    precision: Precision = "fp32"  # bf16: mixed, by torch's autocast
    workers: int = 0  # processes that decode files


def benchmark_pretrain(config: PretrainSpeed, *, data: Path | None = None, device: str = "cpu") -> Benchmark:
    """Time epochs of ZF-5 at 224 and at 224 and 180 px, the same steps on tensors, and the decoding of the files.

    The steps on tensors show what training costs without the loader's crops, flips and colours.  The set is decoded once,
    beforehand; `from_files` decodes every image again, in `workers` processes that it starts first, and `decoding` is
    timed alone, in as many threads as torch uses.

    Args:
        config: how much is measured.
        data: a folder in ImageNet's layout; without it, drawn photographs of 375x500.
        device: where the network trains.

    Raises:
        DataError: `data` has too few images.
    """
    dtype = require(config.precision, device)
    count = config.batch * config.batches
    with tempfile.TemporaryDirectory() as scratch:
        folder = _drawn(Path(scratch), count, config.seed) if data is None else _given(data, count)
        network = SPPNet(NetworkSpec("zf5", config.width, fc=config.fc, classes=_CLASSES))
        recipe = Recipe(
            SIZES, len(SIZES), config.batch, 1e-4, "steps", "he", None, amp=dtype != torch.float32
        )
        trainer = Trainer(network, recipe, config.seed, device)
        crops, files = Crops(folder, config.seed, in_memory=True), Crops(folder, config.seed, in_memory=False)
        pixels = torch.stack([crops[0, k][0] for k in range(config.batch)]).float().to(device)
        labels = torch.from_numpy(folder.labels[: config.batch]).to(device)

        def epochs(*numbers: int, of: Crops = crops) -> None:
            for number in numbers:
                trainer.epoch(of, number, config.workers)

        def steps(*sizes: int) -> None:
            tally = Tally(torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device))
            for size in sizes:
                for _ in range(config.batches):
                    resized = at_size(pixels, size)
                    training_step(
                        network, trainer.optimizer, resized, labels, clip=None, amp=recipe.amp, tally=tally
                    )

        with ThreadPoolExecutor(torch.get_num_threads()) as threads, float32_everywhere():
            sides: dict[str, Callable[[], object]] = {
                "single_size": lambda: epochs(0),
                "multi_size": lambda: epochs(0, 1),
                "from_files": lambda: epochs(0, of=files),
                "tensors_in_memory": lambda: steps(CROP),
                "tensors_in_memory_multi_size": lambda: steps(*SIZES),
                "decoding": lambda: list(threads.map(load_short_side, folder.paths)),
            }
            gemm = gemm_gflops(device, dtype=dtype)
            seconds = take_turns(sides, config.repeats, device)
    work = {size: 3 * flops(network, (1, 3, size, size)) for size in SIZES}
    columns: dict[str, dict[str, float]] = {}
    for name, of_call in seconds.items():
        sizes = SIZES if name.endswith("multi_size") else SIZES[:1]
        columns[name] = {"images_per_second": len(sizes) * count / of_call}
        if name != "decoding":
            speed = count * sum(work[size] for size in sizes) / of_call / 1e9
            columns[name] |= {"gflops_per_second": speed, "share_of_gemm": speed / gemm}
    for fed, tensors in (
        ("single_size", "tensors_in_memory"),
        ("from_files", "tensors_in_memory"),
        ("multi_size", "tensors_in_memory_multi_size"),
    ):
        rate, most = columns[fed]["images_per_second"], columns[tensors]["images_per_second"]
        columns[fed]["share_of_tensors"] = rate / most
    record = columns | {
        "gemm_gflops": gemm,
        "precision": str(dtype).removeprefix("torch."),
        "workers": config.workers,
        "threads": torch.get_num_threads(),
        "device": device,
        "images": count,
        "batch": config.batch,
        "width": config.width,
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": machine(device),
    }
    table = pd.DataFrame([{"side": name, **column} for name, column in columns.items()])
    note = (
        f"Steps of {config.batch} images of ZF-5 at {config.width:g} times its width; the images were decoded "
        f"beforehand, apart from `from_files`, where {config.workers} processes decode them.  A step counts as three times its forward pass."
    )
    return Benchmark("pretrain", record, table, note)


def _drawn(folder: Path, count: int, seed: int) -> ImageFolder:
    """Drawn photographs as JPEG files of one class; beyond `_DRAWN` the first ones come again."""
    (folder / "drawn").mkdir()
    for index in range(min(count, _DRAWN)):
        write_image(folder / "drawn" / f"{index:04}.jpg", drawn_image(seed, index))
    once = load_image_folder(folder)
    again = np.arange(count) % len(once)
    return ImageFolder(tuple(once.paths[k] for k in again), once.labels[again], once.class_names)


def _given(data: Path, count: int) -> ImageFolder:
    folder = load_image_folder(data / "train" if (data / "train").is_dir() else data, count)
    if len(folder) < count:
        raise DataError(f"{data}: {len(folder)} images are fewer than {count}; give a smaller --batch")
    return folder
