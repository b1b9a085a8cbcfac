"""`sppnet extract-features`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import PATH, option, say, shared
from sppnet_cli.cli.plan import make_or_show
from sppnet_cli.errors import UsageError
from sppnet_cli.names import IMAGE_LAYERS, IMAGE_VIEWS

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace

view_option = option(
    "--view",
    type=click.Choice(IMAGE_VIEWS),
    default="full",
    help="Use the whole image, its 224x224 centre, or the image warped to a square.",
)
size_option = option(
    "--size",
    type=click.IntRange(min=64, max=4096),
    metavar="PIXELS",
    default=224,
    help="Resize the short side of the image to this; with --view warp, both sides.",
)
dataset_option = option(
    "--dataset",
    type=click.Choice(["voc", "caltech101"]),
    help="Which of the embedded data sets.  [default: voc]",
)


@click.command("extract-features", short_help="Extract features of whole images.")
@click.argument("images", nargs=-1, type=PATH)
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: trained first, on 224 and 180 px]")
@option(
    "--layer",
    default="SPP pool5",
    metavar="LAYER[,LAYER]",
    help=f"Layers, from {', '.join(IMAGE_LAYERS)}; pool5 is the 6x6 level.  Several layers take one pass.",
)
@view_option
@size_option
@dataset_option
@option("--split", default="trainval", metavar="NAME", help="Image list of a VOC set (in ImageSets/Main).")
@shared
def command(
    ws: "Workspace",
    *,
    images: tuple[Path, ...],
    network: Path | None,
    layer: str,
    view: str,
    size: int,
    dataset: str | None,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Extract features of IMAGES (files or folders), of a VOC split, of Caltech101, or of a folder of images (--data).

    Writes one .npy file per layer, with a row per image, not normalised; and index.csv.  --limit applies to these images,
    not to those that a network is first trained on.

    \b
      sppnet extract-features --layer conv4,conv5,fc7 --view crop --data VOCdevkit --split test
    """
    from sppnet_cli.cli.datasets import choose_dataset
    from sppnet_cli.data.images import find_images
    from sppnet_cli.features.store import layer_file
    from sppnet_cli.stages.extract_features import read_index
    from sppnet_cli.stages.workspace import Column

    if images and (ws.data is not None or dataset is not None):
        raise UsageError("give IMAGES, or a data set with --data or --dataset")
    layers = tuple(part.strip() for part in layer.split(","))
    ws, kind = choose_dataset(replace(ws, network_run=network), dataset)
    column = Column("spp6", view, size)
    if images or kind is None:
        paths = find_images(images or [ws.data or Path()])[: ws.limit]
        stage = ws.features(column, layers, None, paths)
    else:
        stage = ws.features(column, layers, ws.image_set(kind, split))
    stage = stage.at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is None:
        return
    files = {name: folder / layer_file(name) for name in layers}
    say(
        as_json,
        {"features": files, "index": folder / "index.csv", "n": len(read_index(folder))},
        *(f"features: {path}" for path in files.values()),
    )
