"""The stages of one profile and seed: each method describes a stage and everything that it needs."""

from sppnet_cli.stages.workspace.base import NeedsData
from sppnet_cli.stages.workspace.detectors import DetectorStages
from sppnet_cli.stages.workspace.networks import MULTI_SIZE, PYRAMIDS, SINGLE_SIZE
from sppnet_cli.stages.workspace.whole_images import SWEEP, Column, TestedSvms, WholeImageStages

__all__ = [
    "MULTI_SIZE",
    "PYRAMIDS",
    "SINGLE_SIZE",
    "SWEEP",
    "Column",
    "NeedsData",
    "TestedSvms",
    "Workspace",
]


class Workspace(DetectorStages, WholeImageStages):
    """The stages of one profile and seed, and where their runs lie.

    `ws.detector("spp", (688,), "ftfc7")` describes a detector and all that it needs; `ws.make(...)` makes it.
    """
