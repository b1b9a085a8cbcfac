import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sppnet_cli.detection.detector import (
    Detection,
    Detector,
    detect_together,
    fastest,
    make_extractor,
    read_description,
)
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.distinct import PooledWindows, pool_distinct
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network import precision
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, RELEASED

NAMES = ("cat", "dog", "emu")


def on_scores(classes=2, bbox=None, scale=1.0, bias=0.0, cascade=None, fast=None):
    """A detector whose features begin with the scores of its classes; a last one is the regressors'."""
    extractor = SimpleNamespace(protocol=PAPER, device="cpu", network=SimpleNamespace(head=None))
    svms = Svms(np.eye(classes, classes + 1, dtype=np.float32), np.full(classes, bias, np.float32), scale)
    shortcuts = Shortcuts(cascade, {}) if cascade is not None else None
    return Detector(extractor, "pool5", NAMES[:classes], svms, bbox=bbox, shortcuts=shortcuts, fast=fast)


def pooled(*scores, last=0.0):
    """Features of windows from a tuple of scores each."""
    return torch.tensor([[*row, last] for row in scores], dtype=torch.float32)


def apart(n):
    """Boxes that do not touch."""
    return np.array([[20.0 * k, 0, 20 * k + 9, 9] for k in range(n)], dtype=np.float32)


def test_the_score_is_weights_on_scaled_features_and_a_bias():
    scores = on_scores(scale=0.5, bias=2.0).score_pooled(pooled((4, -6), (0, 1)))
    np.testing.assert_array_equal(scores, [[4, -1], [2, 2.5]])


def test_scores_are_strictly_above_the_threshold():
    found = on_scores().detect_pooled(pooled((-1.5, -9), (-1.49, -9), (-9, -9)), apart(3), (50, 100))
    assert found == [Detection(0, pytest.approx(-1.49), (20.0, 0.0, 29.0, 9.0))]


def test_suppression_is_by_class_and_at_three_tenths():
    # IoU with the first box: 3 of 10 pixels, then 4 of 10.
    boxes = np.array([[0, 0, 9, 0], [0, 0, 2, 0], [0, 0, 3, 0]], dtype=np.float32)
    found = on_scores().detect_pooled(pooled((3, -9), (2, 5), (1, 4)), boxes, (50, 100))
    assert [(d.label, d.score, d.box[2]) for d in found] == [(1, 5, 2), (0, 3, 9), (0, 2, 2)]


def test_windows_of_two_detectors_compete_and_move_by_their_own_regressors():
    # Weights on the last feature, which is 1 here: the second detector moves its windows to the right by half.
    weights = np.zeros((2, 3, 4), np.float32)
    weights[:, 2, 0] = 0.5
    mover = on_scores(bbox=BoxRegressors(weights, np.zeros((2, 4), np.float32), 1.0))
    still = on_scores()
    boxes = apart(2)
    scores = [pooled((3, -9), (1, -9)), pooled((2, -9), (4, -9), last=1.0)]
    vectors = [PooledWindows(each, np.arange(2)) for each in scores]
    found = detect_together([still, mover], vectors, boxes, (50, 100))
    # Window 0 as the first detector scores it, window 1 as the second does; their other copies are suppressed.
    assert found == [Detection(0, 4, (24.5, 0.0, 33.5, 9.0)), Detection(0, 3, (0.0, 0.0, 9.0, 9.0))]


def test_the_best_100_of_every_class():
    scores = np.random.default_rng(0).permutation(np.linspace(-1.4, 3, 150))
    found = on_scores().detect_pooled(pooled(*[(s, -s) for s in scores]), apart(150), (50, 4000))
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    for label, sign in enumerate((1, -1)):
        own = sign * scores
        expected = np.sort(own[own > -1.5])[::-1][:100]
        np.testing.assert_allclose([d.score for d in found if d.label == label], expected, rtol=1e-6)


def test_a_class_of_minus_infinity_is_never_detected():
    detector = on_scores()
    svms = Svms(detector.svms.weights, np.array([0, -np.inf], dtype=np.float32), 1.0)
    never = Detector(detector.extractor, "pool5", NAMES[:2], svms)
    assert [d.label for d in never.detect_pooled(pooled((1, 1e6)), apart(1), (50, 100))] == [0]


def test_no_windows_and_no_detections():
    assert on_scores().detect_pooled(torch.empty(0, 3), np.empty((0, 4), np.float32), (50, 100)) == []
    assert on_scores().detect_pooled(pooled((-9, -9)), apart(1), (50, 100)) == []


LAST = Svms(np.array([[0, 0, 1], [0, 0, -2]], np.float32), np.array([0, 0.5], np.float32), 2.0)


@pytest.mark.parametrize(
    ("part", "passed"),
    [(0.2, [3]), (0.21, [1, 3]), (0.4, [1, 3]), (0.8, [1, 2, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_the_cascade_passes_the_windows_of_the_best_guesses(part, passed):
    # Guesses: the larger of 2x and 0.5 - 4x.
    x = torch.tensor([0.1, 1.0, -0.2, 3.0, 0.7])
    vectors = torch.cat([pooled(*[(k, -k) for k in range(5)])[:, :2], x[:, None]], dim=1)
    scores = on_scores(cascade=LAST, fast=FastOptions(cascade=part)).score_pooled(vectors)
    expected = np.full((5, 2), -np.inf)
    expected[passed] = [[k, -k] for k in passed]
    np.testing.assert_array_equal(scores, expected)
    assert on_scores(cascade=LAST).score_pooled(vectors).min() == -4  # it is there, but not asked


def test_windows_that_the_cascade_stops_are_no_detections():
    detector = on_scores(cascade=LAST, fast=FastOptions(cascade=0.5))
    vectors = torch.cat([pooled((9, 9), (5, 5), last=0.0), pooled((1, 1), (2, 2), last=1.0)])
    found = detector.detect_pooled(vectors, apart(4), (50, 100))
    assert sorted(d.score for d in found) == [1, 1, 2, 2]
    assert detector.detect_pooled(torch.empty(0, 3), np.empty((0, 4), np.float32), (50, 100)) == []


def test_no_cascade_without_one():
    with pytest.raises(UsageError, match="no cascade"):
        on_scores(fast=FastOptions(cascade=0.5))


def test_no_cut_without_axes():
    plain = whole("fc6")
    with pytest.raises(UsageError, match="no axes to cut its fc layers by"):
        Detector(plain.extractor, "fc6", NAMES, plain.svms, fast=FastOptions((4,)))


def shifts(by):
    """Regressors that move boxes of class 0 to the right by `by` widths for each unit of the last feature."""
    weights = np.zeros((2, 3, 4), dtype=np.float32)
    weights[0, 2, 0] = by
    return BoxRegressors(weights, np.zeros((2, 4), dtype=np.float32), 1.0)


def test_boxes_move_after_suppression_and_the_score_stays():
    # x2 - x1 = 9 wide; half of that to the right.
    found = on_scores(bbox=shifts(0.5)).detect_pooled(pooled((1, 2), last=1.0), apart(1), (50, 100))
    assert [(d.label, d.score) for d in found] == [(1, 2), (0, 1)]
    np.testing.assert_allclose(found[0].box, [0, 0, 9, 9])
    np.testing.assert_allclose(found[1].box, [4.5, 0, 13.5, 9])


def test_moved_boxes_stay_in_the_image():
    [found] = on_scores(bbox=shifts(0.5)).detect_pooled(pooled((1, -9), last=1.0), apart(1), (5, 12))
    np.testing.assert_allclose(found.box, [4.5, 0, 11, 4])


def test_boxes_that_move_onto_each_other_are_suppressed():
    # Side by side; the first, and lower, moves onto the second.
    features = torch.tensor([[1.0, -9, 1.0], [2.0, -9, 0.0]])
    boxes = np.array([[0, 0, 10, 10], [11, 0, 21, 10]], dtype=np.float32)
    assert len(on_scores().detect_pooled(features, boxes, (50, 100))) == 2
    [found] = on_scores(bbox=shifts(1.1)).detect_pooled(features, boxes, (50, 100))
    assert (found.score, found.box) == (2.0, (11.0, 0.0, 21.0, 10.0))


def test_boxes_that_would_move_apart_were_suppressed_before():
    features = torch.tensor([[1.0, -9, 5.0], [2.0, -9, 0.0]])
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], dtype=np.float32)
    assert len(on_scores(bbox=shifts(1.0)).detect_pooled(features, boxes, (50, 100))) == 1


IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
BOXES = np.array([[0, 0, 119, 89], [10, 5, 60, 70], [40, 30, 100, 80], [70, 10, 110, 60]], dtype=np.float32)


def whole(layer="pool5", method="spp", tuned=False, regressed=False, protocol=PAPER, shortcuts=False):
    """A detector on a narrow ZF-5 with random weights, at two small scales."""
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), fc=16, classes=5))
    network.initialise("he")
    network.eval()
    head = Head(network.pooled_size, 16, 4, 0.01).eval() if tuned else None
    width = network.pooled_size if layer == "pool5" else 16
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, width)).astype(np.float32)
    svms = Svms(weights, np.array([0.5, -0.25, -np.inf], np.float32), 0.0123456789012345)
    bbox = None
    if regressed:
        deltas = rng.normal(size=(3, network.pooled_size, 4)).astype(np.float32)
        bbox = BoxRegressors(deltas, rng.normal(size=(3, 4)).astype(np.float32), 1.23456789e-5)
    scales = (160, 224) if method == "spp" else ()
    extractor = make_extractor(method, network, protocol, scales, "cpu")
    found = shortcuts_of(head or network.head, layer, method, rng) if shortcuts else None
    return Detector(extractor, layer, NAMES, svms, head=head, bbox=bbox, shortcuts=found)


