"""Stage: seconds of an image's features by detectors' methods (paper section 4.3, the lower half of Table 6)."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sppnet_cli.atomic import write_json
from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.proposals import image_seed, read_boxes, top_up
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.evaluation.timing import FeatureTime, time_extractors
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.network.weights import load_network
from sppnet_cli.protocols import MappingRules
from sppnet_cli.records import read_json_as
from sppnet_cli.stages.propose import BOXES

TIMES_FILE = "times.json"


@dataclass(frozen=True)
class TimedFeatures:
    """One side: a method at scales, with the fc layers of an input detector."""

    method: str
    scales: tuple[int, ...]
    detector: str  # an input's name
    network: str


@dataclass(frozen=True)
class TimeConfig:
    """Which features are timed, and on what; the machine is part of the identity."""

    sides: tuple[tuple[str, TimedFeatures], ...]  # by the name of a column
    mapping: MappingRules
    images: int  # drawn from the split
    windows: int  # per image, topped up with random ones
    limit: int | None
    seed: int
    machine: str
    device: str


def time_features(config: TimeConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Write `times.json`: for each side a `FeatureTime` per image; the sides take turns on every image."""
    extractors = {}
    for name, side in config.sides:
        # Weights do not change the time: R-CNN without fine-tuned layers is timed with SPP-net's.
        network = load_network(inputs[side.network])
        extractor = make_extractor(side.method, network, config.mapping, side.scales, how.device)
        extractors[name] = (extractor, Detector.load(inputs[side.detector], how.device).layer)
    times = time_extractors(extractors, *_images_and_windows(config, inputs))
    write_json(folder / TIMES_FILE, {name: [asdict(t) for t in of] for name, of in times.items()})


def time_cost(config: TimeConfig) -> Cost:
    """Cost, mostly R-CNN's."""
    return Cost(8.0 * config.images, {TIMES_FILE: 200 * config.images * len(config.sides)})


def read_times(run: Path) -> dict[str, list[FeatureTime]]:
    """What `time_features` wrote.  Raises `DataError` where it is missing or broken."""
    kind = dict[str, list[FeatureTime]]
    return read_json_as(kind, run / TIMES_FILE, remedy=f"remove {run} and measure again")


def _images_and_windows(
    config: TimeConfig, inputs: Inputs
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Random images of the test list, and the windows of each."""
    dataset = load_voc(inputs["data"], "test", config.limit)
    rng = np.random.default_rng(config.seed)
    ids = [dataset.ids[i] for i in np.sort(rng.permutation(len(dataset))[: config.images])]
    images = [dataset.image(image_id) for image_id in ids]
    boxes = [
        top_up(
            read_boxes(inputs["proposals"] / BOXES / f"{image_id}.npy"),
            config.windows,
            image.shape[:2],
            image_seed(config.seed, image_id),
        )
        for image_id, image in zip(ids, images, strict=True)
    ]
    return images, boxes
