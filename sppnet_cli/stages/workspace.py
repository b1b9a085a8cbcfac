"""The stages of one profile and seed: each method describes one, with all that it follows from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sppnet_cli import chain, making
from sppnet_cli.chain import Cost, Part, Plan, Resources, Source, Stage, named, path_of
from sppnet_cli.data.imagenet import load_image_folder, training_folder
from sppnet_cli.data.layouts import Dataset
from sppnet_cli.data.mini import CALTECH_CLASSES, MiniSize
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.data.proposals import METHODS as PROPOSAL_METHODS
from sppnet_cli.data.proposals import require_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector_files import read_description
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.methods import METHODS
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.learning.calibration import CalibrationRules
from sppnet_cli.network.backbones import is_own, require_known
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import MAP_LAYERS, NetworkSpec
from sppnet_cli.network.weights import load_spec
from sppnet_cli.protocols import (
    PAPER,
    BboxRules,
    DetectRules,
    FinetuneRules,
    ImageSvmRules,
    MappingRules,
    Protocol,
    SvmRules,
    take,
)
from sppnet_cli.provenance import processor
from sppnet_cli.stages import cost, train_bbox, train_svm
from sppnet_cli.stages import detect as detecting
from sppnet_cli.stages import evaluate_network as evaluating
from sppnet_cli.stages import extract_features as extracting
from sppnet_cli.stages import finetune as finetuning
from sppnet_cli.stages import image_svm as image_training
from sppnet_cli.stages import import_weights as importing
from sppnet_cli.stages import photos as photographs
from sppnet_cli.stages import pretrain as pretraining
from sppnet_cli.stages import propose as proposing
from sppnet_cli.stages import visualize as pictures
from sppnet_cli.stages.calibrate import CalibrateConfig, calibrate, calibrate_cost
from sppnet_cli.stages.embedded import EmbeddedConfig, embedded_cost, make_embedded
from sppnet_cli.stages.extract_features import ImageSet
from sppnet_cli.stages.folds import FoldsConfig, deal_folds, fold_name, folds_cost, rest_name
from sppnet_cli.stages.import_set import ImportConfig, import_set, import_set_cost
from sppnet_cli.stages.profiles import Profile
from sppnet_cli.stages.time_features import TimeConfig, TimedFeatures, time_cost, time_features
from sppnet_cli.stages.windows import WindowConfig

PYRAMIDS = {"plain": None, "spp4": SPP4, "spp6": SPP6}
SWEEP = (180, 224, 256, 300, 360, 392)  # short sides among which the scale of whole images is chosen
ENOUGH = 200  # objects of a class, on average, for its box regressor to gain
HELD_OUT = 0.2  # of the images of an export that has no split
CALIBRATION = CalibrationRules(folds=4, slope_spread=0.3, offset_spread=2.0)
SINGLE_SIZE, MULTI_SIZE = (224,), (224, 180)  # training sizes
_SIZE = {True: (265, 335), False: (375, 500)}  # typical height and width, embedded or VOC


class NeedsData(DataError):
    """The profile has no data of its own, and none was given; `what` is missing."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message, what)  # both, so that it can be sent to other processes
        self.what = what

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Column:
    """Features of whole images: a network, and the view of each image that it sees (paper sections 3.2, 3.3)."""

    pyramid: str  # plain or spp6
    view: str  # crop, full or warp
    size: int  # short side in pixels


class TestedSvms(NamedTuple):
    """SVMs on a layer of whole images, and the features of the images that they are tested on."""

    svms: Stage
    features: Stage

    def score(self) -> image_training.MapScore | image_training.AccuracyScore:
        """Of the stages once they are made."""
        images = image_training.labelled_images(
            self.features.config.images, path_of(self.features.inputs["data"])
        )
        return image_training.score_images(self.svms.folder, self.features.folder, images)


