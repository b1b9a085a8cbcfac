"""Stages that make, run and time detectors: fine-tuning, SVMs, box regression, detections, times."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from sppnet_cli import making
from sppnet_cli.chain import Cost, Source, Stage, path_of
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector_files import read_description
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import UsageError
from sppnet_cli.features.methods import METHODS
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import load_spec
from sppnet_cli.protocols import (
    BboxRules,
    DetectRules,
    FinetuneRules,
    MappingRules,
    SvmRules,
    take,
)
from sppnet_cli.provenance import processor
from sppnet_cli.stages import cost, train_bbox, train_svm
from sppnet_cli.stages import detect as detecting
from sppnet_cli.stages import finetune as finetuning
from sppnet_cli.stages import photos as photographs
from sppnet_cli.stages.calibrate import CalibrateConfig, calibrate, calibrate_cost
from sppnet_cli.stages.folds import FoldsConfig, deal_folds, fold_name, folds_cost
from sppnet_cli.stages.time_features import TimeConfig, TimedFeatures, time_cost, time_features
from sppnet_cli.stages.workspace.base import ENOUGH, VOC_SIZE, joined
from sppnet_cli.stages.workspace.windows import WindowStages


class DetectorStages(WindowStages):
    """Stages that make, run and time detectors."""

    def head(self, method: str, scales: tuple[int, ...]) -> Source:
        """Fine-tuned fc layers, with their trunk where R-CNN fine-tunes all layers."""
        return self.head_run or self.finetuned(method, scales)

    def finetuned(self, method: str, scales: tuple[int, ...]) -> Stage:
        """The fine-tuning that the workspace describes, even if a head was given."""
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
        stem = ["finetune", method, joined(scales), self._seed(), tuned, self._fold()]
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
        """The detector of a row of Table 6: pool5, fc6, fc7, ftfc6 or ftfc7, alone or followed by ` bb`."""
        if row.endswith(" bb"):
            return self.with_bbox(self.detector(method, scales, row.removesuffix(" bb")), method, scales, row)
        layer = row.removeprefix("ft")
        if layer != "pool5" and layer == row and not self.has_head():
            raise UsageError(
                f"{self.network_spec().arch} has no {layer}: give --layer pool5, or ft{layer} for fine-tuned new fc layers"
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
        cost_of = partial(self._svm_cost, config, walk, tuned=layer != row)
        return self._stage(
            "train-svm",
            ["detector", method, joined(scales), row, self._seed(), self._tuned(row), self._fold()],
            config,
            inputs,
            train_svm.train_detector,
            cost_of,
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def with_bbox(self, detector: Source, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """A detector with box regression added; `row` is that of the result."""
        protocol = METHODS[method].protocol_of(self.protocol)
        config = train_bbox.BboxConfig(self.windows(method, scales), take(BboxRules, protocol), self.seed)
        cost_of = partial(self._bbox_cost, detector, method, scales)
        return self._stage(
            "train-bbox",
            [
                *("detector", method, joined(scales), row.replace(" ", "-")),
                *(self._seed(), self._tuned(row), self._fold()),
            ],
            config,
            self._training_inputs() | {"detector": detector},
            train_bbox.add_regressors,
            cost_of,
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def _svm_cost(self, config: train_svm.SvmConfig, walk: cost.Walk, tuned: bool) -> Cost:
        spec, device = self.network_spec(), self.how.device
        return train_svm.svm_cost(
            config, spec, self.profile.fc, self.voc_classes(), walk, device, tuned=tuned
        )

    def _bbox_cost(self, detector: Source, method: str, scales: tuple[int, ...]) -> Cost:
        if isinstance(detector, Stage):
            files, spec = detector.cost().files, self.network_spec()
        else:
            path = path_of(detector)
            files = {entry.name: entry.stat().st_size for entry in sorted(path.glob("*.*"))}
            spec = load_spec(path)
        walk = self._walk("trainval", method, scales)
        return train_bbox.bbox_cost(spec, self.voc_classes(), walk, files, self.how.device)

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
        """The detector of a row of Table 6 with a calibration, from detectors of the same kind on folds of trainval."""
        detector = self.detector(method, scales, row)
        inputs: dict[str, Source] = {"detector": detector, "data": self.voc(), "lists": self.folds()}
        for k in range(1, self.calibration.folds + 1):
            inputs[f"fold {k}"] = replace(self, fold=k)._held_out(method, scales, row)
        return self._stage(
            "calibrate",
            ["detector", method, joined(scales), row.replace(" ", "-"), "calibrated", self._seed()],
            CalibrateConfig(self.calibration),
            inputs,
            calibrate,
            partial(self._calibrate_cost, detector),
        )

    def _calibrate_cost(self, detector: Stage) -> Cost:
        return calibrate_cost(detector.cost().files)

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
            ["detections", method, joined(scales), row.replace(" ", "-"), self._seed(), self._fold()],
            config,
            self._training_inputs() | {"detector": detector},
            detecting.detect,
            partial(detecting.detect_cost, spec, fc, layer, walk, self.how.device),
            together=True,
            shares=f"{method} trainval {self.seed}",
        )

    def detections(self, method: str, scales: tuple[int, ...], row: str) -> Stage:
        """Detections of the test split by the detector of these arguments."""
        return self.detect(
            [self.detector(method, scales, row)], [method, joined(scales), row.replace(" ", "-")]
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
        """Detections of a split by a detector or by several combined; `scales` replace the first one's."""
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
        walk = cost.Walk(len(images), windows, VOC_SIZE, crops, config.scales or scales)
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
        """Method, scales, layer, network and fc outputs of a detector, for estimates."""
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

    def times(self, sides: Mapping[str, tuple["DetectorStages", str, tuple[int, ...], Stage]]) -> Stage:
        """Times of features: for each name a workspace, whose network is used, a method, scales and a detector."""
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
        """Whether R-CNN's mAP is measured, or only its time."""
        return self.profile.rcnn_map if self.rcnn_map is None else self.rcnn_map

    def _fold(self) -> str:
        return "" if self.fold is None else fold_name(self.fold)

    def _tuned(self, row: str) -> str:
        return f"tuned{self.tuning}" if self.tuning is not None and row.startswith("ft") else ""
