"""Stage: a detector, an SVM per class on a layer of the windows' features."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.detection.detector import Detector
from sppnet_cli.distributed import world
from sppnet_cli.features.layers import Layer
from sppnet_cli.learning.shortcuts import train_shortcuts
from sppnet_cli.learning.svm import train_svms
from sppnet_cli.network.sppnet import FC_LAYERS, NetworkSpec
from sppnet_cli.network.weights import HEAD_FILE, SPEC_FILE, WEIGHTS_FILE, load_head, load_network
from sppnet_cli.protocols import DetectRules, SvmRules
from sppnet_cli.runs import file_digest
from sppnet_cli.stages import cost
from sppnet_cli.stages.windows import WindowConfig, fill_cache, window_source


@dataclass(frozen=True)
class SvmConfig:
    """`sppnet train-svm`."""

    windows: WindowConfig
    layer: str  # pool5, fc6 or fc7
    rules: SvmRules
    detect: DetectRules  # that the detector carries, and the name of their protocol
    protocol: str
    seed: int


def train_detector(config: SvmConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """A detector with an SVM per class on `config.layer`, of the fine-tuned `head` where one is among the inputs.

    On fc6 or fc7 it gets its shortcuts too.  The rows of hard-negative mining take at most three quarters of
    `max_memory`.  A stage that was cut off resumes from where it last saved.  Several processes share the images while
    they fill the cache with features; then the first trains alone.
    """
    network = load_network(inputs["network"])
    tuned = load_head(inputs["head"]) if "head" in inputs else None
    network_id = file_digest(inputs["network"] / WEIGHTS_FILE)
    source = window_source(config.windows, inputs, how, network, network_id, truth=True)
    fill_cache(source)
    if not world().first:
        return
    layer = Layer(config.layer, tuned or network.head)
    svms = train_svms(
        source, layer, config.rules, seed=config.seed, max_gib=0.75 * how.max_memory, folder=folder
    )
    shortcuts = None
    if config.layer in FC_LAYERS:
        shortcuts = train_shortcuts(source, layer, config.rules, seed=config.seed)
    Detector(
        source.extractor,
        config.layer,
        source.dataset.class_names,
        svms,
        head=tuned,
        shortcuts=shortcuts,
        rules=config.detect,
        protocol=config.protocol,
    ).save(folder)


def svm_cost(
    config: SvmConfig, spec: NetworkSpec, fc: int, classes: int, walk: cost.Walk, device: str
) -> Cost:
    """Of three ways through the windows (their norm, the positives, the mining), and the solver."""
    pooled, size = cost.sizes_of(spec)
    features = cost.feature_seconds(spec, walk, device)
    dimension = pooled if config.layer == "pool5" else fc
    layers = cost.layer_seconds(spec, fc, config.layer, walk, device)
    rows = 300 * classes + 10 * walk.images
    files = {SPEC_FILE: 150, WEIGHTS_FILE: size, "svm.safetensors": 4 * classes * dimension}
    files |= {HEAD_FILE: 4 * fc * (pooled + fc + classes + 1)} if config.layer != "pool5" else {}
    files["detector.json"] = 500
    return Cost(
        features + 1.3 * layers + 1e-6 * rows * dimension, files, cost.memory(0.5 + 2e-9 * rows * dimension)
    )
