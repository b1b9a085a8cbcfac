"""Stages that make or test networks: pre-training, backbones, Caffe models, errors."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from sppnet_cli.chain import Cost, Source, Stage, path_of
from sppnet_cli.data.imagenet import load_image_folder, training_folder
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.backbones import is_own, require_known
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import load_spec
from sppnet_cli.stages import evaluate_network as evaluating
from sppnet_cli.stages import import_weights as importing
from sppnet_cli.stages import pretrain as pretraining
from sppnet_cli.stages.workspace.base import Base, joined

PYRAMIDS = {"plain": None, "spp4": SPP4, "spp6": SPP6}
SINGLE_SIZE, MULTI_SIZE = (224,), (224, 180)  # training sizes


class NetworkStages(Base):
    """Stages that make or test networks."""

    def network(self, pyramid: str = "spp6", sizes: tuple[int, ...] = SINGLE_SIZE) -> Source:
        """The given network, or one with this pyramid (`PYRAMIDS`) that is trained at these sizes in turn.

        Raises `DataError` if the given network is none.
        """
        if self.network_run is not None:
            load_spec(self.network_run)
            return self.network_run
        return self.trained_network(pyramid, sizes)

    def trained_network(self, pyramid: str = "spp6", sizes: tuple[int, ...] = SINGLE_SIZE) -> Stage:
        """The network that the workspace trains, even if one was given."""
        profile = self.profile
        require_known(profile.arch)
        if not is_own(profile.arch):
            if self.weights is None:
                raise DataError(f"{profile.arch} needs ImageNet weights: give --weights FILE or DEFAULT")
            published = self.weights == "DEFAULT"
            backbone = pretraining.BackboneConfig(profile.arch, PYRAMIDS[pyramid], published)
            inputs: dict[str, Source] = {} if published else {"weights": Path(self.weights)}
            stem = ["network", profile.arch, pyramid]
            cost_of = partial(pretraining.backbone_cost, backbone)
            check = None if published else partial(pretraining.require_weights, backbone, self.weights)
            build = pretraining.make_backbone
            return self._stage("backbone", stem, backbone, inputs, build, cost_of, check=check)
        config = pretraining.PretrainConfig(
            profile.arch,
            profile.width,
            PYRAMIDS[pyramid],
            profile.fc,
            replace(profile.recipe, sizes=sizes, lighting=self.protocol.lighting),
            self.seed,
            self.limit,
        )
        data = self.imagenet_data()
        check = partial(pretraining.require_images, config, path_of(data))
        trained_on = "..".join(map(str, sizes)) if profile.recipe.draw_size else joined(sizes)
        return self._stage(
            "pretrain",
            [
                "network",
                *([profile.arch] if profile.arch != "zf5" else []),
                pyramid,
                trained_on,
                self._seed(),
            ],
            config,
            {"data": data},
            pretraining.make_network,
            partial(self._pretrain_cost, config),
            together=True,
            check=check,
        )

    def _pretrain_cost(self, config: pretraining.PretrainConfig) -> Cost:
        if self.imagenet is None:
            images, classes = self._embedded_size().imagenet_train, len(CLASSES)
        else:
            folder = load_image_folder(training_folder(self.imagenet))
            images, classes = len(folder), len(folder.class_names)
        return pretraining.pretrain_cost(config, min(images, self.limit or images), classes, self.how.device)

    def network_spec(self, pyramid: str = "spp6") -> NetworkSpec:
        """Description of the network, for estimates."""
        if self.network_run is not None:
            return load_spec(self.network_run)
        profile = self.profile
        if not is_own(profile.arch):
            return NetworkSpec(profile.arch, levels=PYRAMIDS[pyramid])
        return NetworkSpec(profile.arch, profile.width, PYRAMIDS[pyramid], profile.fc, len(CLASSES))

    def has_head(self) -> bool:
        """Whether the network has fc6 and fc7; trunks of torchvision have none."""
        return bool(self.network_spec().fc)

    def errors(self, pyramid: str, sizes: tuple[int, ...], views: str) -> Stage:
        """Which validation images a trained network gets wrong (`evaluate_network.read_errors`)."""
        config = evaluating.EvaluateConfig(views, self.limit)
        inputs = {"network": self.network(pyramid, sizes), "data": self.imagenet_data()}
        stem = ["errors", pyramid, joined(sizes), views.replace(":", "-"), self._seed()]
        cost_of = partial(self._errors_cost, config, pyramid)
        return self._stage("evaluate", stem, config, inputs, evaluating.evaluate, cost_of, together=True)

    def _errors_cost(self, config: evaluating.EvaluateConfig, pyramid: str) -> Cost:
        if self.imagenet is None:
            images = self._embedded_size().imagenet_val
        else:
            images = len(load_image_folder(evaluating.validation_folder(self.imagenet)))
        images = min(images, self.limit or images)
        return evaluating.evaluate_cost(config, self.network_spec(pyramid), images, self.how.device)

    def imported(self, weights: Path, kind: str, dropout_scaling: str) -> Stage:
        """A network from a Caffe model."""
        config = importing.ImportConfig(kind, dropout_scaling)
        inputs: dict[str, Source] = {"weights": weights}
        cost_of = partial(importing.import_cost, weights)
        return self._stage(
            "import-weights", [weights.stem], config, inputs, importing.import_network, cost_of
        )
