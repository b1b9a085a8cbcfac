import pytest

from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.errors import DataError


@pytest.fixture
def caltech(tmp_path):
    for name in (
        "ant/image_0002.jpg",
        "ant/image_0001.jpg",
        "Faces/image_0001.jpg",
        "BACKGROUND_Google/x.jpg",
    ):
        path = tmp_path / "101_ObjectCategories" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_the_folder_and_its_parent_are_the_same_set(caltech):
    dataset = load_caltech101(caltech)
    assert dataset.class_names == ("BACKGROUND_Google", "Faces", "ant")
    assert dataset.labels.tolist() == [0, 1, 2, 2]
    assert dataset.paths[2].name == "image_0001.jpg"
    assert load_caltech101(caltech / "101_ObjectCategories").paths == dataset.paths


def test_limit_takes_evenly_over_the_categories(caltech):
    assert load_caltech101(caltech, limit=3).labels.tolist() == [0, 1, 2]


def test_another_folder_is_an_error(caltech, tmp_path):
    with pytest.raises(DataError, match="ant: holds no 101_ObjectCategories"):
        load_caltech101(caltech / "101_ObjectCategories" / "ant")
    with pytest.raises(DataError, match="none: holds no 101_ObjectCategories"):
        load_caltech101(tmp_path / "none")
