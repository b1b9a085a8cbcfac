"""Detections in image files, with pictures."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.images import read_image
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.stages.photos import PhotoConfig, detect_photos

CONFIG = PhotoConfig(max_windows=5)


@pytest.fixture
def detector(random_detector):
    return Detector.load(random_detector)


def photo(path, height=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_of_each_and_one_csv(detector, tmp_path, capsys):
    paths = [photo(tmp_path / "a" / "street.png"), photo(tmp_path / "b" / "street.png", 70)]
    broken = tmp_path / "b" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    out = tmp_path / "out"
    photos, skipped = detect_photos(CONFIG, detector, [paths[0], broken, paths[1]], out)
    assert [(found.path, found.picture) for found in photos] == [
        (paths[0], out / "street.jpg"),
        (paths[1], out / "street-2.jpg"),
    ]
    assert list(skipped) == [broken]
    assert "1 of 3 images were skipped" in capsys.readouterr().err
    assert names(out) == ["detections.csv", "street-2.jpg", "street.jpg"]
    assert read_image(out / "street-2.jpg").shape == (70, 80, 3)
    rows = pd.read_csv(out / "detections.csv")
    assert len(rows) == sum(len(found.detections) for found in photos) > 0
    assert set(rows["image"]) <= set(map(str, paths))


def test_the_same_images_again(detector, tmp_path):
    path, out = photo(tmp_path / "street.png"), tmp_path / "out"
    detect_photos(CONFIG, detector, [path], out)
    before = (out / "detections.csv").read_bytes()
    detect_photos(CONFIG, detector, [path], out)
    assert (out / "detections.csv").read_bytes() == before
    assert names(out) == ["detections.csv", "street.jpg"]


def test_pictures_of_another_call_do_not_stay_beside_a_new_csv(detector, tmp_path):
    first, second = photo(tmp_path / "first.png"), photo(tmp_path / "second.png")
    out = tmp_path / "out"
    detect_photos(CONFIG, detector, [first], out)
    before = (out / "detections.csv").read_bytes()
    with pytest.raises(UsageError, match=r"out: holds first\.jpg, .* give another --out"):
        detect_photos(CONFIG, detector, [second], out)
    assert names(out) == ["detections.csv", "first.jpg"]
    assert (out / "detections.csv").read_bytes() == before
    detect_photos(CONFIG, detector, [first, second], out)  # more than then
    assert names(out) == ["detections.csv", "first.jpg", "second.jpg"]


@pytest.mark.parametrize("name", ["street.jpg", "street.png"])
def test_a_photograph_is_never_replaced(detector, tmp_path, name):
    path = photo(tmp_path / "photos" / name)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=f"photos: holds {name}, .* give another --out"):
        detect_photos(CONFIG, detector, [path], tmp_path / "photos")
    assert names(path.parent) == [name]
    assert path.read_bytes() == before


def test_none_that_can_be_read(detector, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images could be read"):
        detect_photos(CONFIG, detector, [broken], tmp_path / "out")
    assert names(tmp_path) == ["broken.jpg"]


def test_processes_that_work_ahead_change_nothing(detector, tmp_path):
    paths = [photo(tmp_path / f"{k}.png", 60 + k) for k in range(4)]
    paths[2].write_bytes(b"")
    files = []
    for workers in (1, 2):
        out = tmp_path / "out"
        photos, skipped = detect_photos(CONFIG, detector, paths, out, workers=workers)
        assert [found.path for found in photos] == [paths[0], paths[1], paths[3]]
        assert list(skipped) == [paths[2]]
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_a_photograph_of_the_same_name_is_not_replaced_either(detector, tmp_path):
    path, other = photo(tmp_path / "a" / "street.jpg"), photo(tmp_path / "b" / "street.jpg", 70)
    before = other.read_bytes()
    with pytest.raises(UsageError, match=r"b: holds street\.jpg, .* give another --out"):
        detect_photos(CONFIG, detector, [path], other.parent)
    assert other.read_bytes() == before
