"""`sppnet evaluate`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, option, say, shared
from sppnet_cli.errors import UsageError

if TYPE_CHECKING:
    from sppnet_cli.stages.evaluate import DetectionScore
    from sppnet_cli.stages.workspace import Workspace


@click.command("evaluate", short_help="Score detections, or a network's classification.")
@option("--detections", type=PATH, help="detections.csv of `sppnet detect`, or its run.")
@option("--network", type=PATH, help="Run of `sppnet pretrain`: its error on images in ImageNet's layout.")
@option(
    "--views",
    type=click.Choice(["10", "1crop", "1full", "8+2full"]),
    default="10",
    help="Views of a --network.",
)
@option("--split", default="test", help="List of ImageSets/Main, for --detections.")
@shared
def command(
    ws: "Workspace",
    *,
    detections: Path | None,
    network: Path | None,
    views: str,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Average precision of --detections (VOC 2007, 11-point), or the top-1 and top-5 error of a --network."""
    if (detections is None) == (network is None):
        raise UsageError("give --detections or --network, one of them")
    if detections is not None:
        from sppnet_cli.stages.evaluate import evaluate_detections

        if dry_run:
            console.status(
                f"would score {detections} on {split} of {ws.voc_data()}, in seconds; writes nothing else"
            )
            return
        score = evaluate_detections(detections, ws.voc_data(), split, ws.limit)
        show_detection_score(score)
        result = score.as_dict()
    else:
        from sppnet_cli.stages.evaluate import evaluate_network

        assert network is not None
        ws = replace(ws, data=None, imagenet=ws.data)
        if dry_run:
            console.status(
                f"would classify the images of {ws.imagenet_data()} by {network}; writes nothing else"
            )
            return
        errors = evaluate_network(network, ws.imagenet_data(), views, device=ws.device, limit=ws.limit)
        console.table(
            f"Error (%), {views} views, {errors.images} images",
            ["top-1", "top-5"],
            [(f"{100 * errors.top1:.2f}", f"{100 * errors.top5:.2f}")],
        )
        result = errors.as_dict()
    if out is not None:
        from sppnet_cli.atomic import write_json

        write_json(out, result)
    say(as_json, result)


def show_detection_score(score: "DetectionScore") -> None:
    """Print the APs as a table."""
    aps = {**score.ap, "mAP": score.mean_ap}
    rows = [(name, "" if math.isnan(ap) else f"{100 * ap:.1f}") for name, ap in aps.items()]
    console.table(f"AP (%), {score.images} images", ["class", "AP"], rows)
