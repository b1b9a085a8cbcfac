"""The graphs against the toolkit, and `torch.export` of them with dynamic sizes."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from packaging.version import Version, parse
from torch.export import Dim

from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import UsageError
from sppnet_cli.export.graphs import DetectorGraph, NetworkGraph, select
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.kernels.pyramid import SPP4, SPP6, SpatialPyramidPooling
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.geometry import choose_scales, window_cells
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import ALL_SCALES, PAPER, RELEASED, DetectRules, take

NAMES = ("cat", "dog", "emu")
DYNAMIC = Dim.DYNAMIC

keeps_sizes_open = pytest.mark.skipif(
    parse(torch.__version__) < Version("2.13"), reason="older torch.export settles whether a size is even"
)


@pytest.fixture(autouse=True)
def quiet_exporter():
    """torch logs the inequalities of sizes that it cannot solve."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def make_network(levels=SPP6, fc=24):
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, levels, fc, 5 if fc else 0))
    network.initialise("he")
    return network.eval()


def make_detector(protocol=PAPER, scales=(120, 240), layer="fc7", levels=SPP6, regressed=True, bias=0.0):
    network = make_network(levels)
    width = network.pooled_size if layer == "pool5" else 24
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, width)).astype(np.float32)
    svms = Svms(weights, np.array([bias, bias, -np.inf], np.float32), 0.1)
    bbox = None
    if regressed:
        deltas = rng.normal(0, 0.01, (3, network.pooled_size, 4)).astype(np.float32)
        bbox = BoxRegressors(deltas, rng.normal(0, 0.1, (3, 4)).astype(np.float32), 0.1)
    extractor = SppWindows(network, protocol, scales)
    rules = replace(take(DetectRules, protocol), nms_ties=PAPER.nms_ties)  # ONNX has no other
    return Detector(extractor, layer, NAMES, svms, bbox=bbox, rules=rules, protocol=protocol.name)


