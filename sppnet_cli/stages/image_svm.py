"""Stage: SVMs on features of whole images (paper sections 3.2 and 3.3), and their scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.console import track
from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.data.layouts import Dataset
from sppnet_cli.data.splits import Split, caltech_splits
from sppnet_cli.data.voc import image_labels, load_voc
from sppnet_cli.digests import files_digest
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.outcomes import AccuracyOutcome, MapOutcome
from sppnet_cli.evaluation.voc_ap import image_average_precision
from sppnet_cli.features.store import layer_file, read_features
from sppnet_cli.learning.image_svm import (
    ABOUT_FILE,
    IMAGE_SVM_FILE,
    FeatureKind,
    ImageSvms,
    gram,
    linear_weights,
    scores,
    train_image_svms,
)
from sppnet_cli.protocols import ImageSvmRules
from sppnet_cli.runs import MANIFEST, read_manifest
from sppnet_cli.stages.cost import memory
from sppnet_cli.stages.extract_features import ImageSet

_PAIR_SECONDS = 4e-8  # to train an SVM, per pair of training images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of a classification set, in the order of the rows of their features.

    labels: (N, K) int8; 1: the class is in the image, -1: it is not, 0: only as difficult objects.
    """

    dataset: Dataset
    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int8]
    class_names: tuple[str, ...]


def labelled_images(images: ImageSet, data: Path) -> LabelledImages:
    """The images of a set with their labels; raises as `load_voc`, `image_labels` and `load_caltech101` do."""
    if images.dataset == "Caltech101":
        caltech = load_caltech101(data, images.limit)
        labels = np.where(caltech.labels[:, None] == np.arange(len(caltech.class_names)), 1, -1)
        return LabelledImages("Caltech101", data, caltech.paths, labels.astype(np.int8), caltech.class_names)
    assert images.split is not None
    voc = load_voc(data, images.split, images.limit)
    of_classes = [image_labels(voc, name)[1] for name in voc.class_names]
    paths = tuple(voc.image_path(image_id) for image_id in voc.ids)
    return LabelledImages(
        "VOC", voc.root, paths, np.stack(of_classes, axis=1).astype(np.int8), voc.class_names
    )


@dataclass(frozen=True)
class RandomSplits:
    """How Caltech101 is split (paper section 3.3)."""

    count: int = 10
    train: int = 30  # images of a category
    test: int = 50  # at most
    seed: int = 0


@dataclass(frozen=True)
class ImageSvmConfig:
    """`sppnet train-svm --task classification`."""

    layer: str
    images: ImageSet  # that they are trained on
    rules: ImageSvmRules
    splits: RandomSplits | None = None  # of Caltech101; None: VOC, where all images are for training


def draw_splits(config: ImageSvmConfig, images: LabelledImages) -> list[Split]:
    """The splits that the SVMs are trained on; for VOC a single one with all images.

    Raises `UsageError` for VOC with random splits or Caltech101 without, `DataError` for a category with too few images.
    """
    drawn = config.splits
    if (drawn is None) != (images.dataset == "VOC") or (drawn and drawn.count < 1):
        raise UsageError("Caltech101 takes one random split or more, VOC has its own lists")
    if drawn is None:
        return [Split(np.arange(len(images.paths)), np.arange(0))]
    labels = images.labels.argmax(axis=1)
    return caltech_splits(labels, images.class_names, drawn.count, drawn.train, drawn.test, drawn.seed)


def require_enough(config: ImageSvmConfig, images: LabelledImages) -> None:
    """Raise `DataError` if a class has too few images to train on, among all or the first `limit`.

    Checked before a network is trained and features are extracted.
    """
    fewest = config.splits.train + 1 if config.splits else 1
    limit = config.images.limit
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


def require_enough_in(config: ImageSvmConfig, data: Path) -> None:
    """As `require_enough`, for the set in `data`."""
    require_enough(config, labelled_images(config.images, data))


