"""ONNX files in ONNX Runtime against the toolkit."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from test_graphs import CASES, NAMES, case, make_detector, make_network

from sppnet_cli.data.proposals import propose
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.export import onnx_file
from sppnet_cli.export.onnx_file import compare, export_detector, export_network, open_session
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_trunk_weights
from sppnet_cli.protocols import RELEASED


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    detector, path = make_detector(bias=-1.0), tmp_path_factory.mktemp("scored") / "detector.onnx"
    return detector, path, export_detector(detector, path)


@pytest.fixture(scope="module")
def suppressed(tmp_path_factory):
    detector = make_detector(RELEASED, bias=-1.0)
    path = tmp_path_factory.mktemp("suppressed") / "detector.onnx"
    return detector, path, export_detector(detector, path, nms=True)


def test_what_a_detector_takes_and_gives(scored, suppressed):
    takes = {"image": "uint8 (height, width, 3)", "windows": "float32 (windows, 4)"}
    _, path, exported = scored
    assert exported.inputs == takes
    assert exported.outputs == {"scores": "float32 (windows, 3)", "boxes": "float32 (windows, 3, 4)"}
    assert len(exported.compared) == 2
    assert exported.largest_difference < 1e-4
    assert exported.largest_shift < 1e-3
    assert [entry.name for entry in path.parent.iterdir()] == ["detector.onnx"]
    _, path, exported = suppressed
    assert exported.inputs == takes
    assert exported.outputs == {
        "labels": "int64 (detections)",
        "scores": "float32 (detections)",
        "boxes": "float32 (detections, 4)",
    }
    assert json.loads(open_session(path).get_modelmeta().custom_metadata_map["class_names"]) == list(NAMES)


def test_the_file_has_standard_operators_alone(suppressed):
    import onnx

    model = onnx.load(suppressed[1])
    onnx.checker.check_model(model)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert not model.functions


@pytest.mark.parametrize("size", CASES)
def test_a_detector_in_onnx_runtime(scored, suppressed, size):
    for detector, path, _ in (scored, suppressed):
        score, shift = compare(open_session(path), detector, *case(*size, seed=1))
        assert score < 1e-4
        assert shift < 1e-2


def test_another_detector_is_told_apart(scored, suppressed):
    for detector, (_, path, _) in zip(
        (make_detector(), make_detector(RELEASED)), (scored, suppressed), strict=True
    ):
        assert compare(open_session(path), detector, *case(150, 200, 60))[0] > 0.5


def run(path, images):
    return open_session(path).run(None, {"images": images})[0]


@pytest.mark.parametrize("fc", [24, 0])
def test_a_network_in_onnx_runtime(tmp_path, fc):
    network, path = make_network(fc=fc), tmp_path / "network.onnx"
    network.mean_image = torch.rand(3, 224, 224) * 255
    exported = export_network(network, path, ["a", "b"])
    assert exported.inputs == {"images": "uint8 (images, height, width, 3)"}
    assert exported.outputs == (
        {"scores": "float32 (images, 5)"} if fc else {"features": "float32 (images, 800)"}
    )
    assert exported.largest_difference < 1e-5
    for shape in ((1, 50, 300), (4, 224, 180)):
        images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        with torch.inference_mode():
            ours = network(pixels) if fc else network.pool(network.maps(pixels, "conv5"))
        np.testing.assert_allclose(run(path, images), ours.numpy(), rtol=1e-4, atol=1e-4)


def test_a_plain_net_takes_crops(tmp_path):
    exported = export_network(make_network(levels=None), tmp_path / "plain.onnx")
    assert exported.inputs == {"images": "uint8 (images, 224, 224, 3)"}


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1)
    with pytest.raises(SppnetError, match=r"plain.onnx: not written: ONNX Runtime and the toolkit differ by"):
        export_network(make_network(levels=None), tmp_path / "plain.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_package_that_is_missing(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        DataError, match=rf"not installed \({package}\).*pip install onnx onnxruntime onnxscript"
    ):
        export_network(make_network(), tmp_path / "network.onnx")


@pytest.mark.data
@pytest.mark.skipif("SPPNET_TEST_SHARED" not in os.environ, reason="needs real images")
@pytest.mark.slow
@pytest.mark.parametrize("nms", [False, True])
def test_ten_real_images(tmp_path, nms):
    """squeezenet1_1 on VOC 2007 at the released scales up to 688, with SVMs and regressors of random directions."""
    shared = Path(os.environ["SPPNET_TEST_SHARED"])
    dataset = load_voc(shared / "data" / "VOCdevkit", "test")
    network = SPPNet(NetworkSpec("squeezenet1_1"))
    load_trunk_weights(network, str(shared / "weights" / "squeezenet1_1_features.pth"))
    rng, classes = np.random.default_rng(0), len(dataset.class_names)
    extractor = SppWindows(network.eval(), RELEASED, (480, 576, 688))
    image = dataset.image(dataset.ids[0])
    sample = extractor.pool(extractor.prepare(image), np.array([[0, 0, 99, 99]], np.float32))
    scale = 20 / float(sample.norm())
    # One window in fifty or so scores above -1.5, as with SVMs that have learnt.
    svms = Svms(
        rng.normal(0, 0.1, (classes, network.pooled_size)).astype(np.float32),
        np.full(classes, -5.5, np.float32),
        scale,
    )
    deltas = rng.normal(0, 0.01, (classes, network.pooled_size, 4)).astype(np.float32)
    bbox = BoxRegressors(deltas, np.zeros((classes, 4), np.float32), scale)
    detector = Detector(extractor, "pool5", dataset.class_names, svms, bbox=bbox)
    export_detector(detector, tmp_path / "detector.onnx", nms=nms)
    session = open_session(tmp_path / "detector.onnx")
    for image_id in dataset.ids[:10]:
        image = dataset.image(image_id)
        score, shift = compare(session, detector, image, propose(image, "ss-fast", seed=0))
        assert score < 1e-3
        assert shift < 0.05
