"""`sppnet extract-features`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import PATH, option, say, shared, show_plan

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.command("extract-features", short_help="Features of whole images.")
@click.argument("images", nargs=-1, type=PATH)
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: trained first]")
@option(
    "--layer",
    type=click.Choice(["pool5", "SPP pool5", "fc6", "fc7"]),
    default="SPP pool5",
    help="pool5: the 6x6 level.",
)
@option(
    "--view",
    type=click.Choice(["full", "crop"]),
    default="full",
    help="The whole image or its 224x224 centre.",
)
@option("--size", type=click.IntRange(min=64), default=224, help="Short side in pixels.")
@option("--split", default="trainval", help="List of ImageSets/Main, when no IMAGES are given.")
@shared
def command(
    ws: "Workspace",
    *,
    images: tuple[Path, ...],
    network: Path | None,
    layer: str,
    view: str,
    size: int,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Features of IMAGES (files or folders) or of a VOC split: features.npy, a row per image, and index.csv."""
    from sppnet_cli.data.images import find_images
    from sppnet_cli.data.voc import load_voc
    from sppnet_cli.stages.extract import ExtractConfig, extract_stage
    from sppnet_cli.stages.plan import extract_steps

    ws = replace(ws, network_run=network)
    folder = out or ws.runs / f"features-{layer.replace(' ', '-')}-{view}-{size}"
    config = ExtractConfig(layer, view, size)
    if dry_run:
        show_plan(
            extract_steps(ws, len(find_images(images)) if images else None, split, layer, size, folder),
            ws,
            as_json,
        )
        return
    if images:
        paths = find_images(images)[: ws.limit]
    else:
        dataset = load_voc(ws.voc_data(), split, ws.limit)
        paths = [dataset.image_path(image_id) for image_id in dataset.ids]
    folder = extract_stage(config, ws.network(), paths, folder)
    say(
        as_json,
        {"features": folder / "features.npy", "index": folder / "index.csv", "n": len(paths)},
        f"features: {folder}/features.npy",
    )
