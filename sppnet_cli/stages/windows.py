"""Which windows of which images a stage uses, and how they are pooled."""

import hashlib
from dataclasses import dataclass

import torch

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.console import track
from sppnet_cli.data.voc import load_voc
from sppnet_cli.distributed import barrier, world
from sppnet_cli.features.cache import FeatureCache
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import MappingRules
from sppnet_cli.runs import fingerprint


@dataclass(frozen=True)
class WindowConfig:
    """The windows of a split, and how their features are pooled."""

    split: str
    method: str  # of names.METHODS
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
    """The windows of `config`, with the ground truth among them if `truth`.

    Stages share cached features if method, network (its hash is `network_id`), data and precision are the same, and, for
    a method that caches windows instead of maps, the windows.
    The list of the split is that in the input `lists`, if there is one.
    """
    dataset = load_voc(inputs["data"], config.split, config.limit, lists=inputs.get("lists"))
    if isinstance(network, SPPNet):
        extractor = make_extractor(config.method, network, config.mapping, config.scales, how.device)
    else:
        extractor = network
    key = f"{extractor.method} {network_id} {fingerprint(dataset.root)}"
    if extractor.dtype != torch.float32:
        key += f" {extractor.dtype}"
    if extractor.per_window:
        key += f" {fingerprint(inputs['proposals'])} {config.max_windows} {truth}"
    folder = f"{extractor.method}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    cache = FeatureCache(how.cache / folder, how.cache_gb, weighed=not extractor.per_window)
    return WindowSource(dataset, inputs["proposals"], extractor, cache, config.max_windows, with_truth=truth)


def _what(source: WindowSource) -> str:
    return "window features" if source.extractor.per_window else "conv5 maps"


def fill_cache(source: WindowSource) -> None:
    """Under torchrun, each process puts its share of the features into the cache while there is room."""
    here = world()
    if here.size > 1:
        for index in track(
            range(here.rank, len(source), here.size), f"{_what(source)} of {source.dataset.split}"
        ):
            if not source.keep(index):
                break
        barrier()
