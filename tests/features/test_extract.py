"""Features of whole images."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.data.images import write_image
from sppnet_cli.errors import UsageError
from sppnet_cli.features.extract import extract_features, image_feature, whole_image
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet


def network(levels=(1, 2, 3, 6)):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, levels, 24, 5))
    net.initialise("he")
    return net.eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)


def test_views(image):
    assert whole_image(image, 240, "full").shape == (240, 360, 3)
    crop = whole_image(image, 240, "crop")
    assert crop.shape == (224, 224, 3)
    np.testing.assert_array_equal(crop, whole_image(image, 240, "full")[8:232, 68:292])


def test_the_levels_of_the_pyramid(image):
    net = network()
    with torch.inference_mode():
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        conv5 = net.trunk(net.preprocessing(batch))
    assert torch.equal(image_feature(net, image, "pool5"), F.adaptive_max_pool2d(conv5, 6).flatten())
    every = [F.adaptive_max_pool2d(conv5, n).flatten() for n in (1, 2, 3, 6)]
    assert torch.equal(image_feature(net, image, "SPP pool5"), torch.cat(every))


def test_fc_layers_lead_to_the_networks_scores(image):
    net = network()
    with torch.inference_mode():
        scores = net(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        fc7 = image_feature(net, image, "fc7")
        torch.testing.assert_close(net.head.fc8(fc7), scores)


def test_a_row_per_image(image, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    write_image(paths[0], image)
    write_image(paths[1], image[:, ::-1].copy())
    net = network()
    assert extract_features(net, paths, "fc6", "full", 224, tmp_path) == (2, 24)
    rows = np.load(tmp_path / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(rows[0], image_feature(net, whole_image(image, 224, "full"), "fc6").numpy())


@pytest.mark.parametrize(
    ("levels", "layer", "view", "size", "message"),
    [
        ((1, 2, 3, 6), "pool5", "crop", 200, "a crop of 224 px does not fit"),
        (None, "SPP pool5", "crop", 224, "has no SPP pool5"),
        (None, "pool5", "full", 224, "takes a crop only"),
    ],
)
def test_what_a_network_cannot_give(image, tmp_path, levels, layer, view, size, message):
    with pytest.raises(UsageError, match=message):
        extract_features(network(levels), [tmp_path / "a.png"], layer, view, size, tmp_path)
