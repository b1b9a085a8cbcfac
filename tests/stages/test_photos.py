"""Detections in image files, with pictures."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.images import read_image
from sppnet_cli.data.proposals import image_seed, propose
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.draw import draw_detections
from sppnet_cli.detection.shown import Shown
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.files import path_text
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.formats import images_of_files
from sppnet_cli.stages.photos import PhotoConfig, detect_photos, lacks_photos, read_photos

CONFIG = PhotoConfig(
    scales=None,
    fast=None,
    precision=None,
    proposals="ss-fast",
    seed=0,
    max_windows=5,
    proposal_side=500,
    shown=Shown(),
)


@pytest.fixture
def detect(make, random_detector):
    def run(paths, name="out", config=CONFIG, workers=1):
        inputs = {"detector": random_detector}
        return make(
            detect_photos, config, inputs, name, images=paths, unfinished=lacks_photos, workers=workers
        )

    return run


def photo(path, height=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_of_each_and_one_csv(detect, tmp_path, capsys):
    paths = [photo(tmp_path / "a" / "street.png"), photo(tmp_path / "b" / "street.png", 70)]
    broken = tmp_path / "b" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    out = detect([paths[0], broken, paths[1]])
    photos, skipped = read_photos(out)
    assert [(found.path, found.picture) for found in photos] == [
        (paths[0], out / "street.jpg"),
        (paths[1], out / "street-2.jpg"),
    ]
    assert list(skipped) == [str(broken)]
    assert "1 of 3 images were skipped" in capsys.readouterr().err
    assert names(out) == ["detections.csv", "manifest.json", "photos.csv", "street-2.jpg", "street.jpg"]
    assert read_image(out / "street-2.jpg").shape == (70, 80, 3)
    rows = pd.read_csv(out / "detections.csv")
    assert len(rows) == sum(len(found.detections) for found in photos) > 0
    assert set(rows["image"]) <= set(map(str, paths))


def test_rows_and_pictures_are_those_of_the_detector(detect, random_detector, tmp_path):
    path = photo(tmp_path / "street.png")
    [found], _ = read_photos(detect([path]))
    detector = Detector.load(random_detector)
    image = read_image(path)
    boxes = propose(image, "ss-fast", image_seed(0, "street"), 500)[:5]
    expected = detector.set_image(image).detect(boxes)
    assert found.detections["score"].tolist() == pytest.approx([d.score for d in expected], rel=1e-5)
    drawn = [d for d in expected if d.score > 0] or expected[:1]
    picture = draw_detections(image, drawn, detector.class_names, weak=drawn == expected[:1])
    difference = np.abs(read_image(found.picture).astype(int) - picture)
    others = np.abs(read_image(found.picture).astype(int) - image)
    assert difference.mean() < others.mean()


def test_the_same_images_again(detect, tmp_path):
    path = photo(tmp_path / "street.png")
    out = detect([path])
    before = (out / "detections.csv").stat().st_mtime_ns
    detect([path])
    assert (out / "detections.csv").stat().st_mtime_ns == before
    assert names(out) == ["detections.csv", "manifest.json", "photos.csv", "street.jpg"]


def test_a_photograph_that_was_skipped_is_tried_again(detect, tmp_path):
    path, broken = photo(tmp_path / "a.png"), tmp_path / "b.png"
    photo(broken)
    content = broken.read_bytes()
    broken.write_bytes(content[:50].ljust(len(content), b"\0"))  # as long as the whole file
    out = detect([path, broken])
    assert list(read_photos(out)[1]) == [str(broken)]
    broken.write_bytes(content)
    detect([path, broken])
    assert [found.path for found in read_photos(out)[0]] == [path, broken]
    assert read_photos(out)[1] == {}


def test_pictures_of_another_call_do_not_stay_beside_a_new_csv(detect, tmp_path):
    first, second = photo(tmp_path / "first.png"), photo(tmp_path / "second.png")
    out = detect([first])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for others in ([second], [first, second]):
        with pytest.raises(UsageError, match=r"out: made from other sources: images\. .* give another --out"):
            detect(others)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["street.jpg", "street.png"])
def test_a_photograph_is_never_replaced(detect, tmp_path, name):
    path = photo(tmp_path / "photos" / name)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"photos: is there already and was not made by sppnet"):
        detect([path], "photos")
    assert names(path.parent) == [name]
    assert path.read_bytes() == before


def test_a_photograph_of_the_same_name_is_not_replaced_either(detect, tmp_path):
    path, other = photo(tmp_path / "a" / "street.jpg"), photo(tmp_path / "b" / "street.jpg", 70)
    before = other.read_bytes()
    with pytest.raises(UsageError, match=r"b: is there already .* give another --out"):
        detect([path], "b")
    assert other.read_bytes() == before


def test_names_that_are_no_text_and_links_to_nothing_cost_no_other(detect, tmp_path, capsys):
    folder = tmp_path / "photos"
    paths = [photo(folder / name) for name in ("good.png", "caf\udce9.png", "a\nb.png", "y" * 251 + ".png")]
    (folder / "link.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    every = [*paths, folder / "link.jpg", folder / "pipe.jpg"]
    out = detect(every)
    photos, skipped = read_photos(out)
    assert [str(found.path) for found in photos] == [path_text(str(path)) for path in paths]
    assert all(len(found.detections) and found.picture.is_file() for found in photos)
    assert list(skipped) == list(map(str, every[-2:]))
    assert "2 of 6 images were skipped" in capsys.readouterr().err
    assert read_manifest(detect(every))["stage"] == "stage"  # written and read back
    found = images_of_files(every, {str(each.path): each.picture for each in photos}, ("cat",))
    assert list(found.sizes.values()) == [(60, 80)] * 4
    names = ("good", "caf_", "a\nb", "y" * 240)
    assert tuple(found.names.values()) == names


def test_none_that_can_be_read(detect, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images could be read"):
        detect([broken])
    assert names(tmp_path) == ["broken.jpg"]


def test_processes_that_work_ahead_change_nothing(detect, tmp_path):
    paths = [photo(tmp_path / f"{k}.png", 60 + k) for k in range(4)]
    paths[2].write_bytes(b"")
    files = []
    for workers in (1, 2):
        out = detect(paths, f"out{workers}", workers=workers)
        photos, skipped = read_photos(out)
        assert [found.path for found in photos] == [paths[0], paths[1], paths[3]]
        assert list(skipped) == [str(paths[2])]
        files.append({path.name: path.read_bytes() for path in out.iterdir() if path.name != "manifest.json"})
    assert files[0] == files[1]
    assert len(files[0]) == 5


@pytest.mark.parametrize(("damage", "name"), [("gone", "photos.csv"), ("cut", "detections.csv")])
def test_a_run_that_is_not_whole(detect, tmp_path, damage, name):
    out = detect([photo(tmp_path / "street.png")])
    if damage == "gone":
        (out / name).unlink()
    else:
        (out / name).write_text("picture\n")
    with pytest.raises(DataError, match=rf"{name}: .*; remove {out} and detect again"):
        read_photos(out)
