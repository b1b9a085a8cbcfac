"""Features of whole images."""

import time

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.data.images import write_image
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features import extract
from sppnet_cli.features.extract import ImageFeatures, extract_features, whole_image
from sppnet_cli.features.store import read_features
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

LAYERS = ("conv4", "conv5", "pool5", "SPP pool5", "fc6", "fc7")


def network(levels=(1, 2, 3, 6), fc=24):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, levels, fc, 5))
    net.initialise("he")
    return net.eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)


@pytest.fixture
def paths(image, tmp_path):
    """Five different images."""
    found = [tmp_path / f"{k}.png" for k in range(5)]
    for k, path in enumerate(found):
        write_image(path, np.roll(image, 20 * k, axis=1))
    return found


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def trunk_passes(net):
    """A list that grows by one with each image that goes through the first layer."""
    passes = []
    net.trunk[0].register_forward_hook(lambda *call: passes.append(call[1][0].shape))
    return passes


def test_views(image):
    assert whole_image(image, 240, "full").shape == (240, 360, 3)
    crop = whole_image(image, 240, "crop")
    assert crop.shape == (224, 224, 3)
    np.testing.assert_array_equal(crop, whole_image(image, 240, "full")[8:232, 68:292])
    warped = whole_image(image, 240, "warp")
    np.testing.assert_array_equal(warped, cv2.resize(image, (240, 240), interpolation=cv2.INTER_LINEAR))


def test_every_layer_from_one_pass(image):
    net = network()
    crop = whole_image(image, 224, "crop")
    batch = torch.from_numpy(crop).permute(2, 0, 1)[None]
    with torch.inference_mode():
        conv4, conv5 = net.maps(batch, "conv4"), net.maps(batch, "conv5")
        levels = [F.adaptive_max_pool2d(conv5, n).flatten(1) for n in (1, 2, 3, 6)]
        fc6 = net.head.features(torch.cat(levels, 1), "fc6")
        fc7 = net.head.features(torch.cat(levels, 1), "fc7")
        scores = net(batch)
    passes = trunk_passes(net)
    found = ImageFeatures(net, LAYERS, "crop", 224)(crop)
    assert len(passes) == 1
    assert tuple(found) == LAYERS
    expected = (conv4, conv5, levels[-1], torch.cat(levels, 1), fc6, fc7)
    for layer, value in zip(LAYERS, expected, strict=True):
        np.testing.assert_array_equal(found[layer], value.flatten(), err_msg=layer)
    # c, row, column
    assert found["conv5"][13 * 13 + 13 + 1] == conv5[0, 1, 1, 1]
    torch.testing.assert_close(net.head.fc8(torch.from_numpy(found["fc7"])), scores[0])


def test_the_order_of_layers_is_the_callers(image):
    found = ImageFeatures(network(), ("fc7", "pool5"), "full", 224)(image)
    assert {layer: len(value) for layer, value in found.items()} == {"fc7": 24, "pool5": 16 * 36}
    assert list(found) == ["fc7", "pool5"]


def test_dimensions():
    features = ImageFeatures(network(), LAYERS, "warp", 180)
    assert features.dimensions() == {
        "conv4": 24 * 10 * 10,
        "conv5": 16 * 10 * 10,
        "pool5": 16 * 36,
        "SPP pool5": 16 * 50,
        "fc6": 24,
        "fc7": 24,
    }


def test_the_plain_nets_pool5_is_all_of_its_pool(image):
    net = network(levels=None)
    found = ImageFeatures(net, ("conv4", "pool5", "fc7"), "crop", 224)(whole_image(image, 224, "crop"))
    with torch.inference_mode():
        batch = torch.from_numpy(whole_image(image, 224, "crop")).permute(2, 0, 1)[None]
        conv5 = net.maps(batch, "conv5")
    expected = F.max_pool2d(conv5, 3, 2, ceil_mode=True).flatten()
    np.testing.assert_array_equal(found["pool5"], expected)
    assert ImageFeatures(net, ("pool5",), "warp", 224).dimensions() == {"pool5": 576}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_row_per_image(paths, out, workers):
    net = network()
    extract_features(net, paths, ("SPP pool5", "fc6"), "full", 224, out, workers=workers)
    features = ImageFeatures(net, ("SPP pool5", "fc6"), "full", 224)
    for row, path in enumerate(paths):
        for layer, value in features(features.read(path)).items():
            np.testing.assert_array_equal(read_features(out, layer)[row], value)
    assert sorted(path.name for path in out.iterdir()) == ["SPP-pool5.npy", "fc6.npy"]


def test_reading_is_ahead_but_not_far(paths, monkeypatch, tmp_path, out):
    monkeypatch.setattr(extract, "_AHEAD", 2)
    read, ahead = [], []
    original = ImageFeatures.read
    monkeypatch.setattr(ImageFeatures, "read", lambda self, path: read.append(path) or original(self, path))
    net = network()

    def slow(*_):
        time.sleep(0.02)
        ahead.append(len(read) - len(ahead))

    net.trunk[0].register_forward_hook(slow)
    extract_features(net, paths * 6, ("pool5",), "full", 64, out, workers=1)
    assert 2 <= max(ahead) <= 4


def test_an_extraction_that_was_cut_off_goes_on(paths, out, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    extract_features(network(), paths, ("fc6", "fc7"), "crop", 224, whole)

    good = paths[3].read_bytes()
    paths[3].write_bytes(b"")
    with pytest.raises(DataError, match=r"3\.png: is empty"):
        extract_features(network(), paths, ("fc6", "fc7"), "crop", 224, out)
    paths[3].write_bytes(good)
    net = network()
    passes = trunk_passes(net)
    extract_features(net, paths, ("fc6", "fc7"), "crop", 224, out)
    assert len(passes) == 1 + 2  # for the dimensions, and the two images that were missing
    for name in ("fc6.npy", "fc7.npy"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("levels", "fc", "layers", "view", "size", "message"),
    [
        ((1, 6), 24, ("pool5",), "crop", 200, "a crop of 224 px does not fit"),
        ((1, 6), 24, ("pool5", "conv4"), "full", 224, "conv4 has another length for each shape of image"),
        ((1, 6), 24, ("fc9",), "full", 224, "unknown layer 'fc9'"),
        ((1, 6), 24, (), "full", 224, "unknown layer"),
        ((1, 6), 24, ("fc6", "fc6"), "full", 224, "name each once"),
        ((1, 6), 24, ("fc6",), "half", 224, "unknown view 'half'"),
        ((1, 6), 0, ("fc7",), "full", 224, "has no fc layers"),
        (None, 24, ("SPP pool5",), "crop", 224, "has no SPP pool5"),
        (None, 24, ("pool5",), "full", 224, "takes 224x224 only"),
        (None, 24, ("pool5",), "warp", 256, "takes 224x224 only"),
    ],
)
def test_what_a_network_cannot_give(levels, fc, layers, view, size, message):
    with pytest.raises(UsageError, match=message):
        ImageFeatures(network(levels, fc), layers, view, size)


def test_no_images(out):
    with pytest.raises(UsageError, match="no images"):
        extract_features(network(), [], ("fc6",), "full", 224, out)
