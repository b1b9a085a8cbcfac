"""Stage: a detector with an SVM per class on a layer of the windows' features."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.detector_files import DETECTOR_FILE, SHORTCUTS_FILE, SVM_FILE
from sppnet_cli.digests import file_digest
from sppnet_cli.distributed import world
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.methods import METHODS
from sppnet_cli.learning.shortcuts import train_shortcuts
from sppnet_cli.learning.svm import train_svms
from sppnet_cli.names import FC_LAYERS
from sppnet_cli.network.low_rank import axes_kept
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import HEAD_FILE, SPEC_FILE, WEIGHTS_FILE, load_head, load_network
from sppnet_cli.protocols import DetectRules, SvmRules
from sppnet_cli.stages import cost
from sppnet_cli.stages.windows import WindowConfig, fill_cache, window_source


@dataclass(frozen=True)
class SvmConfig:
    """`sppnet train-svm`."""

    windows: WindowConfig
    layer: str  # pool5, fc6 or fc7
    rules: SvmRules
    detect: DetectRules  # saved with the detector
    protocol: str  # name of the rules' protocol, saved with the detector
    seed: int


def train_detector(config: SvmConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write a detector with an SVM per class on `config.layer`, of the fine-tuned `head` if that is an input.

    A detector on fc6 or fc7 gets shortcuts for `--fast` too.  The rows of hard-negative mining take at most three quarters
    of `max_memory`.  Resumes from the last checkpoint.  The processes share the images while they fill the cache; then the
    first one trains alone.
    """
    network = load_network(inputs["network"])
    network.mean_image = None  # of ImageNet: detectors take 128, which needs no file
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
    config: SvmConfig, spec: NetworkSpec, fc: int, classes: int, walk: cost.Walk, device: str, *, tuned: bool
) -> Cost:
    """Cost of three passes over the windows (norm, positives, mining) and of the solver.

    `tuned`: on fine-tuned fc layers, which the detector then holds.
    """
    pooled, size = cost.sizes_of(spec)
    dimension = pooled if config.layer == "pool5" else fc
    layers = cost.layer_work(spec, fc, config.layer, walk, device)
    work = cost.feature_work(spec, walk, device) + layers * 1.3
    rows = 300 * classes + 10 * walk.images
    files = {SPEC_FILE: 150, WEIGHTS_FILE: size, SVM_FILE: 4 * classes * dimension}
    if tuned and config.layer in FC_LAYERS:
        files[HEAD_FILE] = 4 * fc * (pooled + fc + classes + 1)
    if config.layer in FC_LAYERS:
        cut = FC_LAYERS.index(config.layer) + 1
        cascade = 4 * classes * pooled * METHODS[config.windows.method].cascade
        files[SHORTCUTS_FILE] = 4 * cut * fc * (axes_kept(fc) + 1) + cascade
    files[DETECTOR_FILE] = 500
    seconds = work.seconds + 1e-6 * rows * dimension
    return Cost(seconds, files, cost.memory(0.5 + 2e-9 * rows * dimension), work.flops)
