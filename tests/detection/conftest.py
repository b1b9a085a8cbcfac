import numpy as np
import pytest
import torch

from sppnet_cli.detection.detector import Detector
from sppnet_cli.features.methods import make_extractor
from sppnet_cli.learning.bbox import BoxRegressors
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.network.precision import DTYPES
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, MappingRules, take


@pytest.fixture
def whole():
    """Makes detectors on a narrow ZF-5 with random weights, at two small scales, of cats, dogs and emus."""
    return _whole


@pytest.fixture
def folder(tmp_path):
    """Folder of a detector that has every part."""
    _whole("fc7", tuned=True, regressed=True).save(tmp_path)
    return tmp_path


@pytest.fixture
def bf16_anywhere(monkeypatch):
    """Lets networks compute in bf16 on machines that are slow at it."""
    monkeypatch.setattr("sppnet_cli.features.method.require", lambda precision, _: DTYPES[precision])


def _whole(layer="pool5", method="spp", tuned=False, regressed=False, protocol=PAPER):
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
    extractor = make_extractor(method, network, take(MappingRules, protocol), scales, "cpu")
    shortcuts = None if layer == "pool5" else _shortcuts(head or network.head, layer, method, rng)
    names = ("cat", "dog", "emu")
    return Detector(
        extractor, layer, names, svms, head=head, bbox=bbox, shortcuts=shortcuts, protocol=protocol.name
    )


def _shortcuts(head, layer, method, rng):
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
