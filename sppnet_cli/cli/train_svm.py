"""`sppnet train-svm`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from sppnet_cli.cli.extract_features import dataset_option, view_option
from sppnet_cli.cli.options import (
    PATH,
    count_option,
    method_option,
    next_command,
    option,
    say,
    scales_of,
    scales_option,
    shared,
)
from sppnet_cli.cli.plan import make, make_or_show
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.names import FC_LAYERS, IMAGE_LAYERS, WINDOW_LAYERS

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

# The layers of each task, and the options that only it takes.
LAYERS = {
    "detection": (*WINDOW_LAYERS, *(f"ft{layer}" for layer in FC_LAYERS)),
    "classification": IMAGE_LAYERS,
}
DEFAULT_LAYER = {"detection": "ftfc7", "classification": "SPP pool5"}
OPTIONS = {"detection": ("method", "scales", "head"), "classification": ("view", "size", "splits", "dataset")}


@click.command("train-svm", short_help="Train the SVMs of a detector or of an image classifier.")
@option("--task", type=click.Choice(list(LAYERS)), default="detection", help="What to train the SVMs for.")
@option(
    "--layer",
    type=click.Choice(list(dict.fromkeys((*LAYERS["classification"], *LAYERS["detection"])))),
    help="Layer of the features; ftfc6 and ftfc7 are fine-tuned.  [default: ftfc7; classification: SPP pool5]",
)
@method_option
@scales_option
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: trained first]")
@option("--head", type=PATH, help="Run of `sppnet finetune`.  [default: trained first]")
@view_option
@option(
    "--size",
    default="224",
    metavar="224|val",
    help="Resize the short side of the image to this many pixels; val: to what is best on VOC's val images after "
    "training on its train images.",
)
@count_option("--splits", help="Random splits of Caltech101; the paper has 10.  [default: the profile's]")
@dataset_option
@shared
def command(
    ws: "Workspace",
    *,
    task: str,
    layer: str | None,
    method: str,
    scales: str,
    network: Path | None,
    head: Path | None,
    view: str,
    size: str,
    splits: int | None,
    dataset: str | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train one linear SVM per class.

    --task detection trains on windows, with hard negative mining, and gives a detector.  --task classification trains on
    whole images of VOC or Caltech101 and gives a classifier for `sppnet evaluate`.

    \b
      sppnet train-svm --layer pool5 --scales 688
      sppnet train-svm --task classification --layer fc7 --view full --size 392 --data VOCdevkit
    """
    layer = layer or DEFAULT_LAYER[task]
    if layer not in LAYERS[task]:
        raise UsageError(f"--layer {layer}: --task {task} takes {', '.join(LAYERS[task])}")
    for other, names in OPTIONS.items():
        for name in names:
            if other != task and _typed(name):
                raise UsageError(f"--{name} goes with --task {other}")
    if task == "detection":
        from sppnet_cli.features.methods import METHODS

        ws = replace(ws, network_run=network, head_run=head)
        sides = () if METHODS[method].per_window else scales_of(scales, ws)
        stage = ws.detector(method, sides, layer).at(out)
        folder = make_or_show(ws, stage, dry_run, as_json)
        if folder is not None:
            then = next_command(ws, "detect", "--detector", folder)
            say(as_json, {"detector": folder}, f"detector: {folder}", then)
        return

    from sppnet_cli.cli.datasets import choose_dataset
    from sppnet_cli.stages.workspace import Column

    ws, kind = choose_dataset(replace(ws, network_run=network), dataset)
    if kind is None:
        raise DataError(f"{ws.data}: neither a VOC devkit nor Caltech101; name one of them with --data")
    if kind == "VOC" and _typed("splits"):
        raise UsageError("--splits goes with Caltech101; VOC has its own lists")
    side = parse_size(size)
    if side is None and kind != "VOC":
        raise UsageError("--size val goes with VOC, which has a val list; give a number")
    if side is None and dry_run:
        raise UsageError("--size val with --dry-run: the size is known afterwards; give a number")
    side = side or choose_size(ws, view, layer)
    drawn = replace(ws.profile.splits, count=splits or ws.profile.splits.count, seed=ws.seed)
    images = ws.image_set(kind, "trainval")
    stage = ws.image_svms(Column("spp6", view, side), layer, images, drawn).at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is None:
        return
    then = next_command(ws, "evaluate", "--classifier", folder)
    say(as_json, {"classifier": folder, "size": side}, f"classifier: {folder}, size {side}", then)


def choose_size(ws: "Workspace", view: str, layer: str) -> int:
    """The short side that is best on VOC's val images after training on its train images (the first of equals).

    The test images are never used.
    """
    from sppnet_cli.stages.workspace import SWEEP, Column

    tried = {
        size: ws.tested_svms(Column("spp6", view, size), layer, "VOC", train="train", test="val")
        for size in SWEEP
    }
    make(ws, *(stage for each in tried.values() for stage in each))
    return max(SWEEP, key=lambda size: tried[size].score().outcome.value())


def parse_size(text: str) -> int | None:
    """Pixels, or None for `val`.  Raises `UsageError` for anything else."""
    if text == "val":
        return None
    if not text.isdecimal() or not 64 <= int(text) <= 4096:
        raise UsageError(f"--size {text}: write val, or pixels from 64 to 4096")
    return int(text)


def _typed(name: str) -> bool:
    """Whether an option was given on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE
