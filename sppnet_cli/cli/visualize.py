"""`sppnet visualize`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import (
    PATH,
    count_option,
    min_confidence_option,
    min_score_option,
    option,
    say,
    shared,
)
from sppnet_cli.cli.plan import make_or_show
from sppnet_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.workspace import Workspace


@click.group("visualize", short_help="Draw detections, or what conv5 responds to.")
def command() -> None:
    """Draw detections (Figure 6), or what the filters of conv5 respond to (Figure 2)."""


@command.command("detections", short_help="Draw detections of a data set.")
@click.argument("images", nargs=-1)
@option(
    "--detections",
    type=PATH,
    help="Run of `sppnet detect` on a data set.  [default: one of ftfc7 bb, made first]",
)
@option("--split", default="test", metavar="NAME", help="Image list (in ImageSets/Main) of the detections.")
@count_option("--count", default=24, help="Images to draw, spread evenly over the list.")
@min_confidence_option
@min_score_option
@option("--truth/--no-truth", default=True, help="Draw the ground truth too, dashed.")
@shared
def detections(
    ws: "Workspace",
    *,
    images: tuple[str, ...],
    detections: Path | None,
    split: str,
    count: int,
    min_confidence: float | None,
    min_score: float | None,
    truth: bool,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw detections as in Figure 6, in the IMAGES named (such as 000001) or in some of the data set.

    Writes a JPEG per image, and contact-sheet.jpg with all of them.

    \b
      sppnet visualize detections --detections RUN --data VOCdevkit 000001 000004
    """
    from sppnet_cli.detection.shown import Shown
    from sppnet_cli.stages.visualize import SHEET_FILE, DetectionPictures

    if detections is None and (ws.data is not None or split != "test"):
        raise DataError(
            "no detections of your own data: make them with `sppnet detect`, name them with --detections"
        )
    config = DetectionPictures(split, images, count, Shown(min_score, min_confidence), truth)
    made = detections or ws.detections("spp", ws.protocol.scales, "ftfc7 bb")
    stage = ws.picture_detections(config, made).at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is None:
        return
    pictures = sorted(set(folder.glob("*.jpg")) - {folder / SHEET_FILE})
    say(
        as_json,
        {"out": folder, "contact_sheet": folder / SHEET_FILE, "pictures": pictures},
        f"{len(pictures)} pictures and {SHEET_FILE} in {folder}",
    )


@command.command("conv5", short_help="Draw what the filters of conv5 respond to.")
@click.argument("images", nargs=-1, type=PATH)
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: the profile's, trained first]")
@option(
    "--filters",
    metavar="K[,K]",
    help="Filters to draw, counted from 0.  [default: the 4 strongest of each image]",
)
@option(
    "--size",
    type=click.IntRange(min=64, max=4096),
    metavar="PIXELS",
    default=392,
    help="Resize the short side of the images to this.",
)
@count_option("--count", default=4, help="Images to draw, spread evenly over all.")
@option("--split", default="test", metavar="NAME", help="Image list of a VOC set (in ImageSets/Main).")
@shared
def conv5(
    ws: "Workspace",
    *,
    images: tuple[Path, ...],
    network: Path | None,
    filters: str | None,
    size: int,
    count: int,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw what the filters of conv5 respond to, as in Figure 2, in IMAGES (files or folders) or in a data set.

    All images go through the network; --count of them are drawn, each as a PNG with a row per filter: the receptive field
    of its strongest response, its map, and the other images with the strongest responses.

    \b
      sppnet visualize conv5 --network RUN --data VOCdevkit --limit 500
    """
    from sppnet_cli.cli.datasets import choose_dataset
    from sppnet_cli.data.images import find_images
    from sppnet_cli.stages.visualize import ResponsePictures

    if images and ws.data is not None:
        raise UsageError("give IMAGES, or a data set with --data")
    ws, kind = choose_dataset(replace(ws, network_run=network), None)
    if images or kind is None:
        paths, chosen = find_images(images or [ws.data or Path()])[: ws.limit], None
    else:
        paths, chosen = [], ws.image_set(kind, split)
    config = ResponsePictures(chosen, size, count, _numbers(filters) if filters else ())
    stage = ws.picture_responses(config, paths).at(out)
    folder = make_or_show(ws, stage, dry_run, as_json)
    if folder is None:
        return
    pictures = sorted(folder.glob("*.png"), key=lambda path: int(path.name.split("-")[0]))
    searched = len(paths) if chosen is None else ws.count(chosen)
    of_all = (
        f" of the {searched} images; --count {searched} pictures all"
        if searched > len(pictures) == count
        else ""
    )
    say(as_json, {"out": folder, "pictures": pictures}, f"{len(pictures)} pictures in {folder}{of_all}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--filters {text}: write 55 or 55,66") from None
