"""Stage: box regressors for a detector."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.detection.detector import Detector
from sppnet_cli.digests import file_digest
from sppnet_cli.distributed import world
from sppnet_cli.features.layers import Layer
from sppnet_cli.learning.bbox import train_bbox
from sppnet_cli.learning.ridge import ridge_memory
from sppnet_cli.learning.svm import feature_scale
from sppnet_cli.network.sppnet import NetworkSpec
from sppnet_cli.network.weights import WEIGHTS_FILE
from sppnet_cli.protocols import BboxRules
from sppnet_cli.stages import cost
from sppnet_cli.stages.windows import WindowConfig, fill_cache, window_source

_SAMPLES = 60  # windows of an image that are near objects, for estimates


@dataclass(frozen=True)
class BboxConfig:
    """`sppnet train-bbox`."""

    windows: WindowConfig
    rules: BboxRules
    seed: int


def add_regressors(config: BboxConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write the detector with box regressors on pooled features added.

    Samples and systems take at most three quarters of `max_memory`.
    """
    detector = Detector.load(inputs["detector"], how.device)
    network_id = file_digest(inputs["detector"] / WEIGHTS_FILE)
    source = window_source(config.windows, inputs, how, detector.extractor, network_id, truth=True)
    fill_cache(source)
    if not world().first:
        return
    scale = feature_scale(source, Layer("pool5"), config.rules.feature_norm, config.seed)
    detector.bbox = train_bbox(source, config.rules, scale, max_gib=0.75 * how.max_memory)
    detector.save(folder)


def bbox_cost(
    spec: NetworkSpec, classes: int, walk: cost.Walk, detector: dict[str, int], device: str
) -> Cost:
    """Cost of the pooled windows near objects and of a ridge system per class, as large as its samples or features."""
    pooled, _ = cost.sizes_of(spec)
    work = cost.feature_work(spec, walk, device) + cost.layer_work(spec, 0, "pool5", walk, device)
    samples = _SAMPLES * walk.images // classes
    size = min(samples, pooled)
    systems = classes * (2 * samples * pooled * size + size**3 / 3)
    work += cost.Work(systems, systems / cost.rate(device))
    files = {**detector, "bbox.safetensors": 16 * classes * pooled}
    gathered, peak = ridge_memory(samples, pooled)
    needs = cost.memory(((classes - 1) * gathered + peak) / 1e9)
    return Cost(work.seconds, files, needs, work.flops)
