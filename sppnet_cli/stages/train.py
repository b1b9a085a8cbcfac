"""Stages that make detectors: SVMs on a layer, then box regressors."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.detection.detector import Detector
from sppnet_cli.distributed import world
from sppnet_cli.features.layers import Layer
from sppnet_cli.learning.bbox import train_bbox
from sppnet_cli.learning.shortcuts import train_shortcuts
from sppnet_cli.learning.svm import feature_scale, train_svms
from sppnet_cli.network.weights import WEIGHTS_FILE, load_head, load_network
from sppnet_cli.runs import fingerprint, run_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs, fill_cache, window_source


@dataclass(frozen=True)
class SvmConfig:
    """`sppnet train-svm`."""

    windows: WindowConfig
    layer: str  # pool5, fc6 or fc7
    seed: int


def svm_stage(
    config: SvmConfig,
    network: Path,
    head: Path | None,
    inputs: WindowInputs,
    out: Path,
    *,
    device: str,
    max_gib: float,
) -> Path:
    """A detector with an SVM per class on `config.layer`, of the fine-tuned `head` where one is given.

    On fc6 or fc7 it gets its shortcuts too.  The rows of hard-negative mining take at most `max_gib`.  A stage that was
    cut off goes on where it last saved.
    Several processes share the images while they fill the cache with features; then the first trains alone.
    """
    sources = inputs.fingerprints() | {"network": fingerprint(network)}
    if head is not None:
        sources["head"] = fingerprint(head)

    def build(folder: Path) -> None:
        net = load_network(network)
        tuned = load_head(head) if head is not None else None
        source = window_source(
            config.windows, inputs, net, fingerprint(network / WEIGHTS_FILE), device=device, truth=True
        )
        fill_cache(source)
        if not world().first:
            return
        layer = Layer(config.layer, tuned or net.head)
        protocol = source.extractor.protocol
        svms = train_svms(source, layer, protocol, seed=config.seed, max_gib=max_gib, folder=folder)
        names = source.dataset.class_names
        detector = Detector(source.extractor, config.layer, names, svms, head=tuned)
        if config.layer != "pool5":
            detector.shortcuts = train_shortcuts(source, layer, protocol, seed=config.seed)
        detector.save(folder)

    return run_stage(out, "train-svm", config, sources, build, together=True)


@dataclass(frozen=True)
class BboxConfig:
    """`sppnet train-bbox`."""

    windows: WindowConfig
    seed: int


def bbox_stage(
    config: BboxConfig,
    detector: Path,
    inputs: WindowInputs,
    out: Path,
    *,
    device: str,
    max_gib: float,
) -> Path:
    """The detector once more, with box regressors on pooled features; samples and systems take at most `max_gib`."""
    sources = inputs.fingerprints() | {"detector": fingerprint(detector)}

    def build(folder: Path) -> None:
        base = Detector.load(detector, device)
        source = window_source(
            config.windows,
            inputs,
            base.extractor,
            fingerprint(detector / WEIGHTS_FILE),
            device=device,
            truth=True,
        )
        fill_cache(source)
        if not world().first:
            return
        norm = base.protocol.feature_norm
        scale = feature_scale(source, Layer("pool5"), norm, config.seed)
        regressors = train_bbox(source, scale, max_gib=max_gib)
        Detector(
            base.extractor,
            base.layer.name,
            base.class_names,
            base.svms,
            head=base.head,
            bbox=regressors,
            shortcuts=base.shortcuts,
        ).save(folder)

    return run_stage(out, "train-bbox", config, sources, build, together=True)
