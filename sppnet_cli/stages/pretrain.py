"""Stage: a network, trained on an ImageNet-layout folder or taken over from torchvision."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.data.imagenet import ImageFolder, load_image_folder, training_folder
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.learning.events import event_writer
from sppnet_cli.learning.pretrain import Recipe, pretrain
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_trunk_weights, save_network
from sppnet_cli.runs import fingerprint, run_stage

CLASSES_FILE = "classes.txt"


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
    config: PretrainConfig,
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    workers: int = 0,
    tensorboard: bool = False,
) -> Path:
    """Train a network on `data/train` (or on `data`, where it holds the class folders itself).

    The images of `data/val`, where there is one, are classified after each epoch.  All processes train together.
    Raises `DataError` for validation images alone, and for a validation set of other classes.
    """
    train = training_folder(data)

    def build(folder: Path) -> None:
        images = load_image_folder(train, config.limit)
        validation = _validation(data / "val", images, config.limit) if (data / "val").is_dir() else None
        spec = NetworkSpec(config.arch, config.width, config.levels, config.fc, len(images.class_names))
        network = SPPNet(spec)
        pretrain(
            network,
            images,
            config.recipe,
            seed=config.seed,
            device=device,
            workers=workers,
            out=folder,
            validation=validation,
            log=event_writer(folder / "tensorboard") if tensorboard and world().first else None,
        )
        if world().first:
            save_network(network, folder)
            (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in images.class_names))

    return run_stage(out, "pretrain", config, {"data": fingerprint(train)}, build, together=True)


def _validation(val: Path, training: ImageFolder, limit: int | None) -> ImageFolder:
    images = load_image_folder(val, limit)
    differing = sorted(set(images.class_names) ^ set(training.class_names))
    if differing:
        where = "training" if differing[0] in images.class_names else "validation"
        raise DataError(
            f"{val}: its classes are not those of training ({differing[0]} is missing in {where}); "
            "give both the same class folders"
        )
    return images


@dataclass(frozen=True)
class BackboneConfig:
    """A torchvision trunk with its ImageNet weights, in place of pre-training."""

    arch: str
    levels: tuple[int, ...] | None = SPP6  # None: the plain net's pool


def backbone_stage(config: BackboneConfig, weights: str, out: Path) -> Path:
    """A network of `config.arch` with a pyramid, or the plain net's pool, and no fc layers.

    `weights` is a file, or `DEFAULT` for those that torchvision publishes.
    """

    def build(folder: Path) -> None:
        network = SPPNet(NetworkSpec(arch=config.arch, levels=config.levels))
        load_trunk_weights(network, weights)
        save_network(network, folder)

    source = weights if weights == "DEFAULT" else fingerprint(Path(weights))
    return run_stage(out, "backbone", config, {"weights": source}, build)
