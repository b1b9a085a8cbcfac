"""`sppnet evaluate`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sppnet_cli import console
from sppnet_cli.chain import path_of
from sppnet_cli.cli.options import PATH, make_workspace, option, say, say_spread, shared_unmade
from sppnet_cli.cli.plan import make, show
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.names import VIEWS, caveat

if TYPE_CHECKING:
    from sppnet_cli.chain import Source, Stage
    from sppnet_cli.stages.image_svm import AccuracyScore, MapScore
    from sppnet_cli.stages.score_detections import DetectionScore
    from sppnet_cli.stages.workspace import Workspace


@click.command("evaluate", short_help="Score detections, or a network's classification.")
@option(
    "--detections",
    type=PATH,
    help="Run of `sppnet detect`, its detections.csv, or of any detector COCO results (.json) or a folder of "
    "comp4_det_<split>_<class>.txt.",
)
@option(
    "--report",
    type=PATH,
    metavar="DIR",
    help="Also write APs, precision-recall curves and kinds of errors of --detections to DIR.",
)
@option("--classifier", type=PATH, help="Run of `sppnet train-svm --task classification`.")
@option(
    "--network",
    type=PATH,
    help="Run of `sppnet pretrain`, to measure its error; with --classifier, where the classifier's network is now.",
)
@option(
    "--views",
    type=click.Choice(VIEWS),
    default="10",
    help="Views of each image that a --network classifies.  central: of its central square; maps: pooled from feature "
    "maps.",
)
@option(
    "--split",
    default="test",
    metavar="NAME",
    help="Image list of a VOC set (in ImageSets/Main), for --detections and --classifier.",
)
@shared_unmade
def command(
    described: dict[str, Any],
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
    """Score detections, an image classifier or a network.

    --detections: the average precision of each class (VOC 2007, 11 points).  --data needs the annotations, not the images.

    --classifier: the average precision of ranking images (VOC 2007), or the accuracy over the splits (Caltech101).

    --network: the top-1 and top-5 error on images in ImageNet's layout.  --arch and --weights without --network: the same
    of a torchvision classifier.
    """
    given = [source for source in (detections, classifier or network) if source is not None]
    if len(given) > 1 or (not given and described["weights"] is None):
        raise UsageError("give --detections, --classifier or --network, one of them, or --arch and --weights")
    if report is not None and detections is None:
        raise UsageError("--report is about detections: give --detections with it")
    if out is not None:
        from sppnet_cli.atomic import require_place

        require_place(out)
    if detections is not None:
        result = _of_detections(described, detections, report, split, dry_run, as_json)
    elif classifier is not None:
        ws = replace(make_workspace(**described), network_run=network)
        result = _of_image_svms(ws, classifier, split, dry_run, as_json)
    else:
        ws = make_workspace(**described)
        result = _of_network(replace(ws, data=None, imagenet=ws.data), network, views, dry_run, as_json)
    if result is None:
        return
    if out is not None:
        from sppnet_cli.atomic import write_json

        write_json(out, result)
    say(as_json, result)


def _of_detections(
    described: dict[str, Any],
    detections: Path,
    report: Path | None,
    split: str,
    dry_run: bool,
    as_json: bool,
) -> dict[str, Any] | None:
    from sppnet_cli.stages.report import require_report_folder

    if not detections.exists():
        raise DataError(f"{detections}: no such file or folder; make detections with `sppnet detect`")
    if report is not None:
        require_report_folder(report)
    if described["data"] is not None and not dry_run:  # files alone, and so without torch
        return _of_files(
            detections, described["data"], split, described["limit"], report, caveat(described["profile"])
        )
    ws = make_workspace(**described)
    data = ws.voc()
    if dry_run:
        writes = f"; writes a report to {report}" if report else ""
        console.status(f"would score {detections} on {split} of {path_of(data)}, in seconds{writes}")
        show(ws, _stages_of(data), as_json)
        return None
    _make_data(ws, data)
    return _of_files(detections, path_of(data), split, ws.detection_limit(split), report, ws.profile.caveat)


def _of_files(
    detections: Path, data: Path, split: str, limit: int | None, report: Path | None, warning: str
) -> dict[str, Any]:
    from sppnet_cli.stages.score_detections import evaluate_detections

    score = evaluate_detections(detections, data, split, limit, report)
    show_detection_score(score, warning)
    show_calibration(score)
    if report is not None:
        files = sorted(path.name for path in report.iterdir() if not path.name.startswith("."))
        console.status(f"written to {report}: {', '.join(files)}")
    return score.as_dict()


def _of_image_svms(
    ws: "Workspace", classifier: Path, split: str, dry_run: bool, as_json: bool
) -> dict[str, Any] | None:
    from sppnet_cli.cli.datasets import choose_dataset
    from sppnet_cli.learning.image_svm import ImageSvms
    from sppnet_cli.stages.image_svm import MapScore, labelled_images, require_classes, score_images
    from sppnet_cli.stages.workspace import Column

    svms = ImageSvms.load(classifier)
    ws, dataset = choose_dataset(ws, None if ws.data else svms.dataset.lower())
    if dataset != svms.dataset:
        raise DataError(
            f"{ws.caltech or ws.data}: not a {svms.dataset} set, which {classifier} was trained on"
        )
    network = ws.network_run or svms.network
    if not network.is_dir():
        raise DataError(f"{network}: the network of {classifier} is not there; name it with --network")
    images = ws.image_set(dataset, split)
    column = Column("spp6", svms.features.view, svms.features.size)
    features = replace(ws, network_run=network).layer_features(column, svms.features.layer, images)
    if dry_run:
        console.status(f"would extract the features that {classifier} takes, then test it in seconds")
        show(ws, [features], as_json)
        return None
    data = features.inputs["data"]
    _make_data(ws, data)
    labelled = labelled_images(images, path_of(data))
    require_classes(classifier, svms, labelled)
    score = score_images(classifier, make(ws, features), labelled)
    if isinstance(score, MapScore):
        show_detection_score(score, ws.profile.caveat)
    else:
        show_accuracy(score, ws.profile.caveat)
    return score.as_dict()


def _of_network(
    ws: "Workspace", network: Path | None, views: str, dry_run: bool, as_json: bool
) -> dict[str, Any] | None:
    from sppnet_cli.network.classifiers import load_classifier, require_classifier
    from sppnet_cli.network.weights import load_spec
    from sppnet_cli.stages.evaluate_network import classifier_error, network_error

    if network is None:
        require_classifier(ws.profile.arch)
        assert ws.weights is not None
        if ws.weights != "DEFAULT":
            load_classifier(ws.profile.arch, ws.weights)  # what is wrong with the file is said first
    else:
        load_spec(network)  # before any data are made
    if ws.imagenet is None and (network is None or ws.profile.data is None):
        raise UsageError(
            f"no images to classify: give --data, a folder in ImageNet's layout of the classes that "
            f"{network or ws.profile.arch} knows"
        )
    say_spread(ws)
    data = ws.imagenet_data()
    if dry_run:
        console.status(f"would classify the images of {path_of(data)} by {network or ws.profile.arch}")
        show(ws, _stages_of(data), as_json)
        return None
    _make_data(ws, data)
    if network is not None:
        errors = network_error(network, path_of(data), views, ws.limit, ws.how)
    else:
        assert ws.weights is not None
        errors = classifier_error(ws.profile.arch, ws.weights, path_of(data), views, ws.limit, ws.how)
    console.table(
        f"Error (%), {views} views, {errors.images} images{ws.profile.caveat}",
        ["top-1", "top-5"],
        [(f"{100 * errors.top1:.2f}", f"{100 * errors.top5:.2f}")],
    )
    return errors.as_dict()


def _stages_of(data: "Source") -> "list[Stage]":
    return [] if isinstance(data, Path) else [data.stage if hasattr(data, "stage") else data]


def _make_data(ws: "Workspace", data: "Source") -> None:
    if stages := _stages_of(data):
        make(ws, *stages)


def show_detection_score(score: "DetectionScore | MapScore", caveat: str, skipped: int = 0) -> None:
    """Print the APs as a table with the number of skipped images and the profile's caveat."""
    aps = {**score.ap, "mAP": score.mean_ap}
    rows = [(name, "" if math.isnan(ap) else f"{100 * ap:.1f}") for name, ap in aps.items()]
    without = f", {skipped} of them skipped" if skipped else ""
    console.table(f"AP (%), {score.images} images{without}{caveat}", ["class", "AP"], rows)


def show_calibration(score: "DetectionScore") -> None:
    """Say how far confidences are from the precision, where there are any."""
    found = score.reliability
    if found is not None and len(found.count):
        console.status(
            f"confidences of .1 or more differ from the precision by {found.error:.3f}, the mean of ten bins of "
            f"{found.count.sum()} detections; chance alone makes {found.chance:.3f}"
        )


def show_accuracy(score: "AccuracyScore", caveat: str) -> None:
    """Print accuracy and its deviation as a table, with the profile's caveat."""
    deviation = "" if math.isnan(score.deviation) else f"{100 * score.deviation:.2f}"
    console.table(
        f"Accuracy (%), {len(score.outcome.right)} splits of {score.outcome.images} images{caveat}",
        ["accuracy", "deviation"],
        [(f"{100 * score.accuracy:.2f}", deviation)],
    )
