"""`sppnet visualize`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli.cli.options import PATH, FiniteRange, option, say, shared, show_plan
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
    help="Run of `sppnet detect` on a data set.  [default: the mini one of ftfc7 bb, made first]",
)
@option("--split", default="test", help="List of ImageSets/Main that they were made on.")
@option("--count", type=click.IntRange(min=1), default=24, help="Images, evenly over the list.")
@option("--min-score", type=FiniteRange(), default=0.0, help="Draw what scores above.")
@option("--truth", is_flag=True, help="Draw the ground truth too, dashed.")
@shared
def detections(
    ws: "Workspace",
    *,
    images: tuple[str, ...],
    detections: Path | None,
    split: str,
    count: int,
    min_score: float,
    truth: bool,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw detections in the IMAGES of these names (such as 000001) or in some of the data set: Figure 6.

    Writes a JPEG per image and contact-sheet.jpg.

    \b
      sppnet visualize detections --detections RUN --data VOCdevkit --truth 000001 000004
    """
    from sppnet_cli.stages.plan import Step, detection_steps
    from sppnet_cli.stages.visualize import SHEET_FILE, DetectionPictures, picture_detections

    made = ("spp", ws.protocol.scales, "ftfc7 bb")
    if detections is None and (ws.data is not None or split != "test"):
        raise DataError(
            "no detections of your own data: make them with `sppnet detect`, name them with --detections"
        )
    folder = out or ws.runs / f"pictures-{(detections or ws.detections_folder(*made)).name}"
    config = DetectionPictures(split, count, min_score, truth)
    if dry_run:
        number = len(images) or count
        files = {f"pictures ({number} files)": 150_000 * number, SHEET_FILE: 40_000 * number}
        steps = detection_steps(ws, *made, "detect") if detections is None else []
        show_plan([*steps, Step("visualize", folder, files, 0.1 * number)], ws, as_json)
        return
    run = detections or ws.detections(*made)
    pictures = picture_detections(config, run, ws.voc_data(), images, folder)
    say(
        as_json,
        {"out": folder, "contact_sheet": folder / SHEET_FILE, "pictures": pictures},
        f"{len(pictures)} pictures and {SHEET_FILE} in {folder}",
    )


@command.command("conv5", short_help="Draw what the filters of conv5 respond to.")
@click.argument("images", nargs=-1, type=PATH)
@option("--network", type=PATH, help="Run of `sppnet pretrain`.  [default: the profile's, trained first]")
@option("--filters", metavar="K[,K]", help="Numbers from 0.  [default: the 4 strongest of each image]")
@option(
    "--size",
    type=click.IntRange(min=64, max=4096),
    default=392,
    help="Short side of an image that is sent through the network, in pixels.",
)
@option("--count", type=click.IntRange(min=1), default=4, help="Images pictured, evenly over all.")
@option("--split", default="test", help="List of ImageSets/Main of a VOC set.")
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
    """Draw what the filters of conv5 respond to in IMAGES (files or folders) or in a data set: Figure 2.

    All images go through the network; a PNG of each of --count of them has a row per filter: the receptive field of
    its strongest response, its map, and the other images that excite it most.

    \b
      sppnet visualize conv5 --network RUN --data VOCdevkit --limit 500
    """
    from sppnet_cli.stages.transfer import choose_dataset, image_paths, set_name
    from sppnet_cli.stages.visualize import ResponsePictures, picture_responses

    if images and ws.data is not None:
        raise UsageError("give IMAGES, or a data set with --data")
    config = ResponsePictures(size, count, _numbers(filters) if filters else ())
    ws, kind = choose_dataset(replace(ws, network_run=network), None)
    kind = None if images else kind
    unlimited = replace(ws, limit=None)  # the images that a network is trained on first
    folder = out or ws.runs / f"responses-{ws.network_folder('spp6', (224,)).name}-{set_name(kind, split)}"
    if dry_run:
        from sppnet_cli.stages.extract import ExtractConfig
        from sppnet_cli.stages.plan import Step, extract_steps, network_steps

        # The time of all images through the network, from that of squares of 224 px.
        squares = extract_steps(ws, ExtractConfig(("conv5",), "warp", 224), kind, split, images, None)[-1]
        files = {f"pictures ({count} files)": 1_000_000 * count}
        step = Step("visualize", folder, files, squares.seconds * (size / 224) ** 2 + 3.0 * count)
        show_plan([*network_steps(unlimited, "spp6", (224,), None), step], ws, as_json)
        return
    paths = image_paths(ws, kind, split, images)
    pictures = picture_responses(config, unlimited.network(), paths, folder, device=ws.device)
    say(as_json, {"out": folder, "pictures": pictures}, f"{len(pictures)} pictures in {folder}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--filters {text}: write 55 or 55,66") from None
