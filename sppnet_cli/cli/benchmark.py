"""`sppnet benchmark`."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.cli.options import (
    PATH,
    FiniteRange,
    count_option,
    find_device,
    json_option,
    option,
    quiet_option,
    say,
)
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.benchmark.result import Benchmark
    from sppnet_cli.network.precision import Precision


_WIDEST = 9  # columns that fit on a terminal; wider tables are printed transposed


@click.group("benchmark", short_help="Compare our speed with others' and with the machine's limits.")
def command() -> None:
    """Compare our speed with others' and with this machine's limits, in one run.

    Each benchmark prints a table and writes it as CSV and JSON, some also a PNG.  Where times are compared, the sides take
    turns, and of --repeats runs the median counts.
    """


def _subject(
    name: str, help_: str, repeated: bool = True
) -> Callable[[Callable[..., "Benchmark"]], click.Command]:
    """Make a subcommand of a function that measures: add the shared options, print and write its result."""
    repeats = count_option(
        "--repeats", default=5 if name == "pooling" else 3, help="Measurements of each side."
    )
    options = [
        *([repeats] if repeated else []),
        count_option("--seed", least=0, default=0, help="Random seed."),
        option("--out", type=PATH, default=Path("results/benchmark"), help="Folder for the results."),
        json_option,
        quiet_option,
    ]

    def decorate(measure: Callable[..., "Benchmark"]) -> click.Command:
        @functools.wraps(measure)
        def run(*, out: Path, as_json: bool, quiet: bool, **given: Any) -> None:
            from sppnet_cli.benchmark.result import write_benchmark

            console.configure(quiet=quiet, json=as_json)
            result = measure(**given)
            paths = write_benchmark(result, out)
            table = result.table
            if len(table.columns) > _WIDEST:
                table = table.set_index(table.columns[0]).T.reset_index(names="")
            rows = table.map(_shown).to_numpy().tolist()
            console.table(f"benchmark {result.name}", list(table.columns), rows)
            say(as_json, result.record, result.note, f"written to {', '.join(map(str, paths))}")

        for add in reversed(options):
            run = add(run)
        return command.command(name, short_help=help_)(run)

    return decorate


_device = option(
    "--device", default="auto", metavar="auto|cpu|cuda[:N]|mps", help="Device that all sides run on."
)
_network = option(
    "--network", type=PATH, help="Run of `sppnet pretrain`.  [default: a full-width ZF-5 with random weights]"
)
_precision = option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Precision on all sides."
)
_windows = count_option("--windows", default=2000, help="Windows on each image.")


def _images(default: int) -> Callable[[Any], Any]:
    return count_option("--images", default=default, help="Images on each side.")


_data = option(
    "--data",
    type=PATH,
    help="VOC folder (its test images) or a folder of images.  [default: drawn images of 375x500]",
)


@_subject("pooling", "Window pooling against roi_pool and the write limit.")
@_windows
@_precision
@_device
def pooling(*, windows: int, precision: "Precision", device: str, repeats: int, seed: int) -> "Benchmark":
    """Window pooling against torchvision's roi_pool, and against just writing as many bytes.

    The map is that of a full-width ZF-5 for a photograph at 688 px, 43x58x256; the windows are selective search's.
    """
    from sppnet_cli.benchmark.pooling import PoolingConfig, benchmark_pooling

    config = PoolingConfig(windows=windows, repeats=repeats, seed=seed, precision=precision)
    return benchmark_pooling(config, find_device(device))


@_subject("detect", "SPP-net's features of windows against R-CNN's.")
@_data
@_images(1)
@_network
@_windows
@option(
    "--rcnn-windows",
    default="128",
    metavar="N|all",
    help="Windows that R-CNN is measured on; its time is scaled up to all windows.",
)
@_precision
@_device
def detect(
    *,
    data: Path | None,
    images: int,
    network: Path | None,
    windows: int,
    rcnn_windows: str,
    precision: "Precision",
    device: str,
    repeats: int,
    seed: int,
) -> "Benchmark":
    """SPP-net at one and five scales against R-CNN, with the same weights, precision, threads, images and windows.

    Each is measured exact and with `sppnet detect --fast`; fast R-CNN has the same low-rank fc layers.

    Reports seconds per image for conv, pool and fc, whose sum is the paper's total, and beside them for heads (SVM scores,
    NMS, box regression) and proposals.
    """
    from sppnet_cli.benchmark.detect import DetectSpeed, benchmark_detect

    config = DetectSpeed(images, windows, _count(rcnn_windows), repeats, seed, precision)
    return benchmark_detect(config, data=data, network=network, device=find_device(device))


@_subject("photos", "Photographs from the file to the picture, by part.")
@_data
@_images(8)
@option("--detector", type=PATH, help="Detector.  [default: a full-width ZF-5 at 1 scale, random weights]")
@count_option(
    "--workers",
    least=0,
    default=os.cpu_count() or 1,
    help="Processes that read and propose where images overlap.",
)
@_device
def photos(
    *,
    data: Path | None,
    images: int,
    detector: Path | None,
    workers: int,
    device: str,
    repeats: int,
    seed: int,
) -> "Benchmark":
    """Seconds of a photograph for reading, proposals, features, scores, NMS and drawing; selective search and EdgeBoxes.

    Each exact and with `sppnet detect --fast`; one image alone, by part, and many that overlap.
    """
    from sppnet_cli.benchmark.photos import PhotoSpeed, benchmark_photos

    config = PhotoSpeed(images, workers, repeats, seed)
    return benchmark_photos(config, data=data, detector=detector, device=find_device(device))


@_subject("stages", "Each stage of Table 6: seconds, share of the limit.", repeated=False)
@count_option("--epochs", default=1, help="Epochs of pre-training.")
@count_option("--batches", default=200, help="Batches of fine-tuning.")
@count_option("--images", default=24, help="Images that detectors are trained on; half as many are tested.")
@_device
def stages(*, epochs: int, batches: int, images: int, device: str, seed: int) -> "Benchmark":
    """Make the stages of Table 6 on a part of mini, one after another, in a folder that is removed again.

    Each stage's operations over its seconds are compared with the speed of a matrix product in as many threads.
    """
    from sppnet_cli.benchmark.stages import StagesSpeed, benchmark_stages
    from sppnet_cli.cli.reproduce import experiment_module

    config = StagesSpeed(epochs, batches, images, seed)
    table6 = experiment_module("table6").table6
    return benchmark_stages(config, lambda ws: next(table6(ws)), device=find_device(device))


@_subject("pretrain", "Images per second of single- and multi-size training.")
@option("--data", type=PATH, help="Folder in ImageNet's layout.  [default: drawn images of 375x500]")
@count_option("--batch", default=32, help="Images in a training step.")
@count_option("--batches", default=2, help="Steps of an epoch.")
@option(
    "--width",
    type=FiniteRange(min=0, min_open=True),
    metavar="FACTOR",
    default=1.0,
    help="Factor on the numbers of filters.",
)
@count_option(
    "--workers",
    least=0,
    default=os.cpu_count() or 1,
    help="Processes that decode files; 0: the training's own.",
)
@_precision
@_device
def pretrain(
    *,
    data: Path | None,
    batch: int,
    batches: int,
    width: float,
    workers: int,
    precision: "Precision",
    device: str,
    repeats: int,
    seed: int,
) -> "Benchmark":
    """Images per second of ZF-5's training: single-size, multi-size, from files, and on tensors that are already in memory."""
    from sppnet_cli.benchmark.pretrain import PretrainSpeed, benchmark_pretrain

    config = PretrainSpeed(
        batch, batches, width, repeats=repeats, seed=seed, precision=precision, workers=workers
    )
    return benchmark_pretrain(config, data=data, device=find_device(device))


