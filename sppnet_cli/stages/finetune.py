"""Stage: fine-tune a network for detection: the fc layers on pooled windows, or all layers on warped ones (R-CNN)."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.digests import file_digest
from sppnet_cli.distributed import barrier, world
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.learning.finetune import Schedule, finetune, head_for_detection, keep_features
from sppnet_cli.learning.finetune_rcnn import finetune_all
from sppnet_cli.learning.svm import feature_scale
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import (
    HEAD_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    load_network,
    save_head,
    save_network,
)
from sppnet_cli.protocols import FinetuneRules
from sppnet_cli.stages import cost
from sppnet_cli.stages.windows import WindowConfig, window_source


@dataclass(frozen=True)
class FinetuneConfig:
    """`sppnet finetune`."""

    windows: WindowConfig
    rules: FinetuneRules
    schedule: Schedule
    fc: int  # outputs of fc6 and fc7, if the network has none
    flip: bool  # train on mirrored images too
    seed: int


def finetune_fc_layers(config: FinetuneConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write `head.safetensors`: fc6, fc7 and fc8 (K + 1 outputs) after the last batch.

    The processes share the images while they fill the cache; then the first one trains alone.
    """
    network, source = _network_and_windows(config, inputs, how)
    if world().size > 1:
        keep_features(source, config.rules, flip=config.flip)
        barrier()
    if world().first:
        head = finetune(
            _new_head(network, source, config),
            source,
            config.rules,
            config.schedule,
            flip=config.flip,
            seed=config.seed,
            max_gib=how.max_memory / 8,
            folder=folder,
        )
        save_head(head, folder)


def finetune_all_layers(config: FinetuneConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write a network, the fine-tuned trunk, and `head.safetensors`: fc6, fc7 and fc8 (K + 1 outputs).

    The network is written without fc layers: the pre-trained ones no longer fit its trunk.
    """
    network, source = _network_and_windows(config, inputs, how)
    head = finetune_all(
        _new_head(network, source, config),
        source,
        config.rules,
        config.schedule,
        flip=config.flip,
        seed=config.seed,
        workers=how.workers,
        max_gib=how.max_memory / 2,
        folder=folder,
    )
    tuned = SPPNet(replace(network.spec, fc=0, classes=0))
    tuned.trunk.load_state_dict(network.trunk.state_dict())
    save_network(tuned, folder)
    save_head(head, folder)


def brings_network(head: Path) -> bool:
    """Whether a fine-tuning changed the trunk too, so that its folder holds a network."""
    return (head / SPEC_FILE).is_file()


def _network_and_windows(
    config: FinetuneConfig, inputs: Inputs, how: Resources
) -> tuple[SPPNet, WindowSource]:
    network = load_network(inputs["network"])
    network_id = file_digest(inputs["network"] / WEIGHTS_FILE)
    return network, window_source(config.windows, inputs, how, network, network_id, truth=True)


def _new_head(network: SPPNet, source: WindowSource, config: FinetuneConfig) -> Head:
    """The layers that fine-tuning starts from: the network's fc6 and fc7, or new ones, and a new fc8."""
    torch.manual_seed(config.seed)
    mean_norm = 1.0
    if network.head is None:
        mean_norm = 1 / feature_scale(source, Layer("pool5"), 1.0, config.seed)
    classes = len(source.dataset.class_names)
    return head_for_detection(network.head, network.pooled_size, config.fc, classes, mean_norm)


def finetune_fc_cost(
    config: FinetuneConfig, spec: NetworkSpec, classes: int, walk: cost.Walk, device: str
) -> Cost:
    """Cost of the features, also of the mirrored images, and of the batches."""
    pooled, _ = cost.sizes_of(spec)
    batches = cost.finetuning_work(
        pooled, config.fc, config.schedule.batches, config.rules.finetune_batch, device
    )
    work = cost.feature_work(spec, walk, device) * (1 + config.flip) + batches
    head = 4 * config.fc * (pooled + config.fc + classes + 1)
    return Cost(work.seconds, {HEAD_FILE: head}, cost.memory(1.0 + 4 * head / 1e9), work.flops)


def finetune_all_cost(config: FinetuneConfig, spec: NetworkSpec, classes: int, device: str) -> Cost:
    """Cost of training on whole crops."""
    images = config.schedule.batches * config.rules.finetune_batch
    pooled, size = cost.sizes_of(replace(spec, fc=0, classes=0))
    files = {
        SPEC_FILE: 150,
        WEIGHTS_FILE: size,
        HEAD_FILE: 4 * config.fc * (pooled + config.fc + classes + 1),
    }
    work = cost.training_work(spec, images, (CROP,), device)
    return Cost(work.seconds, files, cost.memory(6.0), work.flops)