def shortcuts_of(head, layer, method, rng):
    """A cascade that has learnt nothing, but for R-CNN, and axes over random vectors."""
    vectors = torch.from_numpy(rng.exponential(size=(40, head.fc6.in_features)).astype(np.float32))
    with torch.no_grad():
        fc6 = head.fc6(vectors * head.input_scale)
        axes = {"fc6": principal_axes(fc6)}
        if layer == "fc7":
            axes["fc7"] = principal_axes(head.fc7(fc6.relu()))
    weights = rng.normal(size=(3, head.fc6.in_features)).astype(np.float32)
    cascade = Svms(weights, rng.normal(size=3).astype(np.float32), 0.987654321012345)
    return Shortcuts(cascade if method == "spp" else None, axes)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer": "fc6"},
        {"layer": "fc7", "tuned": True},
        {"layer": "fc7", "tuned": True, "regressed": True, "protocol": RELEASED},
        {"layer": "fc7", "tuned": True, "shortcuts": True},
        {"method": "rcnn", "layer": "fc6", "tuned": True, "regressed": True},
    ],
    ids=lambda options: "-".join(map(str, options)) or "pool5",
)
def test_what_was_saved_detects_alike(tmp_path, options):
    saved = whole(**options)
    saved.save(tmp_path)
    loaded = Detector.load(tmp_path)
    assert loaded.class_names == NAMES
    assert loaded.protocol is saved.protocol
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
    assert about.shortcuts == options.get("shortcuts", False)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_shortcuts_are_read_as_they_were_written(tmp_path, method, layer):
    saved = whole(layer, method, shortcuts=True).shortcuts
    whole(layer, method, shortcuts=True).save(tmp_path)
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


def test_the_row_of_the_table(tmp_path):
    whole("fc7", tuned=True).save(tmp_path)
    assert read_description(tmp_path).row == "ftfc7"


