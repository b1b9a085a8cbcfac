import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.detector_files import fastest, read_description
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.learning.calibration import Calibration
from sppnet_cli.protocols import RELEASED

NAMES = ("cat", "dog", "emu")
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BOXES = np.array([[0, 0, 119, 89], [10, 5, 60, 70], [40, 30, 100, 80], [70, 10, 110, 60]], dtype=np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer": "fc6"},
        {"layer": "fc7", "tuned": True},
        {"layer": "fc7", "tuned": True, "regressed": True, "protocol": RELEASED},
        {"method": "rcnn", "layer": "fc6", "tuned": True, "regressed": True},
    ],
    ids=lambda options: "-".join(map(str, options)) or "pool5",
)
def test_what_was_saved_detects_alike(whole, tmp_path, options):
    saved = whole(**options)
    saved.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.class_names == NAMES
    assert (loaded.protocol, loaded.rules) == (saved.protocol, saved.rules)
    assert loaded.extractor.mapping == saved.extractor.mapping
    assert loaded.extractor.scales == saved.extractor.scales
    assert type(loaded.extractor) is type(saved.extractor)
    assert loaded.layer.name == saved.layer.name
    first, second = (d.set_image(IMAGE).score(BOXES) for d in (saved, loaded))
    assert first.shape == (4, 3)
    assert np.isfinite(first[:, :2]).all()
    np.testing.assert_array_equal(first, second)
    assert loaded.detect(BOXES) == saved.detect(BOXES)
    about = read_description(tmp_path)
    assert about.layer == options.get("layer", "pool5")
    assert about.fine_tuned == options.get("tuned", False)
    assert about.regressed == options.get("regressed", False)
    assert (tmp_path / "shortcuts.safetensors").is_file() == (about.layer != "pool5")


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_shortcuts_are_read_as_they_were_written(whole, tmp_path, method, layer):
    saved = whole(layer, method).shortcuts
    whole(layer, method).save(tmp_path)
    loaded = Detector.load(tmp_path).shortcuts
    assert loaded.axes.keys() == saved.axes.keys() == {"fc6", layer}
    for name, (axes, mean) in saved.axes.items():
        assert torch.equal(loaded.axes[name].axes, axes)
        assert torch.equal(loaded.axes[name].mean, mean)
    if method == "rcnn":
        assert loaded.cascade is saved.cascade is None
    else:
        np.testing.assert_array_equal(loaded.cascade.weights, saved.cascade.weights)
        np.testing.assert_array_equal(loaded.cascade.bias, saved.cascade.bias)
        assert loaded.cascade.scale == saved.cascade.scale


def test_a_calibration_is_read_as_it_was_written(whole, tmp_path):
    detector = whole()
    detector.save(tmp_path)
    assert "calibration" not in json.loads((tmp_path / "detector.json").read_text())
    assert Detector.load(tmp_path).calibration is None
    detector.calibration = Calibration((1.25, 1 / 3, 2.0), (-1.0, 0.1, 1e-17), 0.5, 0.7)
    detector.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.calibration == detector.calibration
    assert loaded.set_image(IMAGE).detect(BOXES)[0].confidence is not None


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"slope": [1, 1], "offset": [0, 0], "knee": 0, "bend": 1}, "its calibration is of other classes"),
        ({"slope": [1, 1, 1], "offset": [0, 0], "knee": 0, "bend": 1}, "its calibration is of other classes"),
        ({"slope": [1, 1, 1], "knee": 0, "bend": 1}, "calibration.offset is missing"),
        (
            {"slope": [1, 1, 1], "offset": [0, 0, 0], "knee": 0, "bend": 2},
            "calibration.bend is 2, not between 0 and 1",
        ),
        ({"slope": [1, 1, "a"], "offset": [0, 0, 0], "knee": 0, "bend": 1}, "not a number"),
    ],
)
def test_a_calibration_that_does_not_fit(folder, calibration, message):
    path = folder / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": calibration}))
    with pytest.raises(DataError, match=message):
        Detector.load(folder)


def test_the_row_of_the_table(whole, tmp_path):
    whole("fc7", tuned=True).save(tmp_path)
    assert read_description(tmp_path).row == "ftfc7"


