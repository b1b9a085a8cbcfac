import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.sppnet import Dropout, Head, NetworkSpec, SPPNet


def narrow(levels, fc=16, classes=5):
    torch.manual_seed(0)
    return SPPNet(NetworkSpec("zf5", 0.0625, levels, fc, classes)).eval()


def image(height, width):
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)


def test_the_plain_net_pools_to_6_by_6():
    network = narrow(None)
    assert network.pool(torch.zeros(2, 16, 13, 13)).shape == (2, 16 * 36)
    assert network.pooled_size == 16 * 36 == network.head.fc6.in_features
    maps = torch.randn(1, 16, 13, 13)
    corner = network.pool(maps)[0, 35]  # channel 0, row 5, column 5
    assert corner == maps[0, 0, 10:13, 10:13].max()
    with torch.inference_mode():
        assert network(image(224, 224)).shape == (1, 5)


@pytest.mark.parametrize(("levels", "bins"), [(SPP6, 50), (SPP4, 30)])
@pytest.mark.parametrize("size", [(224, 224), (180, 180), (200, 331)])
def test_the_pyramid_takes_any_size(levels, bins, size):
    network = narrow(levels)
    assert network.pooled_size == 16 * bins
    with torch.inference_mode():
        assert network(image(*size)).shape == (1, 5)


def test_the_network_is_preprocessing_trunk_pool_and_head():
    network = narrow(SPP6)
    pixels = image(180, 200)
    with torch.inference_mode():
        maps = network.trunk(pixels.float().flip(1) - 128)
        pooled = network.pool(maps)
        fc6 = (pooled @ network.head.fc6.weight.T + network.head.fc6.bias).clamp(min=0)
        fc7 = (fc6 @ network.head.fc7.weight.T + network.head.fc7.bias).clamp(min=0)
        fc8 = fc7 @ network.head.fc8.weight.T + network.head.fc8.bias
        torch.testing.assert_close(network.head.features(pooled, "fc6"), fc6)
        torch.testing.assert_close(network.head.features(pooled, "fc7"), fc7)
        torch.testing.assert_close(network(pixels), fc8)


def test_the_mean_image_is_for_imagenet_alone():
    network, pixels = narrow(SPP6), image(180, 224)
    plain = {layer: network.maps(pixels, layer) for layer in ("conv4", "conv5")}
    assert torch.equal(network.maps(pixels, "conv5", imagenet=True), plain["conv5"])  # it has none yet
    network.mean_image = torch.rand(3, 224, 224) * 255
    x = pixels.float().flip(1) - F.interpolate(network.mean_image[None], (180, 224), mode="bilinear")
    with torch.inference_mode():
        conv5 = network.trunk(x)
        torch.testing.assert_close(network.maps(pixels, "conv5", imagenet=True), conv5)
        torch.testing.assert_close(network(pixels), network.head(network.pool(conv5)))
        for layer, maps in plain.items():
            torch.testing.assert_close(network.maps(pixels, layer), maps)
    assert "mean_image" not in network.state_dict()


@pytest.mark.parametrize(
    ("arch", "takes"),
    [("zf5", True), ("convnet5", True), ("overfeat7", True), ("zf5-frcnn", False), ("squeezenet1_1", False)],
)
def test_networks_that_take_a_mean_image(arch, takes):
    assert SPPNet(NetworkSpec(arch)).takes_mean_image == takes


def test_the_geometry_comes_with_the_network():
    assert narrow(SPP6).geometry == (16, 20, 139)


def test_a_head_by_hand():
    head = Head(2, 2, 1, input_scale=0.5).eval()
    weights = {"fc6": [[1.0, 0], [0, -1]], "fc7": [[1.0, 1], [2, 0]], "fc8": [[1.0, 10]]}
    with torch.no_grad():
        for name, weight in weights.items():
            getattr(head, name).weight.copy_(torch.tensor(weight))
            getattr(head, name).bias.fill_(1)
    pooled = torch.tensor([[4.0, 6.0]])
    # Inputs (2, 3); fc6 (3, -2 -> 0); fc7 (4, 7); fc8 4 + 70 + 1.
    assert head.features(pooled, "fc6").tolist() == [[3, 0]]
    assert head.features(pooled, "fc7").tolist() == [[4, 7]]
    assert head(pooled).tolist() == [[75]]


