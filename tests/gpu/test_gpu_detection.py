import numpy as np
import pytest
import torch

from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.evaluation.limits import float32_everywhere
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.protocols import PAPER, MappingRules, take

pytestmark = pytest.mark.gpu

NAMES = ("cat", "dog", "emu")


@pytest.fixture(params=["spp", "rcnn"])
def saved(request, make_network, tmp_path):
    """Folder of a detector on fc7 with box regression, saved on the CPU."""
    network, rng = make_network(), np.random.default_rng(0)
    head = network.require_head()
    scales = (160, 224) if request.param == "spp" else ()
    extractor = make_extractor(request.param, network, take(MappingRules, PAPER), scales, "cpu")
    vectors = torch.from_numpy(rng.exponential(size=(80, 800)).astype(np.float32))
    with torch.no_grad():
        fc6 = head.fc6(vectors)
        axes = {"fc6": principal_axes(fc6), "fc7": principal_axes(head.fc7(fc6.relu()))}
    cascade = Svms(rng.normal(size=(3, 800)).astype(np.float32), np.zeros(3, np.float32), 1.0)
    shortcuts = Shortcuts(cascade if request.param == "spp" else None, axes)
    deltas = rng.normal(0, 0.01, (3, 800, 4)).astype(np.float32)
    bbox = BoxRegressors(deltas, rng.normal(0, 0.1, (3, 4)).astype(np.float32), 0.01)
    svms = Svms(rng.normal(size=(3, 24)).astype(np.float32), np.full(3, -1.0, np.float32), 0.1)
    folder = tmp_path / "detector"
    folder.mkdir()
    Detector(extractor, "fc7", NAMES, svms, bbox=bbox, shortcuts=shortcuts).save(folder)
    return folder


def assert_same(found, expected, score, pixels):
    assert expected
    assert [d.label for d in found] == [d.label for d in expected]
    np.testing.assert_allclose([d.score for d in found], [d.score for d in expected], atol=score)
    np.testing.assert_allclose([d.box for d in found], [d.box for d in expected], atol=pixels)


@pytest.mark.parametrize("fast", [None, FastOptions(fc_rank=(8, 8))], ids=["exact", "fast"])
def test_a_detector_of_the_cpu(device, saved, image, boxes, fast):
    expected = Detector.load(saved, fast=fast).set_image(image).detect(boxes)
    with float32_everywhere():
        found = Detector.load(saved, device, fast=fast).set_image(image).detect(boxes)
    assert_same(found, expected, 1e-4, 1e-2)


def test_the_cascade(device, saved, image, boxes):
    if "rcnn" in (saved / "detector.json").read_text():
        pytest.skip("R-CNN has no cascade")
    fast = FastOptions(cascade=0.5)
    expected = Detector.load(saved, fast=fast).set_image(image).score(boxes)
    with float32_everywhere():
        found = Detector.load(saved, device, fast=fast).set_image(image).score(boxes)
    assert np.isneginf(expected).any()
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_features_leave_the_device(device, saved, image, boxes):
    expected = Detector.load(saved).set_image(image).features(boxes)
    found = Detector.load(saved, device).set_image(image).features(boxes)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())


def test_saved_there_it_is_the_same_folder(device, saved, tmp_path):
    (tmp_path / "again").mkdir()
    Detector.load(saved, device).save(tmp_path / "again")
    for path in saved.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_bf16(cuda, saved, image, boxes):
    exact = Detector.load(saved).set_image(image).score(boxes)
    found = Detector.load(saved, cuda, precision="bf16").set_image(image).score(boxes)
    assert 0 < np.linalg.norm(found - exact) < 5e-2 * np.linalg.norm(exact)
