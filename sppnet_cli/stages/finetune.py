"""Stage: fine-tune the fc layers for detection."""

from dataclasses import dataclass
from pathlib import Path

import torch

from sppnet_cli.distributed import barrier, world
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.finetune import Schedule, finetune, head_for_detection, keep_features
from sppnet_cli.learning.svm import feature_scale
from sppnet_cli.network.sppnet import Head, SPPNet
from sppnet_cli.network.weights import WEIGHTS_FILE, load_network, save_head
from sppnet_cli.runs import fingerprint, run_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs, window_source


@dataclass(frozen=True)
class FinetuneConfig:
    """`sppnet finetune`."""

    windows: WindowConfig
    schedule: Schedule
    fc: int  # outputs of fc6 and fc7 where the network has none
    flip: bool  # mirrored images too
    seed: int


def finetune_stage(
    config: FinetuneConfig, network: Path, inputs: WindowInputs, out: Path, *, device: str, max_gib: float
) -> Path:
    """`head.safetensors`: fc6, fc7 and fc8 (K + 1 outputs) after fine-tuning.  The last state is kept.

    Several processes share the images while they fill the cache with features; then the first trains alone.
    """
    sources = inputs.fingerprints() | {"network": fingerprint(network)}

    def build(folder: Path) -> None:
        net = load_network(network)
        source = window_source(
            config.windows, inputs, net, fingerprint(network / WEIGHTS_FILE), device=device, truth=True
        )
        protocol = source.extractor.protocol
        here = world()
        if here.size > 1:
            keep_features(source, protocol, flip=config.flip)
            barrier()
        if not here.first:
            return
        head = finetune(
            new_head(net, source, config),
            source,
            protocol,
            config.schedule,
            flip=config.flip,
            seed=config.seed,
            max_gib=max_gib,
            folder=folder,
        )
        save_head(head, folder)

    return run_stage(out, "finetune", config, sources, build, together=True)


def new_head(net: SPPNet, source: WindowSource, config: FinetuneConfig) -> Head:
    """What fine-tuning starts from: the network's fc6 and fc7, or new ones, and a new fc8 for the source's classes."""
    torch.manual_seed(config.seed)
    mean_norm = 1.0
    if net.head is None:
        mean_norm = 1 / feature_scale(source, Layer("pool5"), 1.0, config.seed)
    classes = len(source.dataset.class_names)
    return head_for_detection(net.head, net.pooled_size, config.fc, classes, mean_norm)