def train_on_images(config: ImageSvmConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Train `ImageSvms` on the `features` of the images in `data`, extracted with `network`.

    Raises `DataError` for features of other images or without the layer, and for a class without positives or negatives;
    and as `draw_splits` does.
    """
    images = labelled_images(config.images, inputs["data"])
    require_enough(config, images)
    splits = draw_splits(config, images)
    features = inputs["features"]
    kind = _kind_of(features, config.layer)
    rows = _rows(features, config.layer, images)
    products, norms = gram(rows)
    coefficients = np.zeros((len(splits), len(images.class_names), len(rows)), np.float32)
    bias = np.zeros(coefficients.shape[:2], np.float32)
    for index, split in enumerate(track(splits, f"SVMs on {config.layer}")):
        svms = train_image_svms(
            products[np.ix_(split.train, split.train)],
            images.labels[split.train],
            images.class_names,
            c=config.rules.whole_image_c,
            loss=config.rules.whole_image_loss,
        )
        coefficients[index][:, split.train] = svms.coefficients
        bias[index] = svms.bias
    del products
    weights = linear_weights(coefficients.reshape(-1, len(rows)), rows, norms)
    ImageSvms(
        dataset=images.dataset,
        features=kind,
        network=inputs["network"],
        images=files_digest(images.paths),
        class_names=images.class_names,
        c=config.rules.whole_image_c,
        loss=config.rules.whole_image_loss,
        splits=tuple(splits) if config.splits else (),
        weights=weights.reshape(*bias.shape, -1),
        bias=bias,
    ).save(folder)


def image_svm_cost(config: ImageSvmConfig, images: int, classes: int, features: dict[str, int]) -> Cost:
    """Cost of the solver; `features` are the sizes in bytes of the feature files."""
    splits = config.splits.count if config.splits else 1
    trained = config.splits.train * classes if config.splits else images
    numbers = splits * classes * features.get(layer_file(config.layer), 0) // max(images, 1)
    files = {IMAGE_SVM_FILE: numbers, ABOUT_FILE: 6 * (splits - 1) * images + 1000}
    return Cost(splits * classes * trained**2 * _PAIR_SECONDS, files, memory(0.3 + 1.6e-8 * images**2))


@dataclass(frozen=True)
class MapScore:
    """VOC 2007 11-point APs of ranking images, fractions; NaN for a class without positives."""

    outcome: MapOutcome
    class_names: tuple[str, ...]

    @property
    def ap(self) -> dict[str, float]:
        """AP by class."""
        columns = zip(self.class_names, self.outcome.scores.T, self.outcome.labels.T, strict=True)
        return {name: image_average_precision(scores, labels) for name, scores, labels in columns}

    @property
    def mean_ap(self) -> float:
        """Mean over the classes that have positives."""
        return self.outcome.value()

    @property
    def images(self) -> int:
        """How many images were ranked."""
        return self.outcome.images

    def as_dict(self) -> dict[str, Any]:
        """`mAP`, `AP` by class and `n`; None for NaN."""
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
        """Mean over categories, for each split."""
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


def score_images(svms_run: Path, features: Path, images: LabelledImages) -> MapScore | AccuracyScore:
    """Test SVMs on features of a VOC split, or of the Caltech101 images that their splits were drawn from.

    Raises `DataError` unless network, layer, view and size of the features are those that the SVMs were trained on, and
    for images of another data set or, for Caltech101, other images.
    """
    svms = ImageSvms.load(svms_run)
    require_classes(svms_run, svms, images)
    wanted, given = vars(svms.features), vars(_kind_of(features, svms.features.layer))
    differences = [f"{n} {given[n]}, not {wanted[n]}" for n in wanted if given[n] != wanted[n]]
    if differences:
        raise DataError(f"{features}: features that {svms_run} was not trained on: {', '.join(differences)}")
    rows = _rows(features, svms.features.layer, images)
    if rows.shape[1] != svms.weights.shape[2]:
        raise DataError(
            f"{features}: {rows.shape[1]} numbers an image, but {svms_run} takes {svms.weights.shape[2]}"
        )
    n_splits, n_classes = svms.bias.shape
    of_rows = scores(rows, svms.weights.reshape(n_splits * n_classes, -1), svms.bias.reshape(-1))
    if not svms.splits:
        return MapScore(MapOutcome(of_rows, images.labels), svms.class_names)
    if svms.images != files_digest(images.paths):
        raise DataError(f"{images.root}: not the images that the splits of {svms_run} were drawn from")
    if max(int(split.test.max()) for split in svms.splits) >= len(images.paths):
        raise DataError(f"{svms_run}: tests on more images than there are; train it again")
    labels = images.labels.argmax(axis=1)
    best = of_rows.reshape(-1, n_splits, n_classes).argmax(axis=2).T  # (S, N)
    right = np.full(best.shape, -1, dtype=np.int8)
    for index, split in enumerate(svms.splits):
        right[index, split.test] = best[index, split.test] == labels[split.test]
    return AccuracyScore(AccuracyOutcome(right, labels))


def require_classes(svms_run: Path, svms: ImageSvms, images: LabelledImages) -> None:
    """Raise `DataError` unless the SVMs' classes are those of the images."""
    if images.dataset != svms.dataset or images.class_names != svms.class_names:
        raise DataError(
            f"{svms_run}: knows the {len(svms.class_names)} classes of a {svms.dataset} set, which are not the "
            f"{len(images.class_names)} of {images.root}"
        )


def _kind_of(features: Path, layer: str) -> FeatureKind:
    """Layer, view, size and network of a run's features.  Raises `DataError` for a run of another stage."""
    manifest = read_manifest(features)
    if manifest["stage"] != "extract-features":
        raise DataError(f"{features}: a run of {manifest['stage']}, which has no features of whole images")
    try:
        config = manifest["config"]
        return FeatureKind(layer, str(config["view"]), int(config["size"]), manifest["inputs"]["network"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{features}: its {MANIFEST} lacks {error}; extract the features anew") from None


def _rows(features: Path, layer: str, images: LabelledImages) -> NDArray[np.float32]:
    rows = read_features(features, layer)
    if len(rows) != len(images.paths):
        raise DataError(
            f"{features}: features of other images than those of {images.root}; extract them anew"
        )
    return rows
