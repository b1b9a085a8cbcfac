"""Stages on whole images: features, SVMs on them (paper sections 3.2, 3.3), pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sppnet_cli.chain import Cost, Source, Stage, path_of
from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.data.layouts import Dataset
from sppnet_cli.data.mini import CALTECH_CLASSES
from sppnet_cli.features.extract import require_supported
from sppnet_cli.names import MAP_LAYERS
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.protocols import (
    ImageSvmRules,
    take,
)
from sppnet_cli.stages import cost
from sppnet_cli.stages import extract_features as extracting
from sppnet_cli.stages import image_svm as image_training
from sppnet_cli.stages import visualize as pictures
from sppnet_cli.stages.extract_features import ImageSet
from sppnet_cli.stages.workspace.networks import MULTI_SIZE, SINGLE_SIZE, NetworkStages

SWEEP = (180, 224, 256, 300, 360, 392)  # short sides that are tried for whole images


@dataclass(frozen=True)
class Column:
    """A column of Tables 3 and 4: a network, and the view of each image that it sees."""

    pyramid: str  # plain or spp6
    view: str  # crop, full or warp
    size: int  # short side in pixels


class TestedSvms(NamedTuple):
    """SVMs on a layer of whole images, and the features that they are tested on."""

    svms: Stage
    features: Stage

    def score(self) -> image_training.MapScore | image_training.AccuracyScore:
        """The score; both stages must be made."""
        images = image_training.labelled_images(
            self.features.config.images, path_of(self.features.inputs["data"])
        )
        return image_training.score_images(self.svms.folder, self.features.folder, images)


class WholeImageStages(NetworkStages):
    """Stages on whole images."""

    def image_set(self, dataset: Dataset, split: str) -> ImageSet:
        """A split of VOC, or all of Caltech101."""
        return ImageSet(dataset, split if dataset == "VOC" else None, self.limit)

    def _images_data(self, images: ImageSet) -> Source:
        return self.voc() if images.dataset == "VOC" else self.caltech_data()

    def pooled_layers(self, pyramid: str = "spp6") -> tuple[str, ...]:
        """The layers of a fixed length, which are extracted together in one pass."""
        spec = self.network_spec(pyramid)
        return (
            "pool5",
            *(["SPP pool5"] if spec.levels is not None else []),
            *(["fc6", "fc7"] if spec.fc else []),
        )

    def features(
        self,
        column: Column,
        layers: tuple[str, ...],
        images: ImageSet | None,
        files: Sequence[Path] = (),
    ) -> Stage:
        """Layers of whole images: of a set, or of the user's files."""
        config = extracting.ExtractConfig(layers, column.view, column.size, images)
        sizes = SINGLE_SIZE if column.pyramid == "plain" else MULTI_SIZE
        inputs: dict[str, Source] = {"network": replace(self, limit=None).network(column.pyramid, sizes)}
        what = "images"
        if images is not None:
            inputs["data"] = self._images_data(images)
            what = images.split or images.dataset.lower()
        spec = self.network_spec(column.pyramid)
        require_supported(spec, layers, column.view, column.size)
        cost_of = partial(self._extract_cost, config, spec, images, len(files))
        stem = ["features", column.pyramid, column.view, column.size, what, self._seed()]
        return self._stage(
            "extract-features",
            stem,
            config,
            inputs,
            extracting.extract,
            cost_of,
            together=True,
            images=tuple(files),
        )

    def layer_features(self, column: Column, layer: str, images: ImageSet) -> Stage:
        """Features with a layer, and with all layers that are extracted in the same pass."""
        layers = MAP_LAYERS if layer in MAP_LAYERS else self.pooled_layers(column.pyramid)
        return self.features(column, layers if layer in layers else (layer,), images)

    def _extract_cost(
        self, config: extracting.ExtractConfig, spec: NetworkSpec, images: ImageSet | None, files: int
    ) -> Cost:
        count = files if images is None else self.count(images)
        return extracting.extract_cost(config, spec, count, self.image_size(), self.how.device)

    def count(self, images: ImageSet) -> int:
        """How many images a set has; the embedded data need not exist yet."""
        if images.dataset == "VOC":
            assert images.split is not None
            return self.voc_images(images.split, images.limit)
        if self.caltech is not None or self.profile.data is None:
            return len(extracting.image_paths(images, path_of(self.caltech_data())))
        count = self._embedded_size().caltech_per_category * (len(CALTECH_CLASSES) + 1)
        return min(count, images.limit or count)

    def image_svms(
        self, column: Column, layer: str, images: ImageSet, splits: image_training.RandomSplits | None = None
    ) -> Stage:
        """SVMs on a layer of whole images, trained on a VOC list or on random splits of Caltech101."""
        drawn = (splits or self.profile.splits) if images.dataset == "Caltech101" else None
        config = image_training.ImageSvmConfig(layer, images, take(ImageSvmRules, self.protocol), drawn)
        data = self._images_data(images)
        features = self.layer_features(column, layer, images)
        inputs = {"features": features, "network": features.inputs["network"], "data": data}
        what = images.split or images.dataset.lower()
        stem = ["svms", column.pyramid, column.view, column.size, what, layer.replace(" ", "-"), self._seed()]
        return self._stage(
            "train-svm-images",
            stem,
            config,
            inputs,
            image_training.train_on_images,
            partial(self._image_svm_cost, config, features),
            check=partial(image_training.require_enough_in, config, path_of(data)),
        )

    def _image_svm_cost(self, config: image_training.ImageSvmConfig, features: Stage) -> Cost:
        if config.images.dataset == "VOC":
            classes = self.voc_classes()
        else:
            own = self.caltech is None and self.profile.data is not None
            folder = path_of(self.caltech_data())
            classes = len(CALTECH_CLASSES) + 1 if own else len(load_caltech101(folder).class_names)
        return image_training.image_svm_cost(
            config, self.count(config.images), classes, features.cost().files
        )

    def tested_svms(
        self, column: Column, layer: str, dataset: Dataset, *, train: str = "trainval", test: str = "test"
    ) -> TestedSvms:
        """SVMs trained on a VOC list and tested on another, or trained and tested on splits of Caltech101."""
        svms = self.image_svms(column, layer, self.image_set(dataset, train))
        return TestedSvms(svms, self.layer_features(column, layer, self.image_set(dataset, test)))

    def picture_detections(self, config: pictures.DetectionPictures, detections: Source) -> Stage:
        """Pictures of detections, as in Figure 6."""
        inputs = {"detections": detections, "data": self.voc()}
        if isinstance(detections, Path) and isinstance(inputs["data"], Path):
            pictures.require_drawable(config, detections, inputs["data"])
        count = len(config.ids) or config.count
        cost_of = partial(pictures.pictures_cost, count, 0.0)
        build = pictures.picture_detections
        return self._stage("visualize", ["pictures"], config, inputs, build, cost_of)

    def picture_responses(self, config: pictures.ResponsePictures, files: Sequence[Path] = ()) -> Stage:
        """Pictures of the strongest responses of conv5, as in Figure 2."""
        inputs: dict[str, Source] = {"network": replace(self, limit=None).network()}
        count = len(files)
        if config.images is not None:
            inputs["data"] = self._images_data(config.images)
            count = self.count(config.images)
        seconds = partial(self._responses_cost, config, count)
        build = pictures.picture_responses
        return self._stage("visualize", ["responses"], config, inputs, build, seconds, images=tuple(files))

    def _responses_cost(self, config: pictures.ResponsePictures, count: int) -> Cost:
        size = config.size
        work = cost.forward_work(self.network_spec(), count, size, size, self.how.device)
        return pictures.pictures_cost(config.count, work.seconds)
