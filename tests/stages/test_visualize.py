"""Pictures of detections and of conv5 responses."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.images import read_image
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.draw import draw_detections
from sppnet_cli.detection.draw_responses import draw_responses
from sppnet_cli.detection.shown import Shown
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.responses import FilterResponses
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network, save_network
from sppnet_cli.stages import visualize
from sppnet_cli.stages.detection_rows import COLUMNS
from sppnet_cli.stages.extract_features import ImageSet
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


@pytest.fixture
def picture(make, run, voc):
    """Draws detections; returns the folder."""

    def draw(name="out", detections=run, data=voc, **config):
        inputs = {"detections": detections, "data": data}
        return make(picture_detections, DetectionPictures("test", **config), inputs, name)

    return draw


def drawn_ids(folder):
    """In the order in which they were drawn."""
    files = [path for path in folder.glob("*.jpg") if path.name != SHEET_FILE]
    return [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]


def test_images_evenly_over_those_detected(picture, voc):
    ids = load_voc(voc, "test").ids
    out = picture(count=4)
    # Of the places 0 to 17 behind the first two: 0, 5.67, 11.33, 17.
    assert drawn_ids(out) == [ids[2], ids[8], ids[13], ids[19]]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{ids[k]}.jpg" for k in (2, 8, 13, 19)), SHEET_FILE, "manifest.json"]
    )
    assert len(drawn_ids(picture("all", count=99))) == 18


def test_pictures_are_of_the_detections(picture, voc):
    dataset = load_voc(voc, "test")
    image_id = dataset.ids[5]  # the fourth detected one
    out = picture(ids=(image_id,))
    image = dataset.image(image_id)
    height, width = image.shape[:2]
    found = [Detection(3, 0.5, (0.0, 0.0, width // 2, height // 2))]
    zoom, truth = 800 / max(height, width), dataset.annotation(image_id)
    expected = draw_detections(image, found, dataset.class_names, truth=truth, zoom=zoom)
    written = read_image(out / f"{image_id}.jpg").astype(int)
    assert written.shape == expected.shape
    assert max(written.shape) == 800
    assert np.abs(written - expected).mean() < 4  # JPEG
    without = draw_detections(image, [], dataset.class_names, truth=truth, zoom=zoom)
    assert np.abs(written - without).mean() > np.abs(written - expected).mean()


def test_named_images_in_their_order_each_once(picture, voc):
    ids = load_voc(voc, "test").ids
    assert drawn_ids(picture(ids=(ids[7], ids[0], ids[7]))) == [ids[7], ids[0]]


def test_the_score_and_the_ground_truth_change_the_picture(picture, voc):
    image_id = load_voc(voc, "test").ids[5]
    written = []
    for number, config in enumerate([{}, {"shown": Shown(0.5)}, {"shown": Shown(0.5), "truth": False}]):
        out = picture(str(number), ids=(image_id,), **config)
        written.append((out / f"{image_id}.jpg").read_bytes())
    assert len(set(written)) == 3


def test_an_unreadable_image_is_left_out(picture, voc, tmp_path, capsys):
    copy = shutil.copytree(voc, tmp_path / "VOCdevkit")
    dataset = load_voc(copy, "test")
    dataset.image_path(dataset.ids[4]).write_bytes(b"")
    named = dataset.ids[3:6]
    assert drawn_ids(picture(data=copy, ids=named)) == [named[0], named[2]]
    assert f"{named[1]}.jpg: is empty" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of the 1 images"):
        picture("none", data=copy, ids=named[1:2])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("stranger", "disk", 1, 0, 0, 9, 9), "detections in stranger"),
        (("", "unicorn", 1, 0, 0, 9, 9), "class 'unicorn'"),
    ],
)
def test_detections_of_another_data_set_are_refused(picture, voc, tmp_path, row, message):
    row = (row[0] or load_voc(voc, "test").ids[0], *row[1:])
    write_detections(tmp_path / "other", [row])
    with pytest.raises(DataError, match=message):
        picture(detections=tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_drawn_is_said(picture, tmp_path):
    with pytest.raises(UsageError, match="000000: no image of this name in test of"):
        picture(ids=("000000",))
    with pytest.raises(DataError, match="holds no detection"):
        picture(detections=write_detections(tmp_path / "none", []))
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        picture(detections=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: .*detections"):
        picture(detections=tmp_path / "empty")
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

    monkeypatch.setattr("sppnet_cli.detection.draw_responses.draw_responses", record)
    return calls


@pytest.fixture
def respond(make, tiny_network):
    """Draws responses; returns the pictures in their order."""

    def draw(paths, name="out", network=tiny_network, images=None, data=None, **config):
        inputs = {"network": network} | ({"data": data} if data else {})
        config = ResponsePictures(images, **{"size": 128} | config)
        out = make(picture_responses, config, inputs, name, images=paths)
        return sorted(out.glob("*.png"))

    return draw


def test_a_folder_of_photographs_gets_no_pictures(picture, respond, paths, tmp_path):
    photographs = tmp_path / "JPEGImages"
    photographs.mkdir()
    images = [Path(shutil.copy(path, photographs)) for path in paths]
    before = sorted(photographs.iterdir())
    with pytest.raises(UsageError, match=r"JPEGImages: is there already .* give another --out"):
        picture("JPEGImages", count=2)
    with pytest.raises(UsageError, match=r"JPEGImages: is there already .* give another --out"):
        respond(images, "JPEGImages")
    assert sorted(photographs.iterdir()) == before


def test_a_picture_of_responses(respond, paths, tmp_path):
    (picture,) = respond(paths, count=1, strongest=2, excited=3)
    assert picture == tmp_path / "out" / f"1-{paths[0].stem}.png"
    image = read_image(picture)
    assert image.shape == (470, 1050, 3)  # two rows, five columns
    green = (image == (0, 224, 0)).all(axis=2)
    assert green[:, :200].any()
    assert green[:, 850:].any()


def test_the_strongest_filters_and_the_other_images_that_excite_them(respond, tiny_network, paths, drawn):
    pictures = respond(paths, count=3, strongest=2, excited=4)
    assert [path.name for path in pictures] == [
        f"{n + 1}-{paths[k].stem}.png" for n, k in enumerate((0, 2, 5))
    ]
    responses_of = FilterResponses(load_network(tiny_network), 128)
    images = [read_image(path) for path in paths]
    peaks = [responses_of(image).maps.max(axis=(1, 2)) for image in images]
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
                np.testing.assert_array_equal(e.field, responses_of(images[j]).fields[f])


def test_filters_that_are_named(respond, paths, drawn):
    respond(paths[:1], count=1, filters=(9, 3))
    assert drawn[0][3] == (9, 3)
    assert drawn[0][4] == [[], []]  # no other image
    for wrong in (16, -1):
        with pytest.raises(UsageError, match=rf"filter {wrong}: .* has the filters 0 to 15"):
            respond(paths, "other", filters=(3, wrong))


def test_one_image_alone_can_be_drawn(respond, paths):
    (picture,) = respond(paths[:1])
    # Versions of matplotlib round otherwise.
    assert read_image(picture).shape == (pytest.approx(870, abs=1), 420, 3)


def test_images_of_a_set(respond, voc, drawn):
    dataset = load_voc(voc, "test", 3)
    pictures = respond((), images=ImageSet("VOC", "test", 3), data=voc, count=2, excited=1)
    assert [path.name for path in pictures] == [f"{n}-{dataset.ids[k]}.png" for n, k in ((1, 0), (2, 2))]
    np.testing.assert_array_equal(drawn[1][1], dataset.image(dataset.ids[2]))


def test_images_that_cannot_be_read_are_left_out(respond, paths, tmp_path, drawn, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    pictures = respond([broken, *paths[:2]])
    assert [path.name for path in pictures] == [f"{k + 1}-{paths[k].stem}.png" for k in range(2)]
    assert "broken.jpg" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of the 1 images"):
        respond([broken], "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a network folder"):
        respond(paths, "other", network=tmp_path / "empty")


def test_the_best_of_each_class_are_as_many_as_its_objects(voc):
    dataset = load_voc(voc, "test")
    truths = [dataset.annotation(image_id) for image_id in dataset.ids]
    objects = [sum(int((t.labels[~t.difficult] == k).sum()) for t in truths) for k in range(20)]
    rng = np.random.default_rng(0)
    rows = [
        (image_id, name, float(rng.normal()) - k, 0, 0, 9, 9)  # every class around a score of its own
        for image_id in dataset.ids[:12]
        for k, name in enumerate(dataset.class_names)
        for _ in range(3)
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    found = visualize.best_of_classes(frame, dataset)
    assert set(found["image"]) == set(dataset.ids[:12])  # no picture without a box
    for k, name in enumerate(dataset.class_names):
        scores = sorted(frame.loc[frame["class"] == name, "score"], reverse=True)
        own = sorted(found.loc[found["class"] == name, "score"], reverse=True)
        assert own[: objects[k]] == scores[: objects[k]]
        assert len(own) >= min(objects[k], 36)


def test_an_image_without_any_of_the_best_shows_its_best(voc):
    dataset = load_voc(voc, "test")
    name = dataset.class_names[0]
    many = [(dataset.ids[0], name, 9 - k / 99, 0, 0, 9, 9) for k in range(50)]
    rows = [*many, (dataset.ids[1], name, -3.0, 0, 0, 9, 9), (dataset.ids[1], name, -2.0, 1, 1, 9, 9)]
    found = visualize.best_of_classes(pd.DataFrame(rows, columns=list(COLUMNS)), dataset)
    assert found.loc[found["image"] == dataset.ids[1], "score"].tolist() == [-2.0]
    assert len(found) < 50
    none = visualize.best_of_classes(pd.DataFrame([], columns=list(COLUMNS)), dataset)
    assert len(none) == 0


def test_a_filter_without_a_response_has_no_box(respond, make, paths, tmp_path, drawn):
    network = load_network_of_zeros(tmp_path / "zeros")
    respond(paths, network=network, count=1, strongest=2)
    (call,) = drawn
    assert call[4] == [[], []]  # no image excites them
    picture = draw_responses(*call)
    assert picture.shape[2] == 3
    assert not (picture == (0, 224, 0)).all(axis=2).any()


def load_network_of_zeros(folder):
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2), 0, 0))
    for parameter in network.parameters():
        parameter.data.zero_()
    folder.mkdir()
    save_network(network, folder)
    return folder
