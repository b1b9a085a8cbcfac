"""The chain of stages under a profile: each step makes what it needs first, once."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sppnet_cli.console import status
from sppnet_cli.data.mini import is_mini, make_mini
from sppnet_cli.detection.detector import make_extractor
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.windows import Extractor
from sppnet_cli.network.backbones import require_known
from sppnet_cli.network.pyramid import SPP4, SPP6
from sppnet_cli.network.weights import load_network, load_spec
from sppnet_cli.protocols import PAPER, PROTOCOLS, Protocol
from sppnet_cli.stages.detect import DetectConfig, detect_stage
from sppnet_cli.stages.evaluate import DetectionScore, evaluate_detections
from sppnet_cli.stages.finetune import FinetuneConfig, finetune_stage
from sppnet_cli.stages.pretrain import BackboneConfig, PretrainConfig, backbone_stage, pretrain_stage
from sppnet_cli.stages.profiles import Profile
from sppnet_cli.stages.propose import ProposeConfig, propose_stage
from sppnet_cli.stages.train import BboxConfig, SvmConfig, bbox_stage, svm_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs

PYRAMIDS = {"plain": None, "spp4": SPP4, "spp6": SPP6}


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
    weights: str | None = None  # of a torchvision arch
    proposals_method: str = "ss-fast"
    limit: int | None = None  # images of either split
    device: str = "cpu"
    workers: int = 1
    max_memory: float = 8.0  # GiB: fine-tuning chunks, SVM rows
    resume: bool = True  # go on with what a cut-off stage left

    network_run: Path | None = None  # in place of the chain's own network
    head_run: Path | None = None  # in place of the chain's own fine-tuning

    @property
    def runs(self) -> Path:
        """`<root>/<profile>/seed<k>`, with a folder more for what departs from the profile's defaults."""
        folder = self.root / self.profile.name / f"seed{self.seed}"
        departures = []
        if self.profile.data is not None:
            departures += [given.resolve().name for given in (self.data, self.imagenet) if given]
        if self.profile.data is None:
            departures.append(self.profile.arch)
        if self.protocol is not PAPER:
            departures.append(self.protocol.name)
        if self.proposals_method != "ss-fast":
            departures.append(Path(self.proposals_method).name)
        if self.limit is not None:
            departures.append(f"limit{self.limit}")
        return folder / "-".join(departures) if departures else folder

    def mini_folder(self) -> Path:
        """Where the embedded data lies."""
        return self.root / self.profile.name / "data"

    def mini(self) -> Path:
        """The embedded data set, made on first use."""
        folder = self.mini_folder()
        assert self.profile.data is not None
        if not is_mini(folder, size=self.profile.data):
            status(f"making the embedded data set in {folder}")
            make_mini(folder, size=self.profile.data)
        return folder

    def voc_data(self) -> Path:
        """The VOC folder.  Raises `DataError` where the profile needs one and none was given."""
        if self.data is not None:
            return self.data
        if self.profile.data is None:
            raise DataError(f"profile {self.profile.name} needs VOC 2007: give --data DIR (make: VOC=DIR)")
        return self.mini() / "VOCdevkit"

    def imagenet_data(self) -> Path:
        """The ImageNet-layout folder.  Raises `DataError` where the profile needs one and none was given."""
        if self.imagenet is not None:
            return self.imagenet
        if self.profile.data is None:
            raise DataError(
                f"profile {self.profile.name} needs a network: train one with `sppnet pretrain --data ILSVRC2012` "
                "and give --network RUN (make: IMAGENET=DIR)"
            )
        return self.mini() / "imagenet"

    def network_folder(self, pyramid: str, sizes: tuple[int, ...], out: Path | None = None) -> Path:
        """Where `network` goes."""
        name = "network" if self.profile.arch != "zf5" else f"network-{pyramid}-{_joined(sizes)}"
        return out or self.network_run or self.runs / name

    def network(
        self, pyramid: str = "spp6", sizes: tuple[int, ...] = (224,), out: Path | None = None
    ) -> Path:
        """A trained network: `plain`, `spp4` or `spp6`, on one training size or several in turn."""
        profile = self.profile
        folder = self.network_folder(pyramid, sizes, out)
        if folder == self.network_run:
            return folder
        require_known(profile.arch)
        if profile.arch != "zf5":
            if self.weights is None:
                raise DataError(f"{profile.arch} needs ImageNet weights: give --weights FILE or DEFAULT")
            return backbone_stage(BackboneConfig(profile.arch), self.weights, self._fresh(folder))
        recipe = replace(profile.recipe, sizes=sizes)
        config = PretrainConfig(
            profile.arch, profile.width, PYRAMIDS[pyramid], profile.fc, recipe, self.seed, self.limit
        )
        return pretrain_stage(
            config, self.imagenet_data(), self._fresh(folder), device=self.device, workers=self.workers
        )

    def has_head(self) -> bool:
        """Whether the network brings fc6 and fc7."""
        return bool(load_spec(self.network()).fc)

    def extractor(self, method: str, scales: tuple[int, ...]) -> Extractor:
        """Window features of the network, uncached."""
        network = load_network(self.network())
        return make_extractor(method, network, self.protocol, scales, self.device)

    def proposals_folder(self, split: str, out: Path | None = None) -> Path:
        """Where `proposals` goes, or the folder that was given in place of a method."""
        if Path(self.proposals_method).is_dir():
            return Path(self.proposals_method)
        return out or self.runs / f"proposals-{split}"

    def proposals(self, split: str, out: Path | None = None) -> Path:
        """Window proposals of a VOC split."""
        folder = self.proposals_folder(split, out)
        if folder == Path(self.proposals_method):
            return folder
        config = ProposeConfig(split, self.proposals_method, self.seed, self.limit)
        return propose_stage(config, self.voc_data(), self._fresh(folder), workers=self.workers)

    def windows(self, split: str, method: str, scales: tuple[int, ...]) -> WindowConfig:
        """The windows of a split: the profile's number on its own data, up to 2,000 on the user's."""
        profile = self.profile
        count = profile.test_windows if split == "test" else profile.train_windows
        if self.data is not None:
            count = max(count, profile.timing_windows)
        return WindowConfig(split, method, scales, self.protocol.name, count, self.limit)

    def inputs(self, split: str) -> WindowInputs:
        """Data, proposals and cache of a split."""
        return WindowInputs(self.voc_data(), self.proposals(split), self.runs / "cache")

    def head_folder(self, method: str, scales: tuple[int, ...], out: Path | None = None) -> Path:
        """Where `head` goes."""
        return out or self.head_run or self.runs / _name("finetune", method, scales)

    def head(self, method: str, scales: tuple[int, ...], out: Path | None = None) -> Path:
        """Fine-tuned fc layers."""
        folder = self.head_folder(method, scales, out)
        if folder == self.head_run:
            return folder
        config = FinetuneConfig(
            self.windows("trainval", method, scales),
            self.profile.schedule(self.protocol),
            self.profile.fc,
            self.profile.flip,
            self.seed,
        )
        return finetune_stage(
            config,
            self.network(),
            self.inputs("trainval"),
            self._fresh(folder),
            device=self.device,
            max_gib=self.max_memory / 8,
        )

    def detector_folder(
        self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None
    ) -> Path:
        """Where `detector` goes."""
        return out or self.runs / _name("detector", method, scales, row)

    def detector(self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None) -> Path:
        """A detector for a row of Table 6: pool5, fc6, fc7, ftfc6, ftfc7, each also with ` bb`."""
        folder = self.detector_folder(method, scales, row, out)
        if row.endswith(" bb"):
            base = self.detector(method, scales, row.removesuffix(" bb"))
            return self.with_bbox(base, method, scales, folder)
        head = self.head(method, scales) if row.startswith("ft") else None
        config = SvmConfig(self.windows("trainval", method, scales), row.removeprefix("ft"), self.seed)
        return svm_stage(
            config,
            self.network(),
            head,
            self.inputs("trainval"),
            self._fresh(folder),
            device=self.device,
            max_gib=0.75 * self.max_memory,
        )

    def with_bbox(self, detector: Path, method: str, scales: tuple[int, ...], out: Path) -> Path:
        """A detector with box regressors added."""
        config = BboxConfig(self.windows("trainval", method, scales), self.seed)
        return bbox_stage(config, detector, self.inputs("trainval"), self._fresh(out), device=self.device)

    def detections_folder(
        self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None
    ) -> Path:
        """Where `detections` goes."""
        return out or self.runs / _name("detections", method, scales, row)

    def detections(self, method: str, scales: tuple[int, ...], row: str, out: Path | None = None) -> Path:
        """Detections of the test split by that detector."""
        detector = self.detector(method, scales, row)
        return self.detect_with(detector, method, scales, self.detections_folder(method, scales, row, out))

    def detect_with(
        self, detector: Path, method: str, scales: tuple[int, ...], out: Path, split: str = "test"
    ) -> Path:
        """Detections of a split by any detector."""
        config = DetectConfig(self.windows(split, method, scales))
        return detect_stage(config, detector, self.inputs(split), self._fresh(out), device=self.device)

    def score(self, method: str, scales: tuple[int, ...], row: str) -> DetectionScore:
        """AP of that detector on the test split."""
        return evaluate_detections(self.detections(method, scales, row), self.voc_data(), "test", self.limit)

    def _fresh(self, out: Path) -> Path:
        if not self.resume:
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