def case(height, width, count, seed=0):
    """An image of noise in blocks, and windows of which some are small, some reach the borders and some are equal."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])
    corners = rng.integers(0, (width - 2, height - 2), (count, 2))
    sides = rng.integers(1, (width, height), (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    boxes[::7] = boxes[0]
    boxes[1::9] = (0, 0, width - 1, height - 1)
    limit = np.array([width, height, width, height]) - 1
    return image, np.clip(boxes, 0, limit).astype(np.float32)


CASES = ((150, 200, 60), (230, 111, 30), (77, 77, 200), (120, 301, 1))


def call(graph, image, boxes):
    with torch.no_grad():
        return [part.numpy() for part in graph(torch.from_numpy(image), torch.from_numpy(boxes))]


def assert_same_windows(found, detector, image, boxes):
    scores, moved = found
    np.testing.assert_allclose(scores, detector.set_image(image).score(boxes), atol=2e-5)
    expected = np.repeat(boxes[:, None].astype(np.float64), 3, axis=1)
    if detector.bbox is not None:
        pooled = detector.extractor.pool(detector.extractor.prepare(image), boxes).numpy()
        expected = np.stack([detector.bbox(pooled, boxes, k, image.shape[:2]) for k in range(3)], axis=1)
    np.testing.assert_allclose(moved, expected, atol=1e-3)


def assert_same_detections(found, detections):
    labels, scores, boxes = found
    assert labels.tolist() == [d.label for d in detections]
    np.testing.assert_allclose(scores, [d.score for d in detections], atol=2e-5)
    np.testing.assert_allclose(boxes, np.reshape([d.box for d in detections], (-1, 4)), atol=1e-3)


@pytest.mark.parametrize("size", CASES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"protocol": RELEASED},
        {"layer": "fc6", "scales": (160,)},
        {"layer": "pool5", "regressed": False, "levels": SPP4},
    ],
)
def test_a_detector_by_its_graph(size, settings):
    detector = make_detector(**settings)
    image, boxes = case(*size)
    assert_same_windows(call(DetectorGraph(detector), image, boxes), detector, image, boxes)


@pytest.mark.parametrize("size", CASES)
@pytest.mark.parametrize("regressed", [True, False])
def test_detections_by_the_graph(size, regressed):
    detector = make_detector(regressed=regressed, bias=-1.0)
    image, boxes = case(*size)
    detections = detector.set_image(image).detect(boxes)
    assert detections or size[2] == 1
    assert_same_detections(call(DetectorGraph(detector, nms=True), image, boxes), detections)


@pytest.mark.parametrize("protocol", [PAPER, RELEASED])
@pytest.mark.parametrize("size", [(333, 500), (500, 333), (64, 64)])
def test_the_scale_and_the_cells_of_every_window(protocol, size):
    scales = tuple(range(120, 900, 7))  # so close that rounding decides
    graph = DetectorGraph(make_detector(protocol, scales))
    _, boxes = case(*size, 3000)
    choice = choose_scales(boxes, size, scales, protocol)
    maps = np.array([(s // 16, s // 16 + 3) for s in scales])  # (h, w), narrower than the windows reach
    expected = np.empty((len(boxes), 5), np.int64)
    for index, scale in enumerate(scales):
        own = choice == index
        cells = window_cells(boxes[own], size, scale, tuple(maps[index]), graph.geometry, protocol)
        expected[own] = np.concatenate([np.full((len(cells), 1), index), cells], axis=1)
    keys = graph._keys(
        torch.from_numpy(boxes).double(), torch.tensor(size).double(), torch.tensor(maps).double()
    )
    found = np.stack([(keys.numpy() >> shift) % (1 << 14) for shift in (56, 42, 28, 14, 0)], axis=1)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(choice)) > 10


@pytest.mark.parametrize("regressed", [True, False])
def test_no_more_than_the_best_of_a_class(regressed):
    detector = make_detector(replace(PAPER, max_per_image=2, nms_iou=0.9), regressed=regressed)
    image, boxes = case(150, 200, 60)
    detections = detector.set_image(image).detect(boxes)
    assert len(detections) == 4
    assert_same_detections(call(DetectorGraph(detector, nms=True), image, boxes), detections)


def test_windows_with_the_same_cells_tie():
    image, boxes = case(150, 200, 60)
    boxes = np.concatenate([boxes, boxes + 0.01]).astype(np.float32)
    scores = call(DetectorGraph(make_detector()), image, boxes)[0]
    assert np.array_equal(scores[:60], scores[60:])


def test_selection_by_hand():
    # Edges: the first two boxes share 6 of 10 pixels; IoU 6 / 14.
    edges = torch.tensor([[[0.0, 0, 10, 1], [4, 0, 14, 1], [50, 0, 60, 1]]])
    scores = torch.tensor([[[1.0, 2, 3], [-1, -2, -3]]])
    assert select(edges, scores, 5, 0.4, -1.5).tolist() == [[0, 0, 2], [0, 0, 1], [0, 1, 0]]
    assert select(edges, scores, 5, 0.43, -1.5).tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert select(edges, scores, 1, 0.4, -2.5).tolist() == [[0, 0, 2], [0, 1, 0]]


def test_detectors_without_a_graph():
    detector = make_detector(ALL_SCALES)
    with pytest.raises(UsageError, match="protocol all-scales is an ablation"):
        DetectorGraph(detector)
    detector.extractor = RcnnWindows(make_network(), PAPER)
    with pytest.raises(UsageError, match="method rcnn works on every window"):
        DetectorGraph(detector)


def test_the_toolkits_own_detector_is_left_alone():
    detector = make_detector()
    detector.extractor.network.train()
    graph = DetectorGraph(detector, nms=True)
    assert not any(module.training for module in graph.modules())
    assert detector.extractor.network.training


def test_torch_exports_the_pyramid():
    layer = SpatialPyramidPooling()
    shapes = {"maps": {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}}
    program = torch.export.export(layer, (torch.randn(2, 3, 14, 17),), dynamic_shapes=shapes).module()
    for size in ((1, 3, 13, 10), (5, 3, 40, 1), (1, 3, 1, 1)):
        maps = torch.randn(size)
        assert torch.equal(program(maps), layer(maps))


@keeps_sizes_open
@pytest.mark.parametrize("mean_image", [True, False])
def test_torch_exports_a_network(mean_image):
    network = make_network()
    network.mean_image = torch.rand(3, 224, 224) * 255 if mean_image else None
    images = torch.zeros(2, 3, 224, 231, dtype=torch.uint8)
    shapes = {"images": {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}}
    with torch.no_grad():
        program = torch.export.export(network, (images,), dynamic_shapes=shapes).module()
        for size in ((1, 3, 180, 180), (3, 3, 301, 200)):
            images = torch.randint(0, 256, size, dtype=torch.uint8)
            torch.testing.assert_close(program(images), network(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fc", [24, 0])
def test_a_network_by_its_graph(fc):
    network = make_network(fc=fc)
    network.mean_image = torch.rand(3, 224, 224) * 255
    images = torch.randint(0, 256, (2, 200, 180, 3), dtype=torch.uint8)
    pixels = images.permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(pixels) if fc else network.pool(network.maps(pixels, "conv5"))
        torch.testing.assert_close(NetworkGraph(network)(images), expected, rtol=1e-5, atol=1e-5)


@keeps_sizes_open
@pytest.mark.parametrize("nms", [False, True])
def test_torch_exports_a_detector(nms):
    detector = make_detector(bias=-1.0)
    image, boxes = case(150, 200, 9)
    shapes = {"image": {0: DYNAMIC, 1: DYNAMIC}, "boxes": {0: DYNAMIC}}
    with torch.no_grad():
        program = torch.export.export(
            DetectorGraph(detector, nms=nms),
            (torch.from_numpy(image), torch.from_numpy(boxes)),
            dynamic_shapes=shapes,
        ).module()
    for size in CASES:
        image, boxes = case(*size)
        found = call(program, image, boxes)
        if nms:
            assert_same_detections(found, detector.set_image(image).detect(boxes))
        else:
            assert_same_windows(found, detector, image, boxes)