def test_dropout_is_the_inverted_kind():
    head = Head(1, 4000, 1)
    with torch.no_grad():
        for layer in (head.fc6, head.fc7):
            layer.weight.zero_()
            layer.bias.fill_(1)
        head.fc7.weight.fill_(1)
        head.fc8.weight.zero_()
    torch.manual_seed(0)
    summed = head.features(torch.zeros(1, 1), "fc7")[0, 0].item() - 1
    assert summed % 2 == 0  # of fc6's ones, half are dropped and half doubled
    assert summed == pytest.approx(4000, abs=4 * 63)  # four standard deviations
    head.eval()
    assert head.features(torch.zeros(1, 1), "fc7")[0, 0].item() == 4001


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_doubles_what_it_keeps_and_its_gradient(shape, dtype):
    torch.manual_seed(0)
    x = (1 + torch.rand(shape)).to(dtype).requires_grad_()
    dropped = Dropout(0.5)(x)
    kept = dropped != 0
    assert dropped.dtype == dtype
    assert torch.equal(dropped, torch.where(kept, 2 * x, 0))
    dropped.sum().backward()
    assert torch.equal(x.grad, torch.where(kept, 2.0, 0.0).to(dtype))
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_dropout_draws_each_number_by_itself():
    """Of every bit of a byte, and of two neighbours anywhere, half; four standard deviations are allowed."""
    torch.manual_seed(0)
    kept = Dropout(0.5)(torch.ones(1000, 800)).view(-1, 8) / 2
    assert set(kept.unique().tolist()) == {0, 1}
    assert ((kept.mean(dim=0) - 0.5).abs() < 4 * 0.5 / len(kept) ** 0.5).all()
    flat = kept.view(-1)
    for apart in (1, 2, 8, 800):
        same = (flat[apart:] == flat[:-apart]).float().mean()
        assert (same - 0.5).abs() < 4 * 0.5 / len(flat) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(torch.ones(800_000)), 2 * flat)
    assert not torch.equal(Dropout(0.5)(torch.ones(800_000)), 2 * flat)


def test_a_bare_trunk_has_no_scores():
    network = narrow(SPP6, fc=0, classes=0)
    with pytest.raises(UsageError, match="zf5 has no fc layers"):
        network(image(180, 180))


@pytest.mark.parametrize("levels", [SPP6, None])
def test_maps_of_conv4_and_conv5(levels):
    network = narrow(levels)
    pixels = image(180, 224)
    x = pixels.float().flip(1) - 128
    with torch.inference_mode():
        conv5 = network.maps(pixels, "conv5")
        conv4 = network.maps(pixels, "conv4")
        assert (conv4.shape, conv5.shape) == ((1, 24, 10, 13), (1, 16, 10, 13))
        torch.testing.assert_close(conv5, network.trunk(x))
        after = (network.trunk.conv5(conv4)).clamp(min=0)
        torch.testing.assert_close(after, conv5)
        assert conv4.min() == 0
    assert "_conv4" not in " ".join(network.state_dict())  # shared, not held twice


def test_maps_of_no_other_layer():
    with pytest.raises(UsageError, match="'conv3' is no layer of maps; these are conv4, conv5"):
        narrow(SPP6).maps(image(180, 180), "conv3")


@pytest.mark.parametrize("arch", ["zf5", "squeezenet1_1", "resnet18", "vgg16"])
def test_the_shape_of_a_map_is_that_of_the_trunks_result(arch):
    network = SPPNet(NetworkSpec(arch))
    trunk = copy.deepcopy(network.trunk).to("meta").eval()
    rng = np.random.default_rng(0)
    sizes = [(64, 500), (223, 224), (225, 1200), *rng.integers(64, 1300, (60, 2)).tolist()]
    for height, width in sizes:
        expected = trunk(torch.empty(1, 3, height, width, device="meta")).shape[1:]
        assert network.map_shape((height, width)) == tuple(expected), (height, width)
