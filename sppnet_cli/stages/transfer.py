"""The chain of transfer classification in a workspace: images, their features, a classifier, its test."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sppnet_cli.data.caltech101 import CATEGORIES_FOLDER, load_caltech101
from sppnet_cli.data.images import find_images
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.learning.image_svm import Dataset, ImageSvms
from sppnet_cli.stages.classify import (
    AccuracyScore,
    ClassifierConfig,
    LabelledImages,
    MapScore,
    caltech_images,
    classifier_stage,
    require_classes,
    require_enough,
    score_classifier,
    voc_images,
)
from sppnet_cli.stages.extract import ExtractConfig, extract_stage
from sppnet_cli.stages.workspace import Workspace

TRAINING_SIZES = (224, 180)  # transfer takes the multi-size net (paper section 3.2)


def layout_of(data: Path) -> Dataset | None:
    """Which data set a folder is, by its layout; None for another folder.  Raises `DataError` for none at all."""
    if not data.exists():
        raise DataError(f"{data}: no such folder; name a VOC devkit, Caltech101 or a folder of images")
    if data.absolute().name == CATEGORIES_FOLDER or (data / CATEGORIES_FOLDER).is_dir():
        return "Caltech101"
    if (data / "ImageSets").is_dir() or any(data.glob("VOC[0-9]*/ImageSets")):
        return "VOC"
    return None


def choose_dataset(ws: Workspace, name: str | None) -> tuple[Workspace, Dataset | None]:
    """What `data` is by its layout, or the embedded data set of that name (VOC by default).

    Returns the workspace with a Caltech101 folder as its `caltech`.  Raises `UsageError` for a name beside `data`.
    """
    if ws.data is None:
        return ws, "Caltech101" if name == "caltech101" else "VOC"
    if name is not None:
        raise UsageError("--dataset chooses from the embedded data; what --data is tells its layout")
    dataset = layout_of(ws.data)
    return (replace(ws, data=None, caltech=ws.data) if dataset == "Caltech101" else ws), dataset


def image_paths(
    ws: Workspace, dataset: Dataset | None, split: str, files: Sequence[Path] = ()
) -> Sequence[Path]:
    """The images of a VOC split or of Caltech101; of neither, `files` (or folders), or those right in `data`."""
    if dataset == "VOC":
        voc = load_voc(ws.voc_data(), split, ws.limit)
        return [voc.image_path(image_id) for image_id in voc.ids]
    if dataset == "Caltech101":
        return load_caltech101(ws.caltech_data(), ws.limit).paths
    return find_images(files or [ws.data or Path()])[: ws.limit]


def labelled_images(ws: Workspace, dataset: Dataset, split: str) -> LabelledImages:
    """The images of a VOC split, or of Caltech101, with their labels."""
    if dataset == "VOC":
        return voc_images(ws.voc_data(), split, ws.limit)
    return caltech_images(ws.caltech_data(), ws.limit)


def set_name(dataset: Dataset | None, split: str) -> str:
    """What a set of images is called in the names of folders."""
    return {"VOC": split, "Caltech101": "caltech101", None: "images"}[dataset]


def features_folder(ws: Workspace, config: ExtractConfig, name: str) -> Path:
    """Where `features` goes."""
    network = ws.network_folder("spp6", TRAINING_SIZES).name
    layers = "+".join(layer.replace(" ", "-") for layer in config.layers)
    return ws.runs / f"features-{network}-{name}-{layers}-{config.view}-{config.size}"


def features(
    ws: Workspace, config: ExtractConfig, paths: Sequence[Path], name: str, out: Path | None = None
) -> Path:
    """Features of images by the workspace's multi-size network."""
    network = ws.network("spp6", TRAINING_SIZES)
    folder = ws.fresh(out or features_folder(ws, config, name))
    return extract_stage(config, network, paths, folder, device=ws.device, workers=ws.workers)


def classifier_folder(ws: Workspace, dataset: Dataset, config: ExtractConfig, out: Path | None) -> Path:
    """Where `classifier` goes."""
    name = features_folder(ws, config, dataset.lower()).name
    return out or ws.runs / name.replace("features-", "classifier-", 1)


def classifier(
    ws: Workspace,
    dataset: Dataset,
    extract: ExtractConfig,
    config: ClassifierConfig,
    out: Path | None = None,
) -> Path:
    """A classifier on features that are extracted first."""
    images = labelled_images(ws, dataset, "trainval")
    require_enough(config, images, ws.limit)
    run = features(ws, extract, images.paths, set_name(dataset, "trainval"))
    folder = ws.fresh(classifier_folder(ws, dataset, extract, out))
    return classifier_stage(config, ws.network("spp6", TRAINING_SIZES), run, images, folder)


def score(ws: Workspace, classifier: Path, split: str) -> MapScore | AccuracyScore:
    """Score of a classifier on a VOC split, or on the test images of its own splits of Caltech101.

    Features are extracted first, with the workspace's `network_run`, or the network that the classifier names.
    """
    ws, svms, extract = prepare_score(ws, classifier)
    images = labelled_images(ws, svms.dataset, split)
    require_classes(classifier, svms, images)
    run = features(ws, extract, images.paths, set_name(svms.dataset, split))
    return score_classifier(classifier, run, images)


def prepare_score(ws: Workspace, classifier: Path) -> tuple[Workspace, ImageSvms, ExtractConfig]:
    """What `score` starts from: the workspace with data and network, the classifier, and its features."""
    svms = ImageSvms.load(classifier)
    ws, dataset = choose_dataset(ws, None if ws.data else svms.dataset.lower())
    if dataset != svms.dataset:
        raise DataError(
            f"{ws.caltech or ws.data}: not a {svms.dataset} set, which {classifier} was trained on"
        )
    network = ws.network_run or svms.network
    if not network.is_dir():
        raise DataError(f"{network}: the network of {classifier} is not there; name it with --network")
    kind = svms.features
    return replace(ws, network_run=network), svms, ExtractConfig((kind.layer,), kind.view, kind.size)
