"""A column of the transfer tables: one network and one view of each image, several layers (paper sections 3.2, 3.3)."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.learning.image_svm import Dataset
from sppnet_cli.stages.classify import (
    AccuracyScore,
    ClassifierConfig,
    LabelledImages,
    MapScore,
    caltech_images,
    classifier_stage,
    require_enough,
    score_classifier,
    voc_images,
)
from sppnet_cli.stages.extract import ExtractConfig, extract_stage
from sppnet_cli.stages.workspace import Workspace

SWEEP = (180, 224, 256, 300, 360, 392)  # short sides among which a scale is chosen
_TRAINED_AT = {"plain": (224,), "spp6": (224, 180)}  # transfer takes the multi-size SPP-net


@dataclass(frozen=True)
class Column:
    """The plain net or SPP-net on a view of the image."""

    pyramid: str  # plain or spp6
    view: str  # crop, full or warp
    size: int  # short side in pixels

    @property
    def sizes(self) -> tuple[int, ...]:
        """What the network was trained at."""
        return _TRAINED_AT[self.pyramid]


def layer_scores(
    ws: Workspace,
    dataset: Dataset,
    column: Column,
    layers: tuple[str, ...],
    *,
    train: str = "trainval",
    test: str = "test",
) -> dict[str, MapScore | AccuracyScore]:
    """The score of SVMs on every layer: of VOC trained on one list and tested on another, of Caltech101 on its splits.

    The layers come from one pass over the images of each list.
    """
    lists = lists_of(dataset, train, test)
    images = {name: _images(ws, dataset, name) for name in lists}
    configs = {layer: classifier_config(ws, dataset, layer) for layer in layers}
    for config in configs.values():
        require_enough(config, images[lists[0]], ws.limit)
    network = ws.network(column.pyramid, column.sizes)
    extract = ExtractConfig(layers, column.view, column.size)
    features = {
        name: extract_stage(
            extract,
            network,
            images[name].paths,
            ws.fresh(features_of_column(ws, column, layers, name)),
            device=ws.device,
            workers=ws.workers,
        )
        for name in images
    }
    scores = {}
    for layer, config in configs.items():
        folder = ws.fresh(classifier_of_column(ws, column, layer, lists[0]))
        run = classifier_stage(config, network, features[lists[0]], images[lists[0]], folder)
        scores[layer] = score_classifier(run, features[lists[1]], images[lists[1]])
    return scores


def lists_of(dataset: Dataset, train: str = "trainval", test: str = "test") -> tuple[str, str]:
    """What images a classifier is trained and tested on: lists of VOC, or all of Caltech101, which it splits."""
    return (train, test) if dataset == "VOC" else ("caltech101", "caltech101")


def classifier_config(ws: Workspace, dataset: Dataset, layer: str) -> ClassifierConfig:
    """How the SVMs of a layer are trained."""
    return ClassifierConfig(layer, ws.profile.splits if dataset == "Caltech101" else None)


def features_of_column(ws: Workspace, column: Column, layers: tuple[str, ...], name: str) -> Path:
    """Where the features of a list of images go."""
    network = ws.network_folder(column.pyramid, column.sizes).name.removeprefix("network-")
    joined = "+".join(layer.replace(" ", "-") for layer in layers)
    return ws.runs / f"features-{network}-{column.view}-{column.size}-{name}-{joined}"


def classifier_of_column(ws: Workspace, column: Column, layer: str, name: str) -> Path:
    """Where the SVMs on a layer of a list of images go."""
    folder = features_of_column(ws, column, (layer,), name)
    return folder.with_name(folder.name.replace("features", "classifier", 1))


def choose_size(ws: Workspace, view: str, layer: str) -> int:
    """The short side among `SWEEP` that is best on VOC's val half, trained on its train half (the first of equals).

    The test list is not looked at.
    """
    return max(SWEEP, key=lambda size: _val_score(ws, Column("spp6", view, size), layer))


def _val_score(ws: Workspace, column: Column, layer: str) -> float:
    score = layer_scores(ws, "VOC", column, (layer,), train="train", test="val")[layer]
    return score.outcome.value()


def _images(ws: Workspace, dataset: Dataset, name: str) -> LabelledImages:
    if dataset == "VOC":
        return voc_images(ws.voc_data(), name, ws.limit)
    return caltech_images(ws.caltech_data(), ws.limit)