@_subject("extract", "Images per second of whole-image features.")
@_data
@_images(16)
@_network
@_device
def extract(
    *, data: Path | None, images: int, network: Path | None, device: str, repeats: int, seed: int
) -> "Benchmark":
    """Images per second to SPP pool5, fc6 and fc7: image by image and, for crops, also in a batch."""
    from sppnet_cli.benchmark.extract import ExtractSpeed, benchmark_extract

    config = ExtractSpeed(images, repeats, seed)
    return benchmark_extract(config, data=data, network=network, device=find_device(device))


@_subject("svm", "SVM training against scikit-learn's.")
@count_option("--windows", least=40, default=4000, help="Windows that the SVM of a class is trained on.")
@count_option("--images", least=40, default=1000, help="Images that an image classifier is trained on.")
def svm(*, windows: int, images: int, repeats: int, seed: int) -> "Benchmark":
    """Train the SVMs of a detector and of an image classifier, ours against scikit-learn's LinearSVC, on features like fc7."""
    from sppnet_cli.benchmark.svm import SvmSpeed, benchmark_svm

    return benchmark_svm(SvmSpeed(windows=windows, images=images, repeats=repeats, seed=seed))


@_subject("scaling", "Cost by windows, scales, image size and threads.")
@_network
@count_option("--windows", default=1000, help="Largest number of windows.")
@_device
def scaling(*, network: Path | None, windows: int, device: str, repeats: int, seed: int) -> "Benchmark":
    """Cost of an image by number of windows, number of scales, number of threads, and size."""
    from sppnet_cli.benchmark.scaling import ScalingConfig, benchmark_scaling

    config = ScalingConfig(windows=windows, repeats=repeats, seed=seed)
    return benchmark_scaling(config, network=network, device=find_device(device))


@_subject("neighbours", "Training in one thread and in all, beside busy processes.")
@count_option("--batch", default=16, help="Images in a training step.")
def neighbours(*, batch: int, repeats: int, seed: int) -> "Benchmark":
    """Train mini's network in one thread and in as many as there are cores, alone and beside a busy process a core."""
    from sppnet_cli.benchmark.neighbours import NeighbourSpeed, benchmark_neighbours

    return benchmark_neighbours(NeighbourSpeed(batch, repeats=repeats, seed=seed))


@_subject("train", "`sppnet train` against Faster R-CNN for the same time.", repeated=False)
@option("--data", type=PATH, required=True, help="VOC set, such as `sppnet data import` writes.")
@option(
    "--arch",
    metavar="NAME",
    default="squeezenet1_1",
    help="Trunk of both sides: a torchvision classifier or timm/NAME.",
)
@option("--weights", metavar="FILE|DEFAULT", default="DEFAULT", help="Its ImageNet weights.")
def train(*, data: Path, arch: str, weights: str, seed: int) -> "Benchmark":
    """`sppnet train` against torchvision's Faster R-CNN on the same trunk, weights, images and cores: both mAPs.

    Faster R-CNN trains for one, two and four times the processor time that `sppnet train` takes: six times as long in
    all, and the tests.
    """
    from sppnet_cli.benchmark.train import TrainSpeed, benchmark_train

    return benchmark_train(TrainSpeed(arch, weights, seed=seed), data)


def _count(text: str) -> int | None:
    """A number of windows, None for all."""
    if text == "all":
        return None
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"--rcnn-windows {text}: write a number of windows or all")
    return int(text)


def _shown(value: object) -> str:
    """A cell of the printed table: four digits of a number, nothing for NaN."""
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}"
