"""Stages of transfer classification (paper sections 3.2 and 3.3): SVMs on features of whole images, and their test."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.console import track
from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.data.splits import Split, caltech_splits
from sppnet_cli.data.voc import image_labels, load_voc
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.outcomes import AccuracyOutcome, MapOutcome
from sppnet_cli.evaluation.voc_ap import image_average_precision
from sppnet_cli.features.store import read_features
from sppnet_cli.learning.image_svm import (
    Dataset,
    FeatureKind,
    ImageSvms,
    gram,
    linear_weights,
    scores,
    train_image_svms,
)
from sppnet_cli.protocols import PAPER, ImageLoss
from sppnet_cli.runs import fingerprint, read_manifest, run_stage
from sppnet_cli.stages.extract import images_fingerprint


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of a classification set, in the order of their rows of features.

    labels: (N, K) int8; 1: the class is in the image, -1: it is not, 0: by difficult objects only.
    """

    dataset: Dataset
    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int8]
    class_names: tuple[str, ...]


def voc_images(data: Path, split: str, limit: int | None = None) -> LabelledImages:
    """A VOC split with its per-class lists; errors as of `load_voc` and `image_labels`."""
    dataset = load_voc(data, split, limit)
    labels = [image_labels(dataset, name)[1] for name in dataset.class_names]
    paths = tuple(dataset.image_path(image_id) for image_id in dataset.ids)
    return LabelledImages(
        "VOC", dataset.root, paths, np.stack(labels, axis=1).astype(np.int8), dataset.class_names
    )


def caltech_images(data: Path, limit: int | None = None) -> LabelledImages:
    """All of Caltech101; errors and `limit` as of `load_caltech101`."""
    images = load_caltech101(data, limit)
    labels = np.where(images.labels[:, None] == np.arange(len(images.class_names)), 1, -1)
    return LabelledImages("Caltech101", data, images.paths, labels.astype(np.int8), images.class_names)


@dataclass(frozen=True)
class RandomSplits:
    """How Caltech101 is split (paper section 3.3)."""

    count: int = 10
    train: int = 30  # images a category
    test: int = 50  # at most
    seed: int = 0


@dataclass(frozen=True)
class ClassifierConfig:
    """`sppnet train-svm --task classification`."""

    layer: str
    splits: RandomSplits | None = None  # of Caltech101; None: VOC, which is trained on all images given
    c: float = PAPER.whole_image_c
    loss: ImageLoss = PAPER.whole_image_loss


def draw_splits(config: ClassifierConfig, images: LabelledImages) -> list[Split]:
    """The splits that a classifier is trained on: of VOC one, of all images.

    Raises `UsageError` for splits of VOC and for Caltech101 without, `DataError` for a category with too few images.
    """
    drawn = config.splits
    if (drawn is None) != (images.dataset == "VOC") or (drawn and drawn.count < 1):
        raise UsageError("Caltech101 takes one random split or more, VOC has its own lists")
    if drawn is None:
        return [Split(np.arange(len(images.paths)), np.arange(0))]
    labels = images.labels.argmax(axis=1)
    return caltech_splits(labels, images.class_names, drawn.count, drawn.train, drawn.test, drawn.seed)


def require_enough(config: ClassifierConfig, images: LabelledImages, limit: int | None) -> None:
    """Raise `DataError` where a class has too few images to train on, of all or of the first `limit`.

    Told before a network is trained and features are extracted.
    """
    fewest = config.splits.train + 1 if config.splits else 1
    counts = dict(zip(images.class_names, (images.labels == 1).sum(axis=0).tolist(), strict=True))
    for name, count in counts.items():
        if count < fewest and limit is not None:
            raise DataError(
                f"--limit {limit} leaves {count} images of {name}, but {fewest} are needed; raise it or leave it out"
            )
        if not count and images.dataset == "VOC":
            raise DataError(
                f"{images.root}: the {len(images.paths)} images to train on hold no {name}, but SVMs take one of every "
                "class; give --profile mini, or --data of more images"
            )
    draw_splits(config, images)


def classifier_stage(
    config: ClassifierConfig, network: Path, features: Path, images: LabelledImages, out: Path
) -> Path:
    """`ImageSvms` trained on features of `images`, which a run of `extract_stage` made with `network`.

    Raises `DataError` where the features are not of these images, of this network or of the layer, and for a class
    without positives or negatives; and what `draw_splits` raises.
    """
    splits = draw_splits(config, images)
    kind = _kind_of(features, config.layer, images)
    if kind.network != fingerprint(network):
        raise DataError(f"{features}: features of another network than {network}; extract them anew")
    digest = hashlib.sha256(f"{images.class_names}".encode() + images.labels.tobytes()).hexdigest()[:16]
    inputs = {"features": fingerprint(features), "labels": digest}

    def build(folder: Path) -> None:
        rows = read_features(features, config.layer)
        products, norms = gram(rows)
        coefficients = np.zeros((len(splits), len(images.class_names), len(rows)), np.float32)
        bias = np.zeros(coefficients.shape[:2], np.float32)
        for index, split in enumerate(track(splits, f"SVMs on {config.layer}")):
            own = products[np.ix_(split.train, split.train)]
            svms = train_image_svms(
                own, images.labels[split.train], images.class_names, c=config.c, loss=config.loss
            )
            coefficients[index][:, split.train] = svms.coefficients
            bias[index] = svms.bias
        del products
        weights = linear_weights(coefficients.reshape(-1, len(rows)), rows, norms)
        ImageSvms(
            dataset=images.dataset,
            features=kind,
            network=network,
            images=images_fingerprint(images.paths),
            class_names=images.class_names,
            c=config.c,
            loss=config.loss,
            splits=tuple(splits) if config.splits else (),
            weights=weights.reshape(*bias.shape, -1),
            bias=bias,
        ).save(folder)

    return run_stage(out, "train-svm classification", config, inputs, build)


