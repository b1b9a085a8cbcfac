"""Stages that propose windows, and which windows detectors are trained and tested on."""

from functools import partial
from pathlib import Path

from sppnet_cli.chain import Source
from sppnet_cli.data.proposals import METHODS as PROPOSAL_METHODS
from sppnet_cli.data.proposals import proposal_parts, require_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.features.methods import METHODS
from sppnet_cli.protocols import (
    MappingRules,
    take,
)
from sppnet_cli.stages import cost
from sppnet_cli.stages import propose as proposing
from sppnet_cli.stages.folds import rest_name
from sppnet_cli.stages.windows import WindowConfig
from sppnet_cli.stages.workspace.networks import NetworkStages


class WindowStages(NetworkStages):
    """Stages that propose windows."""

    def proposals(self, split: str) -> Source:
        """Proposals for a VOC split: by a method, by several together, from the authors' files, or a given run."""
        method = self.proposals_method or self.profile.proposals
        parts = proposal_parts(method)
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

    def max_windows(self, split: str) -> int | None:
        """Proposals per image: the profile's number on the embedded data, more on the user's; None: all."""
        profile = self.profile
        count = profile.test_windows if split == "test" else profile.train_windows
        if count is not None and self.data is not None:
            count = max(count, profile.timing_windows)
        return count

    def windows(self, method: str, scales: tuple[int, ...]) -> WindowConfig:
        """Which windows detectors learn from, and how they are pooled."""
        mapping = take(MappingRules, METHODS[method].protocol_of(self.protocol))
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
