"""`sppnet evaluate`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.cli.options import PATH, option, say, shared, show_plan
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.view_names import VIEWS

if TYPE_CHECKING:
    from sppnet_cli.stages.classify import AccuracyScore, MapScore
    from sppnet_cli.stages.evaluate import DetectionScore
    from sppnet_cli.stages.plan import Step
    from sppnet_cli.stages.workspace import Workspace


@click.command("evaluate", short_help="Score detections, or a network's classification.")
@option(
    "--detections",
    type=PATH,
    help="detections.csv of `sppnet detect`, its run, or a folder of comp4_det_<split>_<class>.txt of any detector.",
)
@option("--report", type=PATH, metavar="DIR", help="Write precision-recall curves of --detections there.")
@option("--classifier", type=PATH, help="Run of `sppnet train-svm --task classification`.")
@option(
    "--network",
    type=PATH,
    help="Run of `sppnet pretrain`: its error on images in ImageNet's layout; or the --classifier's, if moved.",
)
@option(
    "--views",
    type=click.Choice(VIEWS),
    default="10",
    help="Views of an image that is classified; central: of its middle square; maps: pooled from feature maps.",
)
@option("--split", default="test", help="List of ImageSets/Main, for --detections and a --classifier.")
@shared
def command(
    ws: "Workspace",
    *,
    detections: Path | None,
    report: Path | None,
    classifier: Path | None,
    network: Path | None,
    views: str,
    split: str,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Average precision of --detections (VOC 2007, 11-point), or the top-1 and top-5 error of a --network.

    Detections are scored on the lists and annotations of --data; its images need not be there.

    Of a --classifier: average precision of ranking images (VOC 2007), or accuracy over the splits (Caltech101).

    --arch and --weights without a --network: the error of that classifier of torchvision.
    """
    given = [source for source in (detections, classifier or network) if source is not None]
    if len(given) > 1 or (not given and ws.weights is None):
        raise UsageError("give --detections, --classifier or --network, one of them, or --arch and --weights")
    if report is not None and detections is None:
        raise UsageError("--report is about detections: give --detections with it")
    if detections is not None:
        from sppnet_cli.stages.evaluate import evaluate_detections
        from sppnet_cli.stages.plan import voc_steps
        from sppnet_cli.stages.report import require_report_folder

        if not detections.exists():
            raise DataError(f"{detections}: no such file or folder; make detections with `sppnet detect`")
        if report is not None:
            require_report_folder(report)
        if dry_run:
            writes = "writes nothing else" if report is None else f"writes a report to {report}"
            console.status(f"would score {detections} on {split} of {_source(ws.data)}, in seconds; {writes}")
            _show_steps(ws, voc_steps(ws), as_json)
            return
        score = evaluate_detections(detections, ws.voc_data(), split, ws.detection_limit(split), report)
        show_detection_score(score)
        if report is not None:
            console.status(
                f"written to {report}: ap.csv, errors.csv, precision_recall.csv and precision_recall.png"
            )
        result = score.as_dict()
    elif classifier is not None:
        from sppnet_cli.stages import transfer
        from sppnet_cli.stages.classify import MapScore

        ws = replace(ws, network_run=network)
        if dry_run:
            from sppnet_cli.stages.plan import extract_steps

            console.status(f"would extract the features that {classifier} takes, then test it in seconds")
            ws, svms, extract = transfer.prepare_score(ws, classifier)
            _show_steps(ws, extract_steps(ws, extract, svms.dataset, split, (), None), as_json)
            return
        found = transfer.score(ws, classifier, split)
        if isinstance(found, MapScore):
            show_detection_score(found)
        else:
            show_accuracy(found)
        result = found.as_dict()
    else:
        from sppnet_cli.network.classifiers import require_classifier
        from sppnet_cli.network.weights import load_spec
        from sppnet_cli.stages.evaluate import evaluate_classifier, evaluate_network
        from sppnet_cli.stages.plan import imagenet_steps

        if network is None:
            require_classifier(ws.profile.arch)
        else:
            load_spec(network)  # before any data are made
        ws = replace(ws, data=None, imagenet=ws.data)
        if ws.imagenet is None and (network is None or ws.profile.data is None):
            raise UsageError(
                f"no images to classify: give --data, a folder in ImageNet's layout of the classes that "
                f"{network or ws.profile.arch} knows"
            )
        if dry_run:
            console.status(
                f"would classify the images of {_source(ws.imagenet)} by {network or ws.profile.arch}; "
                "writes nothing else"
            )
            _show_steps(ws, imagenet_steps(ws), as_json)
            return
        how: Any = {"device": ws.device, "limit": ws.limit, "workers": ws.workers}
        if network is not None:
            errors = evaluate_network(network, ws.imagenet_data(), views, **how)
        else:
            assert ws.weights is not None
            errors = evaluate_classifier(ws.profile.arch, ws.weights, ws.imagenet_data(), views, **how)
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


def _source(given: Path | None) -> str:
    return "the embedded data" if given is None else str(given)


def _show_steps(ws: "Workspace", steps: "list[Step]", as_json: bool) -> None:
    """What `--dry-run` has to say of stages; nothing where there are none, but for `--json`."""
    if steps or as_json:
        show_plan(steps, ws, as_json)


def show_detection_score(score: "DetectionScore | MapScore", skipped: int = 0) -> None:
    """Print the APs as a table, which says how many images were skipped."""
    aps = {**score.ap, "mAP": score.mean_ap}
    rows = [(name, "" if math.isnan(ap) else f"{100 * ap:.1f}") for name, ap in aps.items()]
    without = f", {skipped} of them skipped" if skipped else ""
    console.table(f"AP (%), {score.images} images{without}", ["class", "AP"], rows)


def show_accuracy(score: "AccuracyScore") -> None:
    """Print accuracy and its deviation as a table."""
    deviation = "" if math.isnan(score.deviation) else f"{100 * score.deviation:.2f}"
    console.table(
        f"Accuracy (%), {len(score.outcome.right)} splits of {score.outcome.images} images",
        ["accuracy", "deviation"],
        [(f"{100 * score.accuracy:.2f}", deviation)],
    )