@dataclass(frozen=True)
class MapScore:
    """VOC 2007 11-point APs of ranking images, fractions; NaN for a class without positives."""

    outcome: MapOutcome
    class_names: tuple[str, ...]

    @property
    def ap(self) -> dict[str, float]:
        """By class."""
        columns = zip(self.class_names, self.outcome.scores.T, self.outcome.labels.T, strict=True)
        return {name: image_average_precision(scores, labels) for name, scores, labels in columns}

    @property
    def mean_ap(self) -> float:
        """Over the classes that have positives."""
        return self.outcome.value()

    @property
    def images(self) -> int:
        """How many were ranked."""
        return self.outcome.images

    def as_dict(self) -> dict[str, Any]:
        """`mAP`, `AP` by class and `n`; None where there is nothing to measure."""
        plain = {name: None if np.isnan(ap) else ap for name, ap in self.ap.items()}
        mean = None if np.isnan(self.mean_ap) else self.mean_ap
        return {"mAP": mean, "AP": plain, "n": self.images}


@dataclass(frozen=True)
class AccuracyScore:
    """Caltech101 accuracy, a fraction: the mean over splits of the mean over categories."""

    outcome: AccuracyOutcome

    @property
    def accuracy(self) -> float:
        """Mean over the splits."""
        return self.outcome.value()

    @property
    def of_splits(self) -> list[float]:
        """Mean over categories, of each split."""
        labels = self.outcome.labels
        return [AccuracyOutcome(right[None], labels).value() for right in self.outcome.right]

    @property
    def deviation(self) -> float:
        """Sample standard deviation (n - 1) over the splits; NaN for one split."""
        accuracies = self.of_splits
        return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """`accuracy`, `std` (None for one split) and `splits`."""
        std = None if np.isnan(self.deviation) else self.deviation
        return {"accuracy": self.accuracy, "std": std, "splits": len(self.outcome.right)}


def score_classifier(classifier: Path, features: Path, images: LabelledImages) -> MapScore | AccuracyScore:
    """Test a classifier on features of a VOC split, or of the Caltech101 images that its splits were drawn from.

    Raises `DataError` for features of another network, layer, view or size than the classifier's, and for images
    of another data set or, for Caltech101, other images.
    """
    svms = ImageSvms.load(classifier)
    require_classes(classifier, svms, images)
    kind = _kind_of(features, svms.features.layer, images)
    if kind != svms.features:
        wanted, found = vars(svms.features), vars(kind)
        differences = [f"{n} {found[n]}, not {wanted[n]}" for n in wanted if found[n] != wanted[n]]
        raise DataError(
            f"{features}: features that {classifier} was not trained on: {', '.join(differences)}"
        )
    rows = read_features(features, kind.layer)
    if rows.shape[1] != svms.weights.shape[2]:
        raise DataError(
            f"{features}: {rows.shape[1]} numbers an image, but {classifier} takes {svms.weights.shape[2]}"
        )
    n_splits, n_classes = svms.bias.shape
    found_scores = scores(rows, svms.weights.reshape(n_splits * n_classes, -1), svms.bias.reshape(-1))
    if not svms.splits:
        return MapScore(MapOutcome(found_scores, images.labels), svms.class_names)
    if svms.images != images_fingerprint(images.paths):
        raise DataError(f"{images.root}: not the images that the splits of {classifier} were drawn from")
    labels = images.labels.argmax(axis=1)
    best = found_scores.reshape(-1, n_splits, n_classes).argmax(axis=2).T  # (S, N)
    right = np.full(best.shape, -1, dtype=np.int8)
    for index, split in enumerate(svms.splits):
        right[index, split.test] = best[index, split.test] == labels[split.test]
    return AccuracyScore(AccuracyOutcome(right, labels))


def require_classes(classifier: Path, svms: ImageSvms, images: LabelledImages) -> None:
    """Raise `DataError` unless the classifier's classes are those of the images."""
    if images.dataset != svms.dataset or images.class_names != svms.class_names:
        raise DataError(
            f"{classifier}: knows the {len(svms.class_names)} classes of a {svms.dataset} set, which are not the "
            f"{len(images.class_names)} of {images.root}"
        )


def _kind_of(features: Path, layer: str, images: LabelledImages) -> FeatureKind:
    """What a run's features are; raises `DataError` where they are not of these images or lack the layer."""
    manifest = read_manifest(features)
    if manifest["stage"] != "extract-features":
        raise DataError(f"{features}: a run of {manifest['stage']}, which has no features of whole images")
    config, inputs = manifest["config"], manifest["inputs"]
    if layer not in config["layers"]:
        raise DataError(f"{features}: holds {', '.join(config['layers'])}, not {layer}; extract it too")
    if inputs["images"] != images_fingerprint(images.paths):
        raise DataError(
            f"{features}: features of other images than those of {images.root}; extract them anew"
        )
    return FeatureKind(layer, config["view"], config["size"], inputs["network"])
