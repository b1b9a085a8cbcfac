import numpy as np
import pytest

from sppnet_cli.data.imagenet import load_image_folder, training_folder
from sppnet_cli.errors import DataError


@pytest.fixture
def train(tmp_path):
    root = tmp_path / "train"
    files = ("n02/b.jpg", "n02/a.JPEG", "n01/z.JPEG", "n10/1.png", "n10/2.PNG", "n10/3.jpeg", "n10/notes.txt")
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "synsets.txt").touch()
    (root / ".cache").mkdir()
    return root


def names(dataset):
    return [path.name for path in dataset.paths]


def test_a_class_that_links_to_nothing_is_not_left_out(train):
    (train / "n03").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"n03: links to nowhere, which is not there; restore or remove it"):
        load_image_folder(train)


def test_class_names_are_text(train):
    (train / "n01").rename(train / "caf\udce9")
    assert load_image_folder(train).class_names == ("caf\\udce9", "n02", "n10")


def test_classes_and_images_are_sorted(train):
    dataset = load_image_folder(train)
    assert dataset.class_names == ("n01", "n02", "n10")
    assert names(dataset) == ["z.JPEG", "a.JPEG", "b.jpg", "1.png", "2.PNG", "3.jpeg"]
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert dataset.labels.dtype == np.int64
    assert len(dataset) == 6


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2, ["z.JPEG", "a.JPEG"]),
        (3, ["z.JPEG", "a.JPEG", "1.png"]),
        (4, ["z.JPEG", "a.JPEG", "b.jpg", "1.png"]),
        (5, ["z.JPEG", "a.JPEG", "b.jpg", "1.png", "2.PNG"]),
        (99, ["z.JPEG", "a.JPEG", "b.jpg", "1.png", "2.PNG", "3.jpeg"]),
    ],
)
def test_limit_takes_evenly_over_the_classes(train, limit, expected):
    dataset = load_image_folder(train, limit=limit)
    assert names(dataset) == expected
    assert dataset.class_names == ("n01", "n02", "n10")
    assert [dataset.class_names[label] for label in dataset.labels] == [p.parent.name for p in dataset.paths]


def test_what_is_missing_is_named(train, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_image_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"train: class folder without images"):
        load_image_folder(tmp_path)
    (train / "n03").mkdir()
    with pytest.raises(DataError, match=r"n03: class folder without images"):
        load_image_folder(train)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty: holds no class folders"):
        load_image_folder(empty)


def test_other_folders_are_named_for_what_they_are(tmp_path):
    voc = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("ImageSets", "JPEGImages"):
        (voc / name).mkdir(parents=True)
    for root in (voc, voc.parent):
        with pytest.raises(DataError, match=r": a VOC set.* name a folder .* ImageNet's train"):
            load_image_folder(root)
    for name in ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"):
        (tmp_path / "flat" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "flat" / name).touch()
    with pytest.raises(DataError, match=r"flat: holds 2 images and no class folders; name a folder"):
        load_image_folder(tmp_path / "flat")


def test_where_the_training_images_are(train, tmp_path):
    assert training_folder(tmp_path) == train
    assert training_folder(train) == train
    assert training_folder(tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_validation_images_alone(train, tmp_path):
    train.rename(tmp_path / "val")
    for data in (tmp_path, tmp_path / "val"):
        with pytest.raises(DataError, match=r"validation images alone.* name the folder that holds train"):
            training_folder(data)
