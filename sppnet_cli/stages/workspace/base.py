"""What all stages of a workspace depend on: profile, seed, protocol and data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sppnet_cli import chain, making
from sppnet_cli.chain import Cost, Part, Plan, Resources, Source, Stage, named, path_of
from sppnet_cli.data.mini import MiniSize
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.learning.calibration import CalibrationRules
from sppnet_cli.protocols import (
    PAPER,
    Protocol,
)
from sppnet_cli.stages.embedded import EmbeddedConfig, embedded_cost, make_embedded
from sppnet_cli.stages.import_set import ImportConfig, import_set, import_set_cost
from sppnet_cli.stages.profiles import Profile

ENOUGH = 200  # objects of a class, on average, for its box regressor to gain
HELD_OUT = 0.2  # of the images of an export that has no split
CALIBRATION = CalibrationRules(folds=4, slope_spread=0.3, offset_spread=2.0)
EMBEDDED_SIZE, VOC_SIZE = (265, 335), (375, 500)  # height and width of a typical image


class NeedsData(DataError):
    """The profile brings no data, and none were given; `what` is missing."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message, what)  # both, so that it can be pickled
        self.what = what

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Base:
    """The settings of a workspace, its data, and how its stages are named."""

    profile: Profile
    root: Path = Path("runs")
    seed: int = 0
    protocol: Protocol = PAPER
    data: Path | None = None  # the user's devkit or VOC2007 folder; None: the embedded data
    imagenet: Path | None = None  # the user's ImageNet-layout folder; None: the embedded data
    caltech: Path | None = None  # the user's Caltech101; None: the embedded data
    weights: str | None = None  # of a torchvision arch
    proposals_method: str | None = None  # a method, several joined by +, or a path; None: the profile's
    proposals_seed: int = 0
    limit: int | None = None  # images of each split
    how: Resources = field(default_factory=Resources)
    jobs: int | None = None  # stages that run at once; None: as many as fit
    remake: bool = False  # make the targets again, and what they need that other code made

    rcnn_map: bool | None = None  # whether R-CNN's mAP is measured; None: the profile decides
    tuning: int | None = None  # seed of fine-tuning; None: the network's
    network_run: Path | None = None  # a given network; None: the workspace makes one
    head_run: Path | None = None  # given fine-tuned layers; None: the workspace makes them
    calibration: CalibrationRules = CALIBRATION  # of calibrated detectors
    fold: int | None = None  # detectors learn from trainval without this fold, and detect in it

    @property
    def runs(self) -> Path:
        """Folder of the profile's runs."""
        return self.root / self.profile.name

    def make(self, *stages: Stage) -> Plan:
        """Make stages, and what they need and lack."""
        how = replace(self.how, cache=self.runs / "cache")
        return making.make(stages, how, jobs=self.jobs, remake=self.remake)

    def expected_seconds(self, stages: list[Stage]) -> float:
        """About how long it takes to make these stages alone, inputs first."""
        return making.expected_seconds(stages, self.how, self.jobs)

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

    def _seed(self) -> str:
        return f"seed{self.seed}"

    def embedded(self, seed: int = 0) -> Stage:
        """The embedded data set; experiments use that of seed 0 with every seed of the network."""
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
        """How many images of a VOC split detection uses: `limit`, at most the profile's number on the embedded data."""
        most = self.profile.detection_images
        if most is None or self.data is not None:
            return self.limit
        return min(most[split == "test"], self.limit or sum(most))

    def voc_images(self, split: str, limit: int | None) -> int:
        """How many images a split has, at most `limit`; the embedded data need not exist yet."""
        if self.data is not None or self.profile.data is None:
            return len(load_voc(path_of(self.voc()), split, limit))
        size = self._embedded_size()
        train = size.voc_trainval // 2
        lists = {"train": train, "val": size.voc_trainval - train, "test": size.voc_test}
        count = lists.get(split, size.voc_trainval)
        return min(count, limit or count)

    def voc_classes(self) -> int:
        """How many classes the VOC set has; the embedded data need not exist yet."""
        if self.data is not None or self.profile.data is None:
            return len(load_voc(path_of(self.voc()), "trainval").class_names)
        return len(CLASSES)

    def image_size(self) -> tuple[int, int]:
        """Height and width of a typical image of the detection set."""
        return EMBEDDED_SIZE if self.data is None and self.profile.data is not None else VOC_SIZE


def joined(numbers: tuple[int, ...]) -> str:
    """Sizes for the name of a folder: one or two, or the first and last of more."""
    shown = numbers if len(numbers) < 3 else (numbers[0], numbers[-1])
    return "-".join(map(str, shown))