def test_a_fast_detector_is_saved_whole(folder, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "again").mkdir()
    Detector.load(folder, fast=FastOptions((8, 5), 0.5)).save(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


@pytest.mark.parametrize(
    ("options", "fast", "message"),
    [
        ({}, FastOptions((4,)), "its SVMs are on pool5"),
        ({}, FastOptions(cascade=0.5), "its SVMs are on pool5"),
        ({"layer": "fc6", "method": "rcnn"}, FastOptions(cascade=0.5), "method rcnn has no cascade"),
        ({"layer": "fc6"}, FastOptions((9,)), "rank 9 of fc6: of 800 x 16"),
        ({"layer": "fc7"}, FastOptions((8, 8)), "rank 8 of fc7: of 16 x 16"),
    ],
)
def test_options_that_do_not_fit_a_detector(whole, tmp_path, options, fast, message):
    whole(**options).save(tmp_path)
    with pytest.raises(UsageError, match=message) as raised:
        Detector.load(tmp_path, fast=fast)
    assert "\n" not in str(raised.value)


def test_what_fast_means_for_a_detector(whole, tmp_path):
    whole("fc7", tuned=True).save(tmp_path)
    assert fastest(tmp_path) == FastOptions((6,), 0.2)
    whole("fc6").save(tmp_path)
    assert fastest(tmp_path) == FastOptions((6,), 0.2)
    whole("fc6", "rcnn").save(tmp_path)
    assert fastest(tmp_path) == FastOptions((6,))
    whole().save(tmp_path)
    assert fastest(tmp_path) == FastOptions()


def test_other_scales(whole, tmp_path):
    whole().save(tmp_path)
    assert Detector.load(tmp_path, scales=(100,)).extractor.scales == (100,)


@pytest.mark.parametrize(
    "name",
    [
        "detector.json",
        "svm.safetensors",
        "bbox.safetensors",
        "shortcuts.safetensors",
        "network.json",
        "network.safetensors",
        "head.safetensors",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_folder_that_is_not_whole(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "other": b"[1, 2]"}[damage])
    # Of what is in JSON the folder is named, else the file.
    with pytest.raises(DataError, match=str(folder if path.suffix == ".json" else path)) as raised:
        Detector.load(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("protocol", "mine", "names the unknown protocol 'mine'; make the detector again"),
        ("method", "yolo", "names the unknown method 'yolo'; make the detector again"),
        ("layer", "fc9", "names the unknown layer 'fc9'; make the detector again"),
        ("class_names", ["cat", "dog"], "svm.safetensors: is of another detector"),
        ("extra", 1, "not a detector"),
    ],
)
def test_a_description_that_does_not_fit(folder, field, value, message):
    path = folder / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DataError, match=message):
        Detector.load(folder)


@pytest.mark.parametrize(
    ("part", "field", "value", "limits"),
    [
        ("mapping", "cell_slack", 2**60, "0 and 8"),
        ("mapping", "cell_slack", -0.1, "0 and 8"),
        ("rules", "nms_iou", 1.5, "0 and 1"),
        ("rules", "max_per_image", -1, "1 and 1e+06"),
        ("rules", "max_per_image", 0, "1 and 1e+06"),
    ],
)
def test_numbers_that_no_rule_has(folder, part, field, value, limits):
    path = folder / "detector.json"
    about = json.loads(path.read_text())
    about[part][field] = value
    path.write_text(json.dumps(about))
    with pytest.raises(DataError, match=re.escape(f"{part}.{field} is {value:g}, not between {limits}")):
        read_description(folder)


def test_a_detector_on_fc_layers_is_not_saved_without_shortcuts(whole, tmp_path):
    detector = whole("fc6")
    detector.shortcuts = None
    with pytest.raises(UsageError, match="a detector on fc6 cannot be saved without its shortcuts"):
        detector.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "tensor", "shape"),
    [
        ("svm.safetensors", "weights", (3, 17)),
        ("svm.safetensors", "bias", (4,)),
        ("svm.safetensors", "weights", None),
        ("bbox.safetensors", "weights", (3, 10, 4)),
        ("bbox.safetensors", "weights", (2, 800, 4)),
        ("bbox.safetensors", "bias", None),
        ("shortcuts.safetensors", "cascade.weights", (3, 16)),
        ("shortcuts.safetensors", "cascade.weights", (2, 800)),
        ("shortcuts.safetensors", "cascade.weights", None),
        ("shortcuts.safetensors", "cascade.bias", (4,)),
        ("shortcuts.safetensors", "cascade.bias", None),
        ("shortcuts.safetensors", "cascade.scale", None),
        ("shortcuts.safetensors", "fc6.axes", (24, 8)),
        ("shortcuts.safetensors", "fc6.axes", (16, 3)),
        ("shortcuts.safetensors", "fc6.axes", None),
        ("shortcuts.safetensors", "fc6.mean", (24,)),
        ("shortcuts.safetensors", "fc6.mean", None),
        ("shortcuts.safetensors", "fc7.axes", None),
        ("head.safetensors", "fc6.weight", (16, 10)),
    ],
)
def test_parts_of_another_detector(folder, name, tensor, shape):
    tensors = load_file(folder / name)
    del tensors[tensor]
    if shape is not None:
        tensors[tensor] = torch.zeros(shape)
    save_file(tensors, folder / name)
    with pytest.raises(DataError, match=str(folder / name)) as raised:
        Detector.load(folder)
    assert "\n" not in str(raised.value)


def test_shortcuts_of_a_detector_on_another_layer(whole, tmp_path):
    for layer in ("fc6", "fc7"):
        (tmp_path / layer).mkdir()
        whole(layer).save(tmp_path / layer)
    files = [tmp_path / layer / "shortcuts.safetensors" for layer in ("fc6", "fc7")]
    first, second = (file.read_bytes() for file in files)
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    for file in files:
        with pytest.raises(DataError, match=f"{file}: is of another detector"):
            Detector.load(file.parent)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"not a detector .* make one with `sppnet train-svm`"):
        Detector.load(tmp_path)
    with pytest.raises(DataError):
        Detector.load(tmp_path / "nowhere")
