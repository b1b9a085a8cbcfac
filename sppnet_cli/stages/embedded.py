"""Stage: the embedded data set, `mini`."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.mini import GENERATOR_VERSION, MiniSize, make_mini

_IMAGE_BYTES, _IMAGE_SECONDS = 22_000, 6e-3


@dataclass(frozen=True)
class EmbeddedConfig:
    """`sppnet data mini`."""

    size: MiniSize
    seed: int = 0
    generator: int = GENERATOR_VERSION


def make_embedded(config: EmbeddedConfig, _inputs: Inputs, folder: Path, _how: Resources) -> None:
    """`imagenet/`, `VOCdevkit/VOC2007/` and `caltech101/`, in the layouts of the published sets."""
    make_mini(folder, config.seed, config.size)


def embedded_cost(config: EmbeddedConfig) -> Cost:
    """A few milliseconds per image."""
    size = config.size
    images = size.imagenet_train + size.imagenet_val + size.voc_trainval + size.voc_test
    return Cost(images * _IMAGE_SECONDS, {"mini data": images * _IMAGE_BYTES})
