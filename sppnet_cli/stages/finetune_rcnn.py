"""Stage: fine-tune all layers on R-CNN's warped windows."""

from dataclasses import replace
from pathlib import Path

from sppnet_cli.learning.finetune_rcnn import finetune_all
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.network.weights import SPEC_FILE, WEIGHTS_FILE, load_network, save_head, save_network
from sppnet_cli.runs import fingerprint, run_stage
from sppnet_cli.stages.finetune import FinetuneConfig, new_head
from sppnet_cli.stages.windows import WindowInputs, window_source


def finetune_rcnn_stage(
    config: FinetuneConfig,
    network: Path,
    inputs: WindowInputs,
    out: Path,
    *,
    device: str,
    workers: int,
    max_gib: float,
) -> Path:
    """A network folder of the fine-tuned trunk, and `head.safetensors`: fc6, fc7 and fc8 (K + 1 outputs).

    The network has no fc layers of its own: those it was trained with would not fit its trunk any more.  The
    last state is kept.
    """
    sources = inputs.fingerprints() | {"network": fingerprint(network)}

    def build(folder: Path) -> None:
        net = load_network(network)
        source = window_source(
            config.windows, inputs, net, fingerprint(network / WEIGHTS_FILE), device=device, truth=True
        )
        head = finetune_all(
            new_head(net, source, config),
            source,
            source.extractor.protocol,
            config.schedule,
            flip=config.flip,
            seed=config.seed,
            workers=workers,
            max_gib=max_gib,
            folder=folder,
        )
        tuned = SPPNet(replace(net.spec, fc=0, classes=0))
        tuned.trunk.load_state_dict(net.trunk.state_dict())
        save_network(tuned, folder)
        save_head(head, folder)

    return run_stage(out, "finetune-rcnn", config, sources, build)


def brings_network(head: Path) -> bool:
    """Whether a fine-tuning changed the trunk too, so that its folder holds the network of its fc layers."""
    return (head / SPEC_FILE).is_file()
