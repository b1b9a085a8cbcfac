"""The chain of stages under a profile: each step makes what it needs first, once."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sppnet_cli.console import status
from sppnet_cli.data.mini import is_mini, make_mini
from sppnet_cli.data.proposals import METHODS, require_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import make_extractor, read_description
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.distributed import barrier, world
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.evaluation.classification import ClassificationError
from sppnet_cli.features.windows import Extractor
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.backbones import is_own, require_known
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.weights import load_network, load_spec
from sppnet_cli.protocols import PAPER, PROTOCOLS, Protocol
from sppnet_cli.stages.detect import DetectConfig, detect_stage
from sppnet_cli.stages.errors import ErrorsConfig, errors_stage, read_errors
from sppnet_cli.stages.evaluate import DetectionScore, evaluate_detections
from sppnet_cli.stages.finetune import FinetuneConfig, finetune_stage
from sppnet_cli.stages.finetune_rcnn import brings_network, finetune_rcnn_stage
from sppnet_cli.stages.import_boxes import ImportBoxesConfig, find_mat, import_boxes_stage
from sppnet_cli.stages.pretrain import BackboneConfig, PretrainConfig, backbone_stage, pretrain_stage
from sppnet_cli.stages.profiles import PROFILES, Profile
from sppnet_cli.stages.propose import ProposeConfig, propose_stage
from sppnet_cli.stages.train import BboxConfig, SvmConfig, bbox_stage, svm_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs

PYRAMIDS = {"plain": None, "spp4": SPP4, "spp6": SPP6}


class NeedsData(DataError):
    """The profile has no data of its own, and none was given; `what` is missing."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message, what)  # both, so that it can be sent to other processes
        self.what = what

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Workspace:
    """Where the runs of one profile and seed lie, and how their stages follow from each other.

    Methods return run directories, made on the first call: `ws.detector(column, "ftfc7")` trains all that a
    detector on fine-tuned fc7 needs, or finds it.
    """

    profile: Profile
    root: Path = Path("runs")
    seed: int = 0
    protocol: Protocol = PAPER
    data: Path | None = None  # the user's devkit or VOC2007 folder; None: the embedded data
    imagenet: Path | None = None  # the user's ImageNet-layout folder; None: the embedded data
    caltech: Path | None = None  # the user's Caltech101; None: the embedded data
    weights: str | None = None  # of a torchvision arch
    proposals_method: str = "ss-fast"
    limit: int | None = None  # images of either split
    device: str = "cpu"
    workers: int = 1
    max_memory: float = 8.0  # GiB: fine-tuning chunks, SVM rows, samples of box regression
    cache_gb: float = 50.0  # GB of disk: conv5 maps, R-CNN's vectors
    resume: bool = True  # go on with what a cut-off stage left
    tensorboard: bool = False  # pre-training writes its events too

    rcnn_map: bool | None = None  # whether R-CNN's mAP is measured; None: as the profile says
    tuning: int | None = None  # seed of fine-tuning, where it is not the network's
    network_run: Path | None = None  # in place of the chain's own network
    head_run: Path | None = None  # in place of the chain's own fine-tuning

    @property
    def runs(self) -> Path:
        """`<root>/<profile>/seed<k>`, with a folder more for what departs from the profile's defaults."""
        folder = self.root / self.profile.name / f"seed{self.seed}"
        departures = []
        if self.profile.data is not None:
            departures += [
                given.resolve().name for given in (self.data, self.imagenet, self.caltech) if given
            ]
        if self.profile.data is None or self.profile.arch != PROFILES[self.profile.name].arch:
            departures.append(self.profile.arch.replace("/", "-"))
        if self.profile.fc != PROFILES[self.profile.name].fc:
            departures.append(f"fc{self.profile.fc}")
        if self.protocol is not PAPER:
            departures.append(self.protocol.name)
        if self.proposals_method != "ss-fast":
            departures.append(Path(self.proposals_method).name)
        if self.limit is not None:
            departures.append(f"limit{self.limit}")
        return folder / "-".join(departures) if departures else folder

    @property
    def trunk_runs(self) -> Path:
        """`runs` for what neither the protocol nor the fc layers bear on: foreign trunks, proposals, conv5 maps."""
        profile = replace(self.profile, fc=PROFILES[self.profile.name].fc)
        return replace(self, profile=profile, protocol=PAPER).runs

    def mini_folder(self) -> Path:
        """Where the embedded data lies."""
        return self.root / self.profile.name / "data"

    def mini(self) -> Path:
        """The embedded data set, made on first use."""
        folder = self.mini_folder()
        assert self.profile.data is not None
        if world().first and not is_mini(folder, size=self.profile.data):
            status(f"making the embedded data set in {folder}")
            make_mini(folder, size=self.profile.data)
        barrier()
        return folder

    def voc_data(self) -> Path:
        """The VOC folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.data is not None:
            return self.data
        if self.profile.data is None:
            raise NeedsData(f"profile {self.profile.name} needs VOC 2007: give --data DIR", "VOC 2007")
        return self.mini() / "VOCdevkit"

    def detection_limit(self, split: str) -> int | None:
        """How many images of a VOC split detection takes: `limit`, and on the embedded data the profile's number."""
        few = self.profile.detection_images
        if few is None or self.data is not None:
            return self.limit
        return min(few[split == "test"], self.limit or few[1] + few[0])

    def imagenet_data(self) -> Path:
        """The ImageNet-layout folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.imagenet is not None:
            return self.imagenet
        if self.profile.data is None:
            raise NeedsData(
                f"profile {self.profile.name} needs a network: train one with `sppnet pretrain --data ILSVRC2012` "
                "and give --network RUN",
                "ImageNet",
            )
        return self.mini() / "imagenet"

    def caltech_data(self) -> Path:
        """The Caltech101 folder.  Raises `NeedsData` where the profile needs one and none was given."""
        if self.caltech is not None:
            return self.caltech
        if self.profile.data is None:
            raise NeedsData(f"profile {self.profile.name} needs Caltech101: give --data DIR", "Caltech101")
        return self.mini() / "caltech101"

    def network_folder(self, pyramid: str, sizes: tuple[int, ...], out: Path | None = None) -> Path:
        """Where `network` goes."""
        joined = f"{min(sizes)}..{max(sizes)}" if self.profile.recipe.draw_size else _joined(sizes)
        if is_own(self.profile.arch):
            own = replace(self, protocol=PAPER).runs / f"network-{pyramid}-{joined}"
        else:
            own = self.trunk_runs / f"network-{pyramid}"
        return out or self.network_run or own

    def network(
        self, pyramid: str = "spp6", sizes: tuple[int, ...] = (224,), out: Path | None = None
    ) -> Path:
        """A trained network: `plain`, `spp4` or `spp6`, on one training size or several in turn."""
        profile = self.profile
        folder = self.network_folder(pyramid, sizes, out)
        if folder == self.network_run:
            return folder
        require_known(profile.arch)
        if not is_own(profile.arch):
            if self.weights is None:
                raise DataError(f"{profile.arch} needs ImageNet weights: give --weights FILE or DEFAULT")
            config = BackboneConfig(profile.arch, PYRAMIDS[pyramid])
            return backbone_stage(config, self.weights, self.fresh(folder))
        recipe = replace(profile.recipe, sizes=sizes)
        training = PretrainConfig(
            profile.arch, profile.width, PYRAMIDS[pyramid], profile.fc, recipe, self.seed, self.limit
        )
        return pretrain_stage(
            training,
            self.imagenet_data(),
            self.fresh(folder),
            device=self.device,
            workers=self.workers,
            tensorboard=self.tensorboard,
        )

    def errors_folder(self, pyramid: str, sizes: tuple[int, ...], views: str) -> Path:
        """Where `errors` go."""
        network = self.network_folder(pyramid, sizes)
        return self.runs / "-".join(["errors", *network.name.split("-")[1:], views.replace(":", "-")])

    def errors(self, pyramid: str, sizes: tuple[int, ...], views: str) -> ClassificationError:
        """Which validation images a trained network gets wrong."""
        run = errors_stage(
            ErrorsConfig(views, self.limit),
            self.network(pyramid, sizes),
            self.imagenet_data(),
            self.fresh(self.errors_folder(pyramid, sizes, views)),
            device=self.device,
            workers=self.workers,
        )
        return read_errors(run)

    def has_head(self) -> bool:
        """Whether the network brings fc6 and fc7; trunks of torchvision do not."""
        return is_own(self.profile.arch) if self.network_run is None else bool(load_spec(self.network_run).fc)

    def measures_rcnn(self) -> bool:
        """Whether tables have R-CNN's mAP, or its time alone."""
        return self.profile.rcnn_map if self.rcnn_map is None else self.rcnn_map

    def extractor(self, method: str, scales: tuple[int, ...]) -> Extractor:
        """Window features of the network, uncached."""
        network = load_network(self.network())
        return make_extractor(method, network, self.protocol, scales, self.device)

    def proposals_run(self, split: str) -> Path | None:
        """The run of `sppnet propose` that was given in place of a method.  Raises `DataError` for another folder."""
        given = Path(self.proposals_method)
        if self.proposals_method in METHODS or not given.is_dir() or find_mat(given, split) is not None:
            return None
        if not (given / "boxes").is_dir():
            raise DataError(
                f"{given}: neither a run of `sppnet propose` (it has no boxes folder) nor a folder of .mat files; "
                "check --proposals"
            )
        return given

    def proposals_folder(self, split: str, out: Path | None = None) -> Path:
        """Where `proposals` goes, or the run that was given in place of a method."""
        return self.proposals_run(split) or out or self.trunk_runs / f"proposals-{split}"

    def proposals(self, split: str, out: Path | None = None) -> Path:
        """Window proposals of a VOC split."""
        folder = self.proposals_folder(split, out)
        if self.proposals_run(split) is not None:
            dataset = load_voc(self.voc_data(), split, self.detection_limit(split))
            require_boxes(folder, dataset.ids, split)
            return folder
        mat = None if self.proposals_method in METHODS else find_mat(Path(self.proposals_method), split)
        if mat is not None:
            limit = self.detection_limit(split)
            return import_boxes_stage(
                ImportBoxesConfig(split, limit), mat, self.voc_data(), self.fresh(folder)
            )
        config = ProposeConfig(split, self.proposals_method, self.seed, self.detection_limit(split))
        return propose_stage(config, self.voc_data(), self.fresh(folder), workers=self.workers)

    def windows(self, split: str, method: str, scales: tuple[int, ...]) -> WindowConfig:
        """The windows of a split: the profile's number on its own data, up to 2,000 on the user's."""
        profile = self.profile
        count = profile.test_windows if split == "test" else profile.train_windows
        if self.data is not None:
            count = max(count, profile.timing_windows)
        return WindowConfig(split, method, scales, self.protocol.name, count, self.detection_limit(split))

    def inputs(self, split: str) -> WindowInputs:
        """Data, proposals and cache of a split."""
        return WindowInputs(self.voc_data(), self.proposals(split), self.trunk_runs / "cache", self.cache_gb)

    def head_folder(self, method: str, scales: tuple[int, ...], out: Path | None = None) -> Path:
        """Where `head` goes."""
        return out or self.head_run or self.runs / (_name("finetune", method, scales) + self._tuned("ft"))

    def head(self, method: str, scales: tuple[int, ...], out: Path | None = None) -> Path:
        """Fine-tuned fc layers; of R-CNN with their own trunk, where the profile fine-tunes all layers."""
        folder = self.head_folder(method, scales, out)
        if folder == self.head_run:
            return folder
        config = FinetuneConfig(
            self.windows("trainval", method, scales),
            self.profile.schedule(self.protocol),
            self.profile.fc,
            self.profile.flip,
            self.seed if self.tuning is None else self.tuning,
        )
        inputs = self.inputs("trainval")  # before any training: what is wrong with them is told at once
        network, out = self.network(), self.fresh(folder)
        if method == "rcnn" and self.profile.rcnn_finetune == "all":
            return finetune_rcnn_stage(
                config,
                network,
                inputs,
                out,
                device=self.device,
                workers=self.workers,
                max_gib=self.max_memory / 2,
            )
        return finetune_stage(config, network, inputs, out, device=self.device, max_gib=self.max_memory / 8)

    def detector_folder(
        self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None
    ) -> Path:
        """Where `detector` goes."""
        return out or self.runs / (_name("detector", method, scales, row) + self._tuned(row))

    def detector(self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None) -> Path:
        """A detector for a row of Table 6: pool5, fc6, fc7, ftfc6, ftfc7, each also with ` bb`."""
        folder = self.detector_folder(method, scales, row, out)
        if row.endswith(" bb"):
            base = self.detector(method, scales, row.removesuffix(" bb"))
            return self.with_bbox(base, method, scales, folder)
        inputs = self.inputs("trainval")
        head = self.head(method, scales) if row.startswith("ft") else None
        network = head if head is not None and brings_network(head) else self.network()
        config = SvmConfig(self.windows("trainval", method, scales), row.removeprefix("ft"), self.seed)
        return svm_stage(
            config,
            network,
            head,
            inputs,
            self.fresh(folder),
            device=self.device,
            max_gib=0.75 * self.max_memory,
        )

    def with_bbox(self, detector: Path, method: str, scales: tuple[int, ...], out: Path) -> Path:
        """A detector with box regressors added."""
        config = BboxConfig(self.windows("trainval", method, scales), self.seed)
        return bbox_stage(
            config,
            detector,
            self.inputs("trainval"),
            self.fresh(out),
            device=self.device,
            max_gib=0.75 * self.max_memory,
        )

    def detections_folder(
        self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None
    ) -> Path:
        """Where `detections` goes."""
        return out or self.runs / (_name("detections", method, scales, row) + self._tuned(row))

    def detections(self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None) -> Path:
        """Detections of the test split by that detector."""
        self.proposals("test")  # before any training
        detector = self.detector(method, scales, row)
        return self.detect_with((detector,), self.detections_folder(method, scales, row, out))

    def detect_with(
        self,
        detectors: tuple[Path, ...],
        out: Path,
        split: str = "test",
        scales: tuple[int, ...] | None = None,
        fast: FastOptions | None = None,
        precision: Precision | None = None,
    ) -> Path:
        """Detections of a split by any detector or several combined, at their own scales or at others."""
        about = read_description(detectors[0])
        config = DetectConfig(self.windows(split, about.method, scales or about.scales), fast, precision)
        return detect_stage(
            config,
            detectors,
            self.inputs(split),
            self.fresh(out),
            device=self.device,
            workers=self.workers,
        )

    def score(self, method: str, scales: tuple[int, ...], row: str) -> DetectionScore:
        """AP of that detector on the test split."""
        detections = self.detections(method, scales, row)
        return evaluate_detections(detections, self.voc_data(), "test", self.detection_limit("test"))

    def score_together(self, detectors: tuple[Path, ...], name: str) -> DetectionScore:
        """AP on the test split of any detectors, or of several combined; the detections go to `name`."""
        out = self.detect_with(detectors, self.runs / name)
        return evaluate_detections(out, self.voc_data(), "test", self.detection_limit("test"))

    def _tuned(self, row: str) -> str:
        return f"-tuned{self.tuning}" if self.tuning is not None and row.startswith("ft") else ""

    def fresh(self, out: Path) -> Path:
        """`out`, without what a cut-off run left there unless it is to be resumed."""
        if not self.resume and world().first:
            shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)
        return out


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.  Raises `UsageError` for another."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _joined(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))


def _name(stage: str, method: str, scales: tuple[int, ...], row: str = "") -> str:
    return "-".join(part for part in (stage, method, _joined(scales), row.replace(" ", "-")) if part)
