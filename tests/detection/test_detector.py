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
    make_extractor,
    read_description,
)
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, RELEASED

NAMES = ("cat", "dog", "emu")


def on_scores(classes=2, bbox=None, scale=1.0, bias=0.0):
    """A detector whose features begin with the scores of its classes; a last one is the regressors'."""
    extractor = SimpleNamespace(protocol=PAPER, device="cpu", network=SimpleNamespace(head=None))
    svms = Svms(np.eye(classes, classes + 1, dtype=np.float32), np.full(classes, bias, np.float32), scale)
    return Detector(extractor, "pool5", NAMES[:classes], svms, bbox=bbox)


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
    vectors = [pooled((3, -9), (1, -9)), pooled((2, -9), (4, -9), last=1.0)]
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


def whole(layer="pool5", method="spp", tuned=False, regressed=False, protocol=PAPER):
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
    return Detector(extractor, layer, NAMES, svms, head=head, bbox=bbox)


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
    whole("fc7", tuned=True, regressed=True).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "detector.json",
        "svm.safetensors",
        "bbox.safetensors",
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
    with pytest.raises(DataError, match=str(folder)) as raised:
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
        ("head.safetensors", "fc6.weight", (16, 10)),
    ],
)
def test_parts_of_another_detector(folder, name, tensor, shape):
    tensors = load_file(folder / name)
    del tensors[tensor]
    if shape is not None:
        tensors[tensor] = torch.zeros(shape)
    save_file(tensors, folder / name)
    with pytest.raises(DataError, match=str(folder)):
        Detector.load(folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"not a detector .* make one with `sppnet train-svm`"):
        Detector.load(tmp_path)
    with pytest.raises(DataError):
        Detector.load(tmp_path / "nowhere")