def test_scores_are_those_of_the_layers_features():
    detector = whole("fc7", tuned=True)
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    with torch.no_grad():
        head = detector.head
        fc6 = torch.relu(vectors * 0.01 @ head.fc6.weight.T + head.fc6.bias)
        fc7 = torch.relu(fc6 @ head.fc7.weight.T + head.fc7.bias).double().numpy()
    expected = 0.0123456789012345 * fc7 @ detector.svms.weights.T.astype(np.float64) + detector.svms.bias
    np.testing.assert_allclose(detector.set_image(IMAGE).score(BOXES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_setting_an_image_is_pooling_its_windows(method):
    detector = whole("fc6", method, regressed=True)
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    straight = detector.detect_pooled(vectors, BOXES, (90, 120))
    assert detector.set_image(IMAGE[:, ::-1].copy()).detect(BOXES) != straight
    assert detector.set_image(IMAGE).detect(BOXES) == straight
    assert len(straight) > 1
    for found in straight:
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 <= x2 <= 119
        assert 0 <= y1 <= y2 <= 89
    assert detector.detect(np.empty((0, 4), np.float32)) == []


def test_windows_of_the_same_cells_score_and_move_alike():
    detector = whole("fc7", tuned=True, regressed=True)
    boxes = np.concatenate([BOXES, BOXES + np.array([1, 0, 0, 1], np.float32) / 8])
    prepared = detector.extractor.prepare(IMAGE)
    assert len(pool_distinct(detector.extractor, prepared, boxes).vectors) < len(boxes)
    vectors = detector.extractor.pool(prepared, boxes)
    # One by one: a product of another shape may round otherwise.
    scores = detector.set_image(IMAGE).score(boxes)
    np.testing.assert_allclose(scores, detector.score_pooled(vectors), rtol=1e-6, atol=1e-6)
    straight = detector.detect_pooled(vectors, boxes, (90, 120))
    found = detector.detect(boxes)
    assert len(found) == len(straight) > 1
    for one, other in zip(found, straight, strict=True):
        assert one.label == other.label
        assert one.score == pytest.approx(other.score, rel=1e-6)
        assert one.box == pytest.approx(other.box, rel=1e-6)


def test_all_windows_through_the_cascade_are_as_without(folder):
    plain = Detector.load(folder).set_image(IMAGE)
    passing = Detector.load(folder, fast=FastOptions(cascade=1.0)).set_image(IMAGE)
    np.testing.assert_array_equal(passing.score(BOXES), plain.score(BOXES))
    assert passing.detect(BOXES) == plain.detect(BOXES)
    half = Detector.load(folder, fast=FastOptions(cascade=0.5)).set_image(IMAGE).score(BOXES)
    guess = passing.shortcuts.cascade
    vectors = plain.extractor.pool(plain.extractor.prepare(IMAGE), BOXES).numpy()
    order = np.argsort(-(guess.scale * vectors @ guess.weights.T + guess.bias).max(axis=1))
    assert np.flatnonzero((half > -np.inf).any(axis=1)).tolist() == sorted(order[:2])


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("ranks", [(8,), (8, 5)])
def test_cut_layers_score_as_their_projection_does(tmp_path, ranks, method):
    whole("fc7", method, tuned=True, shortcuts=True).save(tmp_path)
    detector = Detector.load(tmp_path, fast=FastOptions(ranks))
    vectors = detector.extractor.pool(detector.extractor.prepare(IMAGE), BOXES)
    exact = Detector.load(tmp_path)
    x = vectors.double().numpy() * 0.01
    for name, rank in zip(("fc6", "fc7"), (*ranks, None), strict=False):
        layer, (axes, mean) = getattr(exact.head, name), exact.shortcuts.axes[name]
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if rank is not None:
            axes, mean = axes[:, :rank].double().numpy(), mean.double().numpy()
            x = mean + (x - mean) @ axes @ axes.T
        x = np.maximum(x, 0)
    expected = exact.svms.scale * x @ exact.svms.weights.T + exact.svms.bias
    np.testing.assert_allclose(detector.score_pooled(vectors), expected, rtol=1e-4, atol=1e-4)
    assert (exact.score_pooled(vectors) != detector.score_pooled(vectors)).any()


def test_in_bf16_scores_are_nearly_the_same(folder, monkeypatch):
    monkeypatch.setattr(precision, "_fast_bf16", lambda device: True)
    exact = Detector.load(folder).set_image(IMAGE).score(BOXES)
    for fast in (None, FastOptions(cascade=1.0), FastOptions((8, 5), 1.0)):
        expected = exact if fast is None else Detector.load(folder, fast=fast).set_image(IMAGE).score(BOXES)
        detector = Detector.load(folder, fast=fast, precision="bf16").set_image(IMAGE)
        found = detector.score(BOXES)
        assert found.dtype == np.float32
        assert (found[:, :2] != expected[:, :2]).any()
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * np.abs(expected[:, :2]).max())
        assert len(detector.detect(BOXES)) > 0  # regressed too


def test_of_fc6_only_the_first_rank_counts(tmp_path):
    whole("fc6", shortcuts=True).save(tmp_path)
    vectors = torch.rand(4, 800)
    first, both = (
        Detector.load(tmp_path, fast=FastOptions(r)).score_pooled(vectors) for r in ((5,), (5, 99))
    )
    np.testing.assert_array_equal(first, both)


def test_a_fast_detector_is_saved_whole(folder, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "again").mkdir()
    Detector.load(folder, fast=FastOptions((8, 5), 0.5)).save(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


@pytest.mark.parametrize(
    ("options", "fast", "error", "message"),
    [
        ({}, FastOptions((4,)), UsageError, "its SVMs are on pool5"),
        ({}, FastOptions(cascade=0.5), UsageError, "its SVMs are on pool5"),
        ({"layer": "fc6"}, FastOptions(cascade=0.5), DataError, "has no shortcuts.*, .* train it anew"),
        ({"layer": "fc6"}, FastOptions((4,)), DataError, "has no shortcuts.*, .* train it anew"),
        ({"layer": "fc6", "method": "rcnn"}, FastOptions((4,)), DataError, "has no shortcuts"),
        ({"layer": "fc6", "method": "rcnn"}, FastOptions(cascade=0.5), UsageError, "R-CNN's time"),
        ({"layer": "fc6", "shortcuts": True}, FastOptions((9,)), UsageError, "rank 9 of fc6: of 800 x 16"),
        ({"layer": "fc7", "shortcuts": True}, FastOptions((8, 8)), UsageError, "rank 8 of fc7: of 16 x 16"),
    ],
)
def test_options_that_do_not_fit_a_detector(tmp_path, options, fast, error, message):
    whole(**options).save(tmp_path)
    with pytest.raises(error, match=message) as raised:
        Detector.load(tmp_path, fast=fast)
    assert "\n" not in str(raised.value)


def test_what_fast_means_for_a_detector(tmp_path):
    whole("fc7", tuned=True).save(tmp_path)
    assert fastest(tmp_path) == FastOptions((6,), 0.2)
    whole("fc6").save(tmp_path)
    assert fastest(tmp_path) == FastOptions((6,), 0.2)
    whole().save(tmp_path)
    with pytest.raises(UsageError, match="--fast is for detectors on fc6 or fc7"):
        fastest(tmp_path)


def test_a_detector_of_before_the_shortcuts_is_whole_until_it_is_to_be_fast(folder):
    expected = Detector.load(folder).set_image(IMAGE).detect(BOXES)
    (folder / "shortcuts.safetensors").unlink()
    path = folder / "detector.json"
    about = json.loads(path.read_text())
    del about["shortcuts"]
    path.write_text(json.dumps(about))
    for fast in (None, FastOptions()):
        detector = Detector.load(folder, fast=fast)
        assert detector.shortcuts is None
        assert detector.set_image(IMAGE).detect(BOXES) == expected
    for fast in (fastest(folder), FastOptions((4,)), FastOptions(cascade=0.5)):
        with pytest.raises(
            DataError, match=r"has no shortcuts.safetensors.* train it anew with `sppnet train-svm`"
        ):
            Detector.load(folder, fast=fast)


def test_other_scales(tmp_path):
    whole().save(tmp_path)
    assert Detector.load(tmp_path, scales=(100,)).extractor.scales == (100,)


def test_methods():
    network = SPPNet(NetworkSpec("zf5", 0.0625))
    assert isinstance(make_extractor("rcnn", network, PAPER, (), "cpu"), RcnnWindows)
    assert isinstance(make_extractor("spp", network, PAPER, (480,), "cpu"), SppWindows)
    with pytest.raises(UsageError, match="fc6 needs fc layers"):
        Detector(
            make_extractor("rcnn", network, PAPER, (), "cpu"),
            "fc6",
            NAMES,
            Svms(np.ones((3, 4)), np.ones(3), 1),
        )


@pytest.fixture
def folder(tmp_path):
    whole("fc7", tuned=True, regressed=True, shortcuts=True).save(tmp_path)
    return tmp_path


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
    ("field", "value"),
    [
        ("protocol", "mine"),
        ("method", "yolo"),
        ("class_names", ["cat", "dog"]),
        ("layer", "fc9"),
        ("extra", 1),
    ],
)
def test_a_description_that_does_not_fit(folder, field, value):
    path = folder / "detector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises((DataError, UsageError)):
        Detector.load(folder)


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


def test_shortcuts_of_a_detector_on_another_layer(tmp_path):
    for layer in ("fc6", "fc7"):
        (tmp_path / layer).mkdir()
        whole(layer, shortcuts=True).save(tmp_path / layer)
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
