import copy

import numpy as np
import pytest
import torch

from sppnet_cli.data.images import write_image
from sppnet_cli.evaluation.limits import float32_everywhere
from sppnet_cli.features.extract import extract_features
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.store import read_features
from sppnet_cli.protocols import PAPER

pytestmark = pytest.mark.gpu

SCALES = (160, 224)
LAYERS = ("conv5", "pool5", "SPP pool5", "fc6", "fc7")


def off(found, expected):
    """How far apart, as a part of the expected vector's length."""
    return float((found.cpu().float() - expected).norm() / expected.norm())


def extractors(method, network, device, precision="fp32"):
    """One on the CPU and one on the device."""
    kind = SppWindows if method == "spp" else RcnnWindows
    return kind(copy.deepcopy(network), PAPER, SCALES), kind(network, PAPER, SCALES, device, precision)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("layer", ["pool5", "fc6", "fc7"])
def test_features_of_windows(device, make_network, image, boxes, method, layer):
    network = make_network()
    here, there = extractors(method, network, device)
    expected = Layer(layer, here.network.head)(here.pool(here.prepare(image), boxes))
    with float32_everywhere():
        found = Layer(layer, network.head)(there.pool(there.prepare(image), boxes))
    assert found.device.type == device
    assert off(found, expected) < 1e-5
    # As sppnet uses it: convolutions in TF32 where the GPU has it.
    assert off(Layer(layer, network.head)(there.pool(there.prepare(image), boxes)), expected) < 1e-2


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_features_in_bf16(cuda, make_network, image, boxes, method):
    here, there = extractors(method, make_network(), cuda, "bf16")
    expected = Layer("fc7", here.network.head)(here.pool(here.prepare(image), boxes))
    pooled = there.pool(there.prepare(image), boxes)
    assert pooled.dtype == torch.bfloat16
    assert 0 < off(Layer("fc7", there.network.head)(pooled), expected) < 3e-2


def test_maps_at_the_largest_scale(device, make_network, image):
    here, there = (
        SppWindows(network, PAPER, (1200,), where)
        for network, where in ((make_network(fc=0), "cpu"), (make_network(fc=0), device))
    )
    expected, found = here.prepare(image).maps[0], there.prepare(image).maps[0]
    assert found.shape == (74, 99, 16)
    assert off(found, expected) < 1e-2


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_no_windows_at_all(device, make_network, image, boxes, method):
    _, there = extractors(method, make_network(), device)
    vectors = there.pool_distinct(there.prepare(image), boxes[:0]).vectors
    assert vectors.shape == (0, 800)
    assert vectors.device.type == device


@pytest.mark.parametrize("method", ["spp", "rcnn"])
def test_features_lie_there_also_from_the_cache(device, make_source, method):
    first = make_source(device, method, cache=method, gigabytes=1.0).pooled(0)
    again = make_source(device, method, cache=method, gigabytes=1.0)
    assert not again.wants_image(0)
    assert again.pooled(0).device.type == first.device.type == device
    assert torch.equal(again.pooled(0).cpu(), first.cpu())
    rows = np.array([3, 0, 7])
    assert torch.equal(again.pooled(0, rows, flip=False).cpu(), first.cpu()[rows])


def test_features_of_whole_images(device, make_network, image, tmp_path):
    for k in range(3):
        write_image(tmp_path / f"{k}.png", np.roll(image, 16 * k, axis=1))
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for where in ("cpu", device):
        (tmp_path / where).mkdir()
        extract_features(make_network(), paths, LAYERS, "warp", 224, tmp_path / where, device=where)
    for layer in LAYERS:
        found, expected = (
            torch.from_numpy(np.array(read_features(tmp_path / where, layer), np.float32))
            for where in (device, "cpu")
        )
        assert off(found, expected) < 1e-2, layer
