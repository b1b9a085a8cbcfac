"""Stage: a network, trained on an ImageNet-layout folder or taken over from torchvision."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.learning.pretrain import Recipe, pretrain
from sppnet_cli.network.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_trunk_weights, save_network
from sppnet_cli.runs import fingerprint, run_stage


@dataclass(frozen=True)
class PretrainConfig:
    """`sppnet pretrain`."""

    arch: str
    width: float
    levels: tuple[int, ...] | None  # None: the plain net
    fc: int
    recipe: Recipe
    seed: int
    limit: int | None = None  # training images


def pretrain_stage(
    config: PretrainConfig, data: Path, out: Path, *, device: str = "cpu", workers: int = 0
) -> Path:
    """Train a network on `data/train` (or on `data`, where it holds the class folders itself)."""
    train = data / "train" if (data / "train").is_dir() else data

    def build(folder: Path) -> None:
        images = load_image_folder(train, config.limit)
        spec = NetworkSpec(config.arch, config.width, config.levels, config.fc, len(images.class_names))
        network = SPPNet(spec)
        pretrain(network, images, config.recipe, seed=config.seed, device=device, workers=workers, out=folder)
        save_network(network, folder)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in images.class_names))

    return run_stage(out, "pretrain", config, {"data": fingerprint(train)}, build)


@dataclass(frozen=True)
class BackboneConfig:
    """A torchvision trunk with its ImageNet weights, in place of pre-training."""

    arch: str


def backbone_stage(config: BackboneConfig, weights: str, out: Path) -> Path:
    """A network of `config.arch` with the {6, 3, 2, 1} pyramid and no fc layers.

    `weights` is a file, or `DEFAULT` for those that torchvision publishes.
    """

    def build(folder: Path) -> None:
        network = SPPNet(NetworkSpec(arch=config.arch, levels=SPP6))
        load_trunk_weights(network, weights)
        save_network(network, folder)

    source = weights if weights == "DEFAULT" else fingerprint(Path(weights))
    return run_stage(out, "backbone", config, {"weights": source}, build)
