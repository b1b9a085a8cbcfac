"""The configs of stages as the commands make them without options, to tell what differs from them in a run."""

import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from sppnet_cli.chain import behind
from sppnet_cli.stages.profiles import PROFILES, find_profile
from sppnet_cli.stages.workspace import MULTI_SIZE, Column, Workspace


@functools.cache
def default_configs(profile: str) -> dict[str, list[Any]]:
    """By the name of a stage its configs in JSON's types; none of a profile that is unknown or makes no network."""
    if profile not in PROFILES or PROFILES[profile].data is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(find_profile(profile), root=Path(folder))
        spp, rcnn = ws.protocol.scales, ()
        column = Column("spp6", "full", 224)
        voc = ws.image_set("VOC", "trainval")
        stages = [
            ws.detections("spp", spp, "ftfc7 bb"),
            ws.detector("rcnn", rcnn, "ftfc7"),
            ws.trained_network("spp6", MULTI_SIZE),
            ws.errors("spp6", (224,), "10"),
            ws.image_svms(column, "SPP pool5", voc),
            ws.image_svms(column, "SPP pool5", ws.image_set("Caltech101", "")),
        ]
        found: dict[str, list[Any]] = {}
        for stage in behind(stages):
            config = json.loads(json.dumps(dataclasses.asdict(stage.config), default=str))
            found.setdefault(stage.name, []).append(config)
        return found
