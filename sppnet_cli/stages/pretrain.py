"""Stage: a network, trained on an ImageNet-layout folder or with the weights of a torchvision classifier."""

from dataclasses import dataclass
from pathlib import Path

from sppnet_cli.chain import Cost, Inputs, Resources
from sppnet_cli.data.imagenet import ImageFolder, load_image_folder, training_folder
from sppnet_cli.distributed import world
from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.learning.events import event_writer
from sppnet_cli.learning.pretrain import METRICS, Recipe, pretrain
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import MEAN_FILE, SPEC_FILE, WEIGHTS_FILE, load_trunk_weights, save_network
from sppnet_cli.stages.cost import memory, sizes_of, training_work

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


def make_network(config: PretrainConfig, inputs: Inputs, folder: Path, how: Resources) -> None:
    """Train a network on `data/train`, or on `data` if that holds the class folders.

    The images of `data/val`, if it exists, are classified after each epoch.  The processes train together.  Raises
    `DataError` for a folder with validation images only, and for a validation set of other classes.
    """
    data = inputs["data"]
    images = load_image_folder(training_folder(data), config.limit)
    validation = _validation(data / "val", images, config.limit) if (data / "val").is_dir() else None
    network = SPPNet(
        NetworkSpec(config.arch, config.width, config.levels, config.fc, len(images.class_names))
    )
    pretrain(
        network,
        images,
        config.recipe,
        seed=config.seed,
        device=how.device,
        workers=how.workers,
        out=folder,
        validation=validation,
        log=event_writer(folder / "tensorboard") if how.tensorboard and world().first else None,
    )
    if world().first:
        save_network(network, folder)
        (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in images.class_names))


def require_images(config: PretrainConfig, data: Path) -> None:
    """Raise `DataError` for fewer images than a batch, and as `make_network` does."""
    images = load_image_folder(training_folder(data), config.limit)
    if len(images) < config.recipe.batch:
        raise DataError(
            f"{data}: {len(images)} images to train on, fewer than a batch of {config.recipe.batch}; give more, or a "
            "smaller --batch"
        )
    if (data / "val").is_dir():
        _validation(data / "val", images, config.limit)


def pretrain_cost(config: PretrainConfig, images: int, classes: int, device: str) -> Cost:
    """Cost of training on so many images."""
    spec = NetworkSpec(config.arch, config.width, config.levels, config.fc, classes)
    recipe = config.recipe
    epoch = training_work(spec, images // recipe.batch * recipe.batch, recipe.sizes, device)
    work = epoch * recipe.epochs
    _, size = sizes_of(spec)
    files = {SPEC_FILE: 150, WEIGHTS_FILE: size, METRICS: 180 * recipe.epochs, CLASSES_FILE: 10 * classes}
    if SPPNet(spec).takes_mean_image:
        files[MEAN_FILE] = 4 * 3 * CROP**2
    needs = memory(6 * size / 1e9 + 0.02 * recipe.batch * config.width)
    return Cost(work.seconds, files, needs, work.flops)


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
    """A trunk of torchvision or timm with its ImageNet weights, in place of pre-training."""

    arch: str
    levels: tuple[int, ...] | None = SPP6  # None: the plain net's pool
    published: bool = False  # the weights that torchvision publishes; else those of the input


def make_backbone(config: BackboneConfig, inputs: Inputs, folder: Path, _how: Resources) -> None:
    """Write a network of `config.arch` with a pyramid, or the plain net's pool, and without fc layers."""
    save_network(_backbone(config, "DEFAULT" if config.published else str(inputs["weights"])), folder)


def require_weights(config: BackboneConfig, weights: str) -> None:
    """Raise `DataError` for a file that is not of the trunk's architecture, or holds no weights."""
    _backbone(config, weights)


def _backbone(config: BackboneConfig, weights: str) -> SPPNet:
    network = SPPNet(NetworkSpec(arch=config.arch, levels=config.levels))
    load_trunk_weights(network, weights)
    return network


def backbone_cost(config: BackboneConfig) -> Cost:
    """Cost: seconds, not counting a download."""
    return Cost(
        5.0, {SPEC_FILE: 150, WEIGHTS_FILE: sizes_of(NetworkSpec(config.arch, levels=config.levels))[1]}
    )
