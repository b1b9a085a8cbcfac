"""What the stages that learn from or score windows share: which windows, of which images, pooled how."""

import hashlib
from dataclasses import dataclass

import torch

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.console import track
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import make_extractor
from sppnet_cli.distributed import barrier, world
from sppnet_cli.features.windows import Extractor, FeatureCache, WindowSource
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import MappingRules
from sppnet_cli.runs import fingerprint


@dataclass(frozen=True)
class WindowConfig:
    """Windows of a split and the way their features are pooled."""

    split: str
    method: str  # a name in METHODS
    scales: tuple[int, ...]  # short sides in pixels; none for R-CNN
    mapping: MappingRules
    max_windows: int | None  # proposals per image; None: all
    limit: int | None = None  # images


def window_source(
    config: WindowConfig,
    inputs: Inputs,
    how: Resources,
    network: SPPNet | Extractor,
    network_id: str,
    *,
    truth: bool,
) -> WindowSource:
    """The windows of `config`, with the ground truth among them when `truth`.

    `network_id` (a fingerprint), the data's fingerprint and the precision keep cached maps apart; R-CNN's vectors also
    depend on the windows.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit)
    if isinstance(network, SPPNet):
        extractor = make_extractor(config.method, network, config.mapping, config.scales, how.device)
    else:
        extractor = network
    key = f"{config.method} {network_id} {fingerprint(dataset.root)}"
    if extractor.dtype != torch.float32:
        key += f" {extractor.dtype}"
    if config.method == "rcnn":
        key += f" {fingerprint(inputs['proposals'])} {config.max_windows} {truth}"
    folder = f"{config.method}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    # R-CNN's vectors take so long that reading them back is always quicker.
    cache = FeatureCache(how.cache / folder, how.cache_gb, weighed=config.method == "spp")
    return WindowSource(dataset, inputs["proposals"], extractor, cache, config.max_windows, with_truth=truth)


def fill_cache(source: WindowSource) -> None:
    """Of several processes of torchrun each puts its share of the features into the cache, as long as there is room."""
    here = world()
    if here.size > 1:
        for index in track(range(here.rank, len(source), here.size), "features"):
            if not source.keep(index):
                break
        barrier()