@dataclass(frozen=True)
class Workspace:
    """Where the runs of one profile and seed lie, and how their stages follow from each other.

    `ws.detector("spp", (688,), "ftfc7")` describes a detector and all that it needs; `ws.make(...)` makes it.
    """

    profile: Profile
    root: Path = Path("runs")
    seed: int = 0
    protocol: Protocol = PAPER
    data: Path | None = None  # the user's devkit or VOC2007 folder; None: the embedded data
    imagenet: Path | None = None  # the user's ImageNet-layout folder; None: the embedded data
    caltech: Path | None = None  # the user's Caltech101; None: the embedded data
    weights: str | None = None  # of a torchvision arch
    proposals_method: str | None = (
        None  # a method, several with a plus between, or a run; None: the profile's
    )
    proposals_seed: int = 0
    limit: int | None = None  # images of either split
    how: Resources = field(default_factory=Resources)
    jobs: int | None = None  # stages at once; None: as many as fit
    remake: bool = False  # make anew what is asked for, and what other code made

    rcnn_map: bool | None = None  # whether R-CNN's mAP is measured; None: as the profile says
    tuning: int | None = None  # seed of fine-tuning, where it is not the network's
    network_run: Path | None = None  # in place of the chain's own network
    head_run: Path | None = None  # in place of the chain's own fine-tuning
    calibration: CalibrationRules = CALIBRATION  # of calibrated detectors
    fold: int | None = None  # detectors learn from trainval without this fold, and detect in it

    @property
    def runs(self) -> Path:
        """Where the runs of the profile lie."""
        return self.root / self.profile.name

    def make(self, *stages: Stage) -> Plan:
        """Make stages and what they need, unless it is there."""
        how = replace(self.how, cache=self.runs / "cache")
        return making.make(stages, how, jobs=self.jobs, remake=self.remake)

    def plan(self, *stages: Stage) -> Plan:
        """What `make` would make."""
        return chain.plan(stages, remake=self.remake)

    def _stage(
        self,
        name: str,
        stem: Sequence[object],
        config: Any,
        inputs: dict[str, Source],
        build: chain.Build,
        cost_of: Callable[[], Cost],
        **more: Any,
    ) -> Stage:
        more = {"threads": self.profile.threads} | more
        stage = Stage(name, config, inputs, Path(), build, cost_of, **more)
        name_of_folder = "-".join(str(part) for part in stem if part != "").replace("/", "-")
        return named(stage, self.runs, name_of_folder)

    # Data.

    def embedded(self, seed: int = 0) -> Stage:
        """The embedded data set; the experiments take that of seed 0, whatever the network's seed."""
        config = EmbeddedConfig(self._embedded_size(), seed)
        return self._stage(
            "data",
            ["data", f"seed{seed}" if seed else ""],
            config,
            {},
            make_embedded,
            partial(embedded_cost, config),
        )

    def _embedded_size(self) -> MiniSize:
        assert self.profile.data is not None
        return self.profile.data

    def voc(self) -> Source:
        """The VOC folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.data is not None:
            return self.data
        if self.profile.data is None:
            raise NeedsData(f"profile {self.profile.name} needs VOC 2007: give --data DIR", "VOC 2007")
        return Part(self.embedded(), "VOCdevkit")

    def imported_set(self, export: Path) -> Stage:
        """A VOC set of what a labelling tool exported."""
        config = ImportConfig(HELD_OUT, self.seed)
        inputs: dict[str, Source] = {"export": export}
        return self._stage("import", ["set", export.stem], config, inputs, import_set, import_set_cost)

    def imagenet_data(self) -> Source:
        """The ImageNet-layout folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.imagenet is not None:
            return self.imagenet
        if self.profile.data is None:
            raise NeedsData(
                f"profile {self.profile.name} needs a network: train one with `sppnet pretrain --data ILSVRC2012` "
                "and give --network RUN",
                "ImageNet",
            )
        return Part(self.embedded(), "imagenet")

    def caltech_data(self) -> Source:
        """The Caltech101 folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.caltech is not None:
            return self.caltech
        if self.profile.data is None:
            raise NeedsData(f"profile {self.profile.name} needs Caltech101: give --data DIR", "Caltech101")
        return Part(self.embedded(), "caltech101")

    def detection_limit(self, split: str) -> int | None:
        """How many images of a VOC split detection takes: `limit`, and on the embedded data the profile's number."""
        few = self.profile.detection_images
        if few is None or self.data is not None:
            return self.limit
        return min(few[split == "test"], self.limit or few[1] + few[0])

    def voc_images(self, split: str, limit: int | None) -> int:
        """How many images a split has, `limit` at most; the embedded data need not be there."""
        if self.data is not None or self.profile.data is None:
            return len(load_voc(path_of(self.voc()), split, limit))
        size = self._embedded_size()
        train = size.voc_trainval // 2
        lists = {"train": train, "val": size.voc_trainval - train, "test": size.voc_test}
        count = lists.get(split, size.voc_trainval)
        return min(count, limit or count)

    def voc_classes(self) -> int:
        """How many classes the VOC set has; the embedded data need not be there."""
        if self.data is not None or self.profile.data is None:
            return len(load_voc(path_of(self.voc()), "trainval").class_names)
        return len(CLASSES)

    def image_size(self) -> tuple[int, int]:
        """Height and width of a typical image of the detection set."""
        return _SIZE[self.data is None and self.profile.data is not None]

    # Networks.

    def network(self, pyramid: str = "spp6", sizes: tuple[int, ...] = SINGLE_SIZE) -> Source:
        """A trained network: `plain`, `spp4` or `spp6`, on one training size or several in turn.

        Raises `DataError` where the network that was given is none.
        """
        if self.network_run is not None:
            load_spec(self.network_run)
            return self.network_run
        return self.trained_network(pyramid, sizes)

    def trained_network(self, pyramid: str = "spp6", sizes: tuple[int, ...] = SINGLE_SIZE) -> Stage:
        """The network that the chain makes, whatever network was given."""
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
            return self._stage("backbone", stem, backbone, inputs, pretraining.make_backbone, cost_of)
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
        joined = "..".join(map(str, sizes)) if profile.recipe.draw_size else _joined(sizes)
        return self._stage(
            "pretrain",
            ["network", *([profile.arch] if profile.arch != "zf5" else []), pyramid, joined, self._seed()],
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
        """About the network: what it costs follows from it."""
        if self.network_run is not None:
            return load_spec(self.network_run)
        profile = self.profile
        own = is_own(profile.arch)
        width, fc = (profile.width, profile.fc) if own else (1.0, 0)
        return NetworkSpec(profile.arch, width, PYRAMIDS[pyramid], fc, len(CLASSES) if own else 0)

    def has_head(self) -> bool:
        """Whether the network brings fc6 and fc7; trunks of torchvision do not."""
        return bool(self.network_spec().fc)

    def errors(self, pyramid: str, sizes: tuple[int, ...], views: str) -> Stage:
        """Which validation images a trained network gets wrong (`evaluate_network.read_errors`)."""
        config = evaluating.EvaluateConfig(views, self.limit)
        inputs = {"network": self.network(pyramid, sizes), "data": self.imagenet_data()}
        stem = ["errors", pyramid, _joined(sizes), views.replace(":", "-"), self._seed()]
        cost_of = partial(self._errors_cost, config, pyramid)
        return self._stage("evaluate", stem, config, inputs, evaluating.evaluate, cost_of, together=True)

    def _errors_cost(self, config: evaluating.EvaluateConfig, pyramid: str) -> Cost:
        if self.imagenet is None:
            images = self._embedded_size().imagenet_val
        else:
            images = len(load_image_folder(evaluating.validation_folder(self.imagenet)))
        images = min(images, self.limit or images)
        return evaluating.evaluate_cost(config, self.network_spec(pyramid), images, self.how.device)

    # Windows.

    def proposals(self, split: str) -> Source:
        """Window proposals of a VOC split: of a method, of several joined, of the authors' files, or a given run."""
        method = self.proposals_method or self.profile.proposals
        parts = method.split("+")
        if len(parts) == 1:
            return self._proposals_of(method, split)
        config = proposing.JoinConfig(split, self.detection_limit(split))
        inputs = {"data": self.voc()}
        inputs |= {f"proposals {k}": self._proposals_of(part, split) for k, part in enumerate(parts, 1)}
        cost_of = partial(proposing.import_cost, self.voc_images(split, config.limit))
        return self._stage(
            "propose", ["proposals", split, "joined"], config, inputs, proposing.join_windows, cost_of
        )

    def _proposals_of(self, method: str, split: str) -> Source:
        limit = self.detection_limit(split)
        data = self.voc()
        if method in PROPOSAL_METHODS:
            config = proposing.ProposeConfig(split, method, self.proposals_seed, limit)
            images = self.voc_images(split, limit)
            cost_of = partial(proposing.propose_cost, config, images, self.image_size(), self.how.workers)
            stem = ["proposals", split, method]
            return self._stage(
                "propose", stem, config, {"data": data}, proposing.propose_windows, cost_of, together=True
            )
        given = Path(method)
        mat = proposing.find_mat(given, split)
        if mat is not None:
            images = self.voc_images(split, limit)
            return self._stage(
                "propose",
                ["proposals", split, mat.stem],
                proposing.ImportBoxesConfig(split, limit),
                {"data": data, "mat": mat},
                proposing.import_windows,
                partial(proposing.import_cost, images),
            )
        if not (given / proposing.BOXES).is_dir():
            raise DataError(
                f"{given}: neither a run of `sppnet propose` (it has no boxes folder) nor a folder of .mat files; "
                "check --proposals"
            )
        if isinstance(data, Path):
            require_boxes(given, load_voc(data, split, limit).ids, split)
        return given

    def given_proposals(self, split: str) -> Path | None:
        """The run of `sppnet propose` that was given in place of a method."""
        found = self.proposals(split)
        return found if isinstance(found, Path) else None

    def max_windows(self, split: str) -> int | None:
        """Proposals per image: the profile's number on its own data, up to 2,000 on the user's; None: all."""
        profile = self.profile
        count = profile.test_windows if split == "test" else profile.train_windows
        if count is not None and self.data is not None:
            count = max(count, profile.timing_windows)
        return count

    def windows(self, method: str, scales: tuple[int, ...]) -> WindowConfig:
        """The windows that detectors learn from, and how they are pooled."""
        mapping = take(MappingRules, self.protocol)
        split, limit = "trainval", self.detection_limit("trainval")
        if self.fold is not None:
            split, limit = rest_name(self.fold), None
        return WindowConfig(split, method, scales, mapping, self.max_windows("trainval"), limit)

    def _walk(self, split: str, method: str, scales: tuple[int, ...]) -> cost.Walk:
        images = self.voc_images(split, self.detection_limit(split))
        if self.fold is not None:  # the detector on all images comes first: the maps are in the cache
            images, scales = images - images // self.calibration.folds, ()
        windows = self.max_windows(split) or 2200
        crops = windows if METHODS[method].per_window else None
        return cost.Walk(images, windows, self.image_size(), crops, scales)

    # Detectors.

    def head(self, method: str, scales: tuple[int, ...]) -> Source:
        """Fine-tuned fc layers; of R-CNN with their own trunk, where the profile fine-tunes all layers."""
        return self.head_run or self.finetuned(method, scales)

    def finetuned(self, method: str, scales: tuple[int, ...]) -> Stage:
        """The fine-tuning that the chain makes, whatever head was given."""
        protocol = METHODS[method].protocol_of(self.protocol)
        config = finetuning.FinetuneConfig(
            self.windows(method, scales),
            take(FinetuneRules, protocol),
            self.profile.schedule(protocol),
            self.profile.fc,
            self.profile.flip,
            self.seed if self.tuning is None else self.tuning,
        )
        tuned = f"tuned{self.tuning}" if self.tuning is not None else ""
        stem = ["finetune", method, _joined(scales), self._seed(), tuned, self._fold()]
        inputs = self._training_inputs() | {"network": self.network()}
        if METHODS[method].per_window and self.profile.rcnn_finetune == "all":
            cost_of = partial(self._finetune_all_cost, config)
            return self._stage("finetune-all", stem, config, inputs, finetuning.finetune_all_layers, cost_of)
        walk = self._walk("trainval", method, scales)
        cost_of = partial(self._finetune_fc_cost, config, walk)
        return self._stage(
            "finetune",
            stem,
            config,
            inputs,
            finetuning.finetune_fc_layers,
            cost_of,
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def _finetune_all_cost(self, config: finetuning.FinetuneConfig) -> Cost:
        return finetuning.finetune_all_cost(config, self.network_spec(), self.voc_classes(), self.how.device)

    def _finetune_fc_cost(self, config: finetuning.FinetuneConfig, walk: cost.Walk) -> Cost:
        return finetuning.finetune_fc_cost(
            config, self.network_spec(), self.voc_classes(), walk, self.how.device
        )

    def detector(self, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """A detector for a row of Table 6: pool5, fc6, fc7, ftfc6, ftfc7, each also with ` bb`."""
        if row.endswith(" bb"):
            return self.with_bbox(self.detector(method, scales, row.removesuffix(" bb")), method, scales, row)
        layer = row.removeprefix("ft")
        if layer != "pool5" and layer == row and not self.has_head():
            raise UsageError(
                f"{self.profile.arch} has no {layer}: give --layer pool5, or ft{layer} for fine-tuned new fc layers"
            )
        protocol = METHODS[method].protocol_of(self.protocol)
        config = train_svm.SvmConfig(
            self.windows(method, scales),
            layer,
            take(SvmRules, protocol),
            take(DetectRules, protocol),
            self.protocol.name,
            self.seed,
        )
        inputs = self._training_inputs() | {"network": self.network()}
        if layer != row:
            head = inputs["head"] = self.head(method, scales)
            brings = isinstance(head, Stage) and head.name == "finetune-all"
            if brings or (isinstance(head, Path) and finetuning.brings_network(head)):
                inputs["network"] = head
        walk = self._walk("trainval", method, scales)
        cost_of = partial(self._svm_cost, config, walk)
        return self._stage(
            "train-svm",
            ["detector", method, _joined(scales), row, self._seed(), self._tuned(row), self._fold()],
            config,
            inputs,
            train_svm.train_detector,
            cost_of,
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def with_bbox(self, detector: Source, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """A detector with box regressors added; `row` is the new one's."""
        protocol = METHODS[method].protocol_of(self.protocol)
        config = train_bbox.BboxConfig(self.windows(method, scales), take(BboxRules, protocol), self.seed)
        cost_of = partial(self._bbox_cost, detector, method, scales)
        return self._stage(
            "train-bbox",
            [
                *("detector", method, _joined(scales), row.replace(" ", "-")),
                *(self._seed(), self._tuned(row), self._fold()),
            ],
            config,
            self._training_inputs() | {"detector": detector},
            train_bbox.add_regressors,
            cost_of,
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def _svm_cost(self, config: train_svm.SvmConfig, walk: cost.Walk) -> Cost:
        spec, device = self.network_spec(), self.how.device
        return train_svm.svm_cost(config, spec, self.profile.fc, self.voc_classes(), walk, device)

    def _bbox_cost(self, detector: Source, method: str, scales: tuple[int, ...]) -> Cost:
        if isinstance(detector, Stage):
            files, spec = detector.cost().files, self.network_spec()
        else:
            path = path_of(detector)
            files = {entry.name: entry.stat().st_size for entry in sorted(path.glob("*.*"))}
            spec = load_spec(path)
        walk = self._walk("trainval", method, scales)
        return train_bbox.bbox_cost(spec, self.voc_classes(), walk, files, self.how.device)

    # Calibration.

    def folds(self) -> Stage:
        """The images of trainval dealt out to folds."""
        config = FoldsConfig("trainval", self.calibration.folds, self.seed, self.detection_limit("trainval"))
        images = self.voc_images("trainval", config.limit)
        cost_of = partial(folds_cost, config, images)
        return self._stage(
            "folds", ["folds", self._seed()], config, {"data": self.voc()}, deal_folds, cost_of
        )

    def choose(self) -> tuple[tuple[int, ...], str]:
        """Scales and row of Table 6 that suit the size of the user's set: pool5 of five scales, with `ENOUGH` objects bb too.

        Five scales beat one by 1 and 4 mAP on 80 and 160 VOC images.  Of 80 to 200 box regression took 1 to 3 mAP
        away: a class of 250 objects gained up to 2 AP, classes of 20 to 60 lost up to 11.
        """
        dataset = load_voc(path_of(self.voc()), "trainval", self.detection_limit("trainval"))
        objects = sum((~dataset.annotation(image_id).difficult).sum() for image_id in dataset.ids)
        enough = objects >= ENOUGH * len(dataset.class_names)
        return self.protocol.scales, "pool5 bb" if enough else "pool5"

    def calibrated(self, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """A detector for a row of Table 6 with a calibration, from detectors of the same kind on folds of trainval."""
        detector = self.detector(method, scales, row)
        inputs: dict[str, Source] = {"detector": detector, "data": self.voc(), "lists": self.folds()}
        for k in range(1, self.calibration.folds + 1):
            inputs[f"fold {k}"] = replace(self, fold=k)._held_out(method, scales, row)
        return self._stage(
            "calibrate",
            ["detector", method, _joined(scales), row.replace(" ", "-"), "calibrated", self._seed()],
            CalibrateConfig(self.calibration),
            inputs,
            calibrate,
            lambda: calibrate_cost(detector.cost().files),
        )

    def _held_out(self, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """Detections in the fold, by a detector that was trained on the other images."""
        assert self.fold is not None
        detector = self.detector(method, scales, row)
        config = detecting.DetectConfig(fold_name(self.fold), self.max_windows("test"))
        walk = self._walk("trainval", method, scales)
        walk = replace(walk, images=walk.images // (self.calibration.folds - 1))
        _, _, layer, spec, fc = self._about(detector)
        return self._stage(
            "detect",
            ["detections", method, _joined(scales), row.replace(" ", "-"), self._seed(), self._fold()],
            config,
            self._training_inputs() | {"detector": detector},
            detecting.detect,
            partial(detecting.detect_cost, spec, fc, layer, walk, self.how.device),
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def detections(self, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """Detections of the test split by that detector."""
        return self.detect(
            [self.detector(method, scales, row)], [method, _joined(scales), row.replace(" ", "-")]
        )

    def detect(
        self,
        detectors: Sequence[Source],
        stem: Sequence[str],
        split: str = "test",
        scales: tuple[int, ...] | None = None,
        fast: FastOptions | None = None,
        precision: Precision | None = None,
    ) -> Stage:
        """Detections of a split by any detector or several combined, at their own scales or at others."""
        limit = self.detection_limit(split)
        config = detecting.DetectConfig(split, self.max_windows(split), limit, scales, fast, precision)
        inputs = {"data": self.voc(), "proposals": self.proposals(split)}
        inputs |= {f"detector {k}" if k > 1 else "detector": d for k, d in enumerate(detectors, 1)}
        method, own_scales, layer, spec, fc = self._about(detectors[0])
        walk = self._walk(split, method, scales or own_scales)
        return self._stage(
            "detect",
            ["detections", *stem, split, self._seed()],
            config,
            inputs,
            detecting.detect,
            partial(detecting.detect_cost, spec, fc, layer, walk, self.how.device),
            together=True,
            unfinished=detecting.lacks_images,
            shares=f"{method} {split} {self.seed}",
        )

    def photos(
        self, detector: Path, images: Sequence[Path], config: photographs.PhotoConfig, stem: Sequence[str]
    ) -> Stage:
        """Detections in image files."""
        method, scales, layer, spec, fc = self._about(detector)
        windows = config.max_windows or 2200
        crops = windows if METHODS[method].per_window else None
        walk = cost.Walk(len(images), windows, _SIZE[False], crops, config.scales or scales)
        return self._stage(
            "detect-photos",
            ["photos", *stem],
            config,
            {"detector": detector},
            photographs.detect_photos,
            partial(photographs.photos_cost, spec, fc, layer, walk, self.how.device),
            images=tuple(images),
            threads=None,
            unfinished=photographs.lacks_photos,
        )

    def _about(self, detector: Source) -> tuple[str, tuple[int, ...], str, NetworkSpec, int]:
        """Method, scales and layer of a detector, its network and its number of fc outputs, for estimates."""
        path = path_of(detector)
        if not isinstance(detector, Stage):
            about = read_description(path)
            spec = load_spec(path)
            return about.method, about.scales, about.layer, spec, spec.fc or self.profile.fc
        config = detector.config
        stage = detector
        while isinstance(config, train_bbox.BboxConfig | CalibrateConfig):
            base = stage.inputs["detector"]
            if not isinstance(base, Stage):
                return self._about(base)
            stage, config = base, base.config
        windows = config.windows
        return windows.method, windows.scales, config.layer, self.network_spec(), self.profile.fc

    def times(self, sides: dict[str, tuple["Workspace", str, tuple[int, ...], Stage]]) -> Stage:
        """Seconds of the features of columns: of each a workspace (whose network it is), method, scales, detector."""
        device = self.how.device
        machine = processor() if device == "cpu" else making.device_name(device)
        inputs = {"data": self.voc(), "proposals": self.proposals("test")}
        timed = []
        for name, (ws, method, scales, detector) in sides.items():
            inputs |= {f"network {name}": ws.network(), f"detector {name}": detector}
            timed.append((name, TimedFeatures(method, scales, f"detector {name}", f"network {name}")))
        config = TimeConfig(
            tuple(timed),
            take(MappingRules, self.protocol),
            self.profile.timing_images,
            self.profile.timing_windows,
            self.detection_limit("test"),
            self.seed,
            machine,
            device,
        )
        stem = ["times", *([] if len(sides) == 3 else sides), self._seed()]
        return self._stage(
            "time", stem, config, inputs, time_features, partial(time_cost, config), threads=None, alone=True
        )

    def _training_inputs(self) -> dict[str, Source]:
        inputs = {"data": self.voc(), "proposals": self.proposals("trainval")}
        return inputs | ({"lists": self.folds()} if self.fold is not None else {})

    def measures_rcnn(self) -> bool:
        """Whether tables have R-CNN's mAP, or its time alone."""
        return self.profile.rcnn_map if self.rcnn_map is None else self.rcnn_map

    # Whole images.

    def image_set(self, dataset: Dataset, split: str) -> ImageSet:
        """A split of VOC, or all of Caltech101."""
        return ImageSet(dataset, split if dataset == "VOC" else None, self.limit)

    def _images_data(self, images: ImageSet) -> Source:
        return self.voc() if images.dataset == "VOC" else self.caltech_data()

    def pooled_layers(self, pyramid: str = "spp6") -> tuple[str, ...]:
        """The layers whose length does not depend on the image: all of them take one pass, and share it."""
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
        """Features that hold a layer, with all the layers that share its pass."""
        layers = MAP_LAYERS if layer in MAP_LAYERS else self.pooled_layers(column.pyramid)
        return self.features(column, layers if layer in layers else (layer,), images)

    def _extract_cost(
        self, config: extracting.ExtractConfig, spec: NetworkSpec, images: ImageSet | None, files: int
    ) -> Cost:
        count = files if images is None else self.count(images)
        return extracting.extract_cost(config, spec, count, self.image_size(), self.how.device)

    def count(self, images: ImageSet) -> int:
        """How many images a set holds; the embedded data need not be there."""
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
        """SVMs on a layer of whole images: of a VOC list, or of Caltech101's random splits."""
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
        classes = self.voc_classes() if config.images.dataset == "VOC" else 102
        return image_training.image_svm_cost(
            config, self.count(config.images), classes, features.cost().files
        )

    def tested_svms(
        self, column: Column, layer: str, dataset: Dataset, *, train: str = "trainval", test: str = "test"
    ) -> TestedSvms:
        """SVMs of VOC trained on one list and tested on another, of Caltech101 on its splits."""
        svms = self.image_svms(column, layer, self.image_set(dataset, train))
        return TestedSvms(svms, self.layer_features(column, layer, self.image_set(dataset, test)))

    def imported(self, weights: Path, kind: str, dropout_scaling: str) -> Stage:
        """A network from a Caffe model."""
        config = importing.ImportConfig(kind, dropout_scaling)
        inputs: dict[str, Source] = {"weights": weights}
        cost_of = partial(importing.import_cost, weights)
        return self._stage(
            "import-weights", [weights.stem], config, inputs, importing.import_network, cost_of
        )

    # Pictures.

    def picture_detections(self, config: pictures.DetectionPictures, detections: Source) -> Stage:
        """Figure 6."""
        inputs = {"detections": detections, "data": self.voc()}
        if isinstance(detections, Path) and isinstance(inputs["data"], Path):
            pictures.require_drawable(config, detections, inputs["data"])
        count = len(config.ids) or config.count
        cost_of = partial(pictures.pictures_cost, count, 0.0)
        build = pictures.picture_detections
        return self._stage("visualize", ["pictures"], config, inputs, build, cost_of)

    def picture_responses(self, config: pictures.ResponsePictures, files: Sequence[Path] = ()) -> Stage:
        """Figure 2."""
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
        seconds = cost.forward_seconds(self.network_spec(), count, size, size, self.how.device)
        return pictures.pictures_cost(config.count, seconds)

    def _seed(self) -> str:
        return f"seed{self.seed}"

    def _fold(self) -> str:
        return "" if self.fold is None else fold_name(self.fold)

    def _tuned(self, row: str) -> str:
        return f"tuned{self.tuning}" if self.tuning is not None and row.startswith("ft") else ""


def _joined(numbers: tuple[int, ...]) -> str:
    """Sizes by name: all of few, the ends of many."""
    shown = numbers if len(numbers) < 3 else (numbers[0], numbers[-1])
    return "-".join(map(str, shown))
