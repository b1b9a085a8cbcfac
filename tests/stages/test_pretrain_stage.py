import shutil
from dataclasses import replace

import pytest
import torch
from torchvision.models import squeezenet1_1

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.learning.pretrain import Recipe
from sppnet_cli.network.weights import load_network
from sppnet_cli.stages.pretrain import (
    BackboneConfig,
    PretrainConfig,
    make_backbone,
    make_network,
    require_images,
)

RECIPE = Recipe((224,), 1, 8, 0.01, "one-cycle", "he", 5.0)
CONFIG = PretrainConfig("zf5", 0.0625, (1, 2, 3, 6), 16, RECIPE, seed=0, limit=20)


@pytest.fixture
def imagenet(tiny_data, tmp_path):
    return shutil.copytree(tiny_data / "imagenet", tmp_path / "imagenet")


@pytest.fixture
def pretrain(make):
    return lambda config, data: make(make_network, config, {"data": data}, "net")


@pytest.mark.parametrize(("split", "where"), [("val", "validation"), ("train", "training")])
def test_a_validation_set_of_other_classes(pretrain, imagenet, tmp_path, split, where):
    shutil.rmtree(imagenet / split / "n90000003")
    with pytest.raises(DataError, match=rf"val: its classes .*n90000003 is missing in {where}"):
        pretrain(CONFIG, imagenet)
    assert not (tmp_path / "net").exists()


def test_an_empty_class_folder(pretrain, imagenet):
    for path in (imagenet / "train" / "n90000003").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="n90000003: class folder without images; fill or remove it"):
        pretrain(CONFIG, imagenet)


def test_without_a_validation_set(pretrain, imagenet):
    shutil.rmtree(imagenet / "val")
    run = pretrain(CONFIG, imagenet)
    assert load_network(run).spec.classes == 20
    assert (run / "classes.txt").read_text().splitlines()[2] == "n90000003"
    assert "val_top1_error" not in (run / "metrics.jsonl").read_text()
    # Another network into the same folder is refused by name.
    with pytest.raises(
        UsageError, match=r"settings: recipe\.rate was 0\.01, not 0\.02\. Remove it or give another --out"
    ):
        pretrain(replace(CONFIG, recipe=replace(RECIPE, rate=0.02)), imagenet)


@pytest.mark.parametrize("arch", ["convnet5", "overfeat5", "overfeat7"])
@pytest.mark.parametrize(("levels", "sizes"), [(None, (224,)), ((1, 2, 3, 6), (180,))])
def test_the_journals_networks_train(pretrain, imagenet, arch, levels, sizes):
    config = replace(CONFIG, arch=arch, levels=levels, recipe=replace(RECIPE, sizes=sizes), limit=8)
    run = pretrain(config, imagenet)
    assert load_network(run).spec.arch == arch


@pytest.mark.parametrize("kind", ["val alone", "val itself", "VOC"])
def test_what_is_no_training_set_is_told_and_leaves_nothing(pretrain, imagenet, tiny_data, tmp_path, kind):
    shutil.rmtree(imagenet / "train")
    data, message = {
        "val alone": (imagenet, "validation images alone"),
        "val itself": (imagenet / "val", "validation images alone"),
        "VOC": (tiny_data / "VOCdevkit", "a VOC set"),
    }[kind]
    with pytest.raises(DataError, match=f"{data.name}: .*{message}"):
        pretrain(CONFIG, data)
    assert not list(tmp_path.glob("net*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"limit": 5},
            r"imagenet: 5 images to train on, fewer than a batch of 8; give more, or a smaller --batch",
        ),
        ({}, None),
    ],
)
def test_what_is_wrong_with_the_images_is_said_before_training(imagenet, change, message):
    config = replace(CONFIG, **change)
    if message is None:
        require_images(config, imagenet)
        return
    with pytest.raises(DataError, match=message):
        require_images(config, imagenet)


def test_other_validation_classes_are_seen_before_training(imagenet):
    shutil.rmtree(imagenet / "val" / "n90000003")
    with pytest.raises(DataError, match="n90000003 is missing in validation"):
        require_images(CONFIG, imagenet)


@pytest.mark.parametrize("levels", [(1, 2, 3, 6), None])
def test_a_trunk_of_torchvision(make, tmp_path, levels):
    path, trunk = tmp_path / "net.pth", squeezenet1_1(num_classes=3)
    torch.save(trunk.state_dict(), path)
    network = load_network(make(make_backbone, BackboneConfig("squeezenet1_1", levels), {"weights": path}))
    assert (network.spec.arch, network.spec.levels, network.head) == ("squeezenet1_1", levels, None)
    ours, theirs = network.trunk.state_dict(), trunk.features.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))
