"""Pictures of detections and of conv5 responses."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.images import read_image
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.draw import draw_detections
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.responses import FilterResponses
from sppnet_cli.network.weights import load_network
from sppnet_cli.stages import visualize
from sppnet_cli.stages.detect import COLUMNS
from sppnet_cli.stages.visualize import (
    SHEET_FILE,
    DetectionPictures,
    ResponsePictures,
    picture_detections,
    picture_responses,
)


@pytest.fixture
def voc(tiny_data):
    return tiny_data / "VOCdevkit"


def write_detections(folder, rows):
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "detections.csv", index=False)
    return folder


@pytest.fixture
def run(voc, tmp_path):
    """A detection in each image of the test split but the first two: the image's whole upper left quarter."""
    dataset = load_voc(voc, "test")
    rows = []
    for k, image_id in enumerate(dataset.ids[2:]):
        height, width = dataset.annotation(image_id).size
        rows.append((image_id, dataset.class_names[k % 20], 0.5, 0, 0, width // 2, height // 2))
    return write_detections(tmp_path / "run", rows)


def drawn_ids(pictures):
    return [path.stem for path in pictures]


def test_images_evenly_over_those_detected(run, voc, tmp_path):
    ids = load_voc(voc, "test").ids
    out = tmp_path / "out"
    pictures = picture_detections(DetectionPictures(count=4), run, voc, (), out)
    # Of the places 0 to 17 behind the first two: 0, 5.67, 11.33, 17.
    assert drawn_ids(pictures) == [ids[2], ids[8], ids[13], ids[19]]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{p.stem}.jpg" for p in pictures), SHEET_FILE]
    )
    assert len(picture_detections(DetectionPictures(count=99), run, voc, (), out)) == 18


def test_pictures_are_of_the_detections(run, voc, tmp_path):
    dataset = load_voc(voc, "test")
    image_id = dataset.ids[5]  # the fourth detected one
    (picture,) = picture_detections(DetectionPictures(), run, voc, [image_id], tmp_path / "out")
    image = dataset.image(image_id)
    height, width = image.shape[:2]
    found = [Detection(3, 0.5, (0.0, 0.0, width // 2, height // 2))]
    expected = draw_detections(image, found, dataset.class_names, zoom=800 / max(height, width))
    written = read_image(picture).astype(int)
    assert written.shape == expected.shape
    assert max(written.shape) == 800
    assert np.abs(written - expected).mean() < 4  # JPEG
    without = draw_detections(image, [], dataset.class_names, zoom=800 / max(height, width))
    assert np.abs(written - without).mean() > np.abs(written - expected).mean()


def test_named_images_in_their_order_each_once(run, voc, tmp_path):
    ids = load_voc(voc, "test").ids
    named = [ids[7], ids[0], ids[7]]
    assert drawn_ids(picture_detections(DetectionPictures(), run, voc, named, tmp_path / "out")) == [
        ids[7],
        ids[0],
    ]


def test_the_score_and_the_ground_truth_change_the_picture(run, voc, tmp_path):
    image_id = load_voc(voc, "test").ids[5]
    written = []
    for number, config in enumerate(
        [DetectionPictures(), DetectionPictures(min_score=0.5), DetectionPictures(min_score=0.5, truth=True)]
    ):
        (path,) = picture_detections(config, run, voc, [image_id], tmp_path / str(number))
        written.append(path.read_bytes())
    assert len(set(written)) == 3


def test_an_unreadable_image_is_left_out(run, voc, tmp_path, capsys):
    copy = shutil.copytree(voc, tmp_path / "VOCdevkit")
    dataset = load_voc(copy, "test")
    dataset.image_path(dataset.ids[4]).write_bytes(b"")
    named = dataset.ids[3:6]
    pictures = picture_detections(DetectionPictures(), run, copy, named, tmp_path / "out")
    assert drawn_ids(pictures) == [named[0], named[2]]
    assert f"{named[1]}.jpg: is empty" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of the 1 images"):
        picture_detections(DetectionPictures(), run, copy, named[1:2], tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("stranger", "disk", 1, 0, 0, 9, 9), "detections in stranger"),
        (("", "unicorn", 1, 0, 0, 9, 9), "class 'unicorn'"),
    ],
)
def test_detections_of_another_data_set_are_refused(voc, tmp_path, row, message):
    row = (row[0] or load_voc(voc, "test").ids[0], *row[1:])
    run = write_detections(tmp_path / "run", [row])
    with pytest.raises(DataError, match=message):
        picture_detections(DetectionPictures(), run, voc, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_drawn_is_told(run, voc, tmp_path):
    with pytest.raises(UsageError, match="000000: no image of this name in test of"):
        picture_detections(DetectionPictures(), run, voc, ["000000"], tmp_path / "out")
    with pytest.raises(DataError, match="holds no detection"):
        picture_detections(
            DetectionPictures(), write_detections(tmp_path / "none", []), voc, (), tmp_path / "out"
        )
    with pytest.raises(DataError, match=r"nowhere: not detections"):
        picture_detections(DetectionPictures(), tmp_path / "nowhere", voc, (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def paths(voc):
    dataset = load_voc(voc, "test")
    return [dataset.image_path(image_id) for image_id in dataset.ids[:6]]


@pytest.fixture
def drawn(monkeypatch):
    """What `draw_responses` is called with, in place of drawing."""
    calls = []

    def record(title, image, responses, filters, excited):
        calls.append((title, image, responses, filters, excited))
        return np.zeros((20, 30, 3), np.uint8)

    monkeypatch.setattr(visualize, "draw_responses", record)
    return calls


def test_a_folder_of_photographs_gets_no_pictures(run, voc, tiny_network, paths, tmp_path):
    copy = shutil.copytree(voc, tmp_path / "VOCdevkit")
    photographs = load_voc(copy, "test").image_path("x").parent
    before = sorted(photographs.iterdir())
    with pytest.raises(UsageError, match=r"JPEGImages: holds .* give another --out"):
        picture_detections(DetectionPictures(count=2), run, copy, (), photographs)
    images = [photographs / path.name for path in paths]
    with pytest.raises(UsageError, match=r"JPEGImages: holds .* give another --out"):
        picture_responses(ResponsePictures(size=128), tiny_network, images, photographs)
    assert sorted(photographs.iterdir()) == before


def test_a_picture_of_responses(tiny_network, paths, tmp_path):
    config = ResponsePictures(size=128, count=1, strongest=2, excited=3)
    (picture,) = picture_responses(config, tiny_network, paths, tmp_path / "out")
    assert picture == tmp_path / "out" / f"1-{paths[0].stem}.png"
    image = read_image(picture)
    assert image.shape == (470, 1050, 3)  # two rows, five columns
    green = (image == (0, 224, 0)).all(axis=2)
    assert green[:, :200].any()
    assert green[:, 850:].any()


def test_the_strongest_filters_and_the_other_images_that_excite_them(tiny_network, paths, tmp_path, drawn):
    config = ResponsePictures(size=128, count=3, strongest=2, excited=4)
    pictures = picture_responses(config, tiny_network, paths, tmp_path / "out")
    assert [path.name for path in pictures] == [
        f"{n + 1}-{paths[k].stem}.png" for n, k in enumerate((0, 2, 5))
    ]
    respond = FilterResponses(load_network(tiny_network), 128)
    images = [read_image(path) for path in paths]
    peaks = [respond(image).maps.max(axis=(1, 2)) for image in images]
    for k, (title, image, responses, filters, excited) in zip((0, 2, 5), drawn, strict=True):
        assert paths[k].name in title
        np.testing.assert_array_equal(image, images[k])
        np.testing.assert_array_equal(responses.strongest, peaks[k])
        assert [peaks[k][f] for f in filters] == sorted(peaks[k], reverse=True)[:2]
        for f, row in zip(filters, excited, strict=True):
            assert [e.response for e in row] == sorted(
                (peaks[j][f] for j in range(6) if j != k), reverse=True
            )[:4]
            for e in row:
                j = next(j for j in range(6) if peaks[j][f] == e.response and j != k)
                np.testing.assert_array_equal(e.image, images[j])
                np.testing.assert_array_equal(e.field, respond(images[j]).fields[f])


def test_filters_that_are_named(tiny_network, paths, tmp_path, drawn):
    picture_responses(
        ResponsePictures(size=128, count=1, filters=(9, 3)), tiny_network, paths[:1], tmp_path / "out"
    )
    assert drawn[0][3] == (9, 3)
    assert drawn[0][4] == [[], []]  # no other image
    for wrong in (16, -1):
        with pytest.raises(UsageError, match=rf"filter {wrong}: .* has the filters 0 to 15"):
            picture_responses(ResponsePictures(filters=(3, wrong)), tiny_network, paths, tmp_path / "other")


def test_one_image_alone_can_be_drawn(tiny_network, paths, tmp_path):
    (picture,) = picture_responses(ResponsePictures(size=128), tiny_network, paths[:1], tmp_path / "out")
    assert read_image(picture).shape == (870, 420, 3)


def test_images_that_cannot_be_read_are_left_out(tiny_network, paths, tmp_path, drawn, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    pictures = picture_responses(
        ResponsePictures(size=128), tiny_network, [broken, *paths[:2]], tmp_path / "out"
    )
    assert [path.name for path in pictures] == [f"{k + 1}-{paths[k].stem}.png" for k in range(2)]
    assert "broken.jpg" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of the 1 images"):
        picture_responses(ResponsePictures(size=128), tiny_network, [broken], tmp_path / "out")
    with pytest.raises(DataError, match="not a network folder"):
        picture_responses(ResponsePictures(), tmp_path / "nowhere", paths, tmp_path / "out")
