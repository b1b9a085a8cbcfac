import shutil
from dataclasses import replace

import pytest

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.learning.pretrain import Recipe
from sppnet_cli.network.weights import load_network
from sppnet_cli.stages.pretrain import PretrainConfig, pretrain_stage

RECIPE = Recipe((224,), 1, 8, 0.01, "one-cycle", "he", 5.0)
CONFIG = PretrainConfig("zf5", 0.0625, (1, 2, 3, 6), 16, RECIPE, seed=0, limit=20)


@pytest.fixture
def imagenet(tiny_data, tmp_path):
    return shutil.copytree(tiny_data / "imagenet", tmp_path / "imagenet")


@pytest.mark.parametrize(("split", "where"), [("val", "validation"), ("train", "training")])
def test_a_validation_set_of_other_classes(imagenet, tmp_path, split, where):
    shutil.rmtree(imagenet / split / "n90000003")
    with pytest.raises(DataError, match=rf"val: its classes .*n90000003 is missing in {where}"):
        pretrain_stage(CONFIG, imagenet, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_an_empty_class_folder(imagenet, tmp_path):
    for path in (imagenet / "train" / "n90000003").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="n90000003: class folder without images; fill or remove it"):
        pretrain_stage(CONFIG, imagenet, tmp_path / "net")


def test_without_a_validation_set(imagenet, tmp_path):
    shutil.rmtree(imagenet / "val")
    run = pretrain_stage(CONFIG, imagenet, tmp_path / "net")
    assert load_network(run).spec.classes == 20
    assert (run / "classes.txt").read_text().splitlines()[2] == "n90000003"
    assert "val_top1_error" not in (run / "metrics.jsonl").read_text()
    # Another network into the same folder is refused by name.
    with pytest.raises(
        UsageError, match=r"settings: recipe\.rate was 0\.01, not 0\.02\. Remove it or give another --out"
    ):
        pretrain_stage(replace(CONFIG, recipe=replace(RECIPE, rate=0.02)), imagenet, tmp_path / "net")


@pytest.mark.parametrize("arch", ["convnet5", "overfeat5", "overfeat7"])
@pytest.mark.parametrize(("levels", "sizes"), [(None, (224,)), ((1, 2, 3, 6), (180,))])
def test_the_journals_networks_train(imagenet, tmp_path, arch, levels, sizes):
    config = replace(CONFIG, arch=arch, levels=levels, recipe=replace(RECIPE, sizes=sizes), limit=8)
    run = pretrain_stage(config, imagenet, tmp_path / "net")
    assert load_network(run).spec.arch == arch


@pytest.mark.parametrize("kind", ["val alone", "val itself", "VOC"])
def test_what_is_no_training_set_is_told_and_leaves_nothing(imagenet, tiny_data, tmp_path, kind):
    shutil.rmtree(imagenet / "train")
    data, message = {
        "val alone": (imagenet, "validation images alone"),
        "val itself": (imagenet / "val", "validation images alone"),
        "VOC": (tiny_data / "VOCdevkit", "a VOC set"),
    }[kind]
    with pytest.raises(DataError, match=f"{data.name}: .*{message}"):
        pretrain_stage(CONFIG, data, tmp_path / "net")
    assert not list(tmp_path.glob("net*"))
