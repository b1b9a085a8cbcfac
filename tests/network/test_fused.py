"""The fused layers against the layers themselves, one after the other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sppnet_cli.kernels.lrn import WithinChannelLRN, within_channel_lrn
from sppnet_cli.kernels.lrn_pool import pool_rows
from sppnet_cli.network import fused as module
from sppnet_cli.network.backbones import build_trunk, conv4_part
from sppnet_cli.network.fused import fused
from sppnet_cli.network.journal_nets import convnet5_trunk
from sppnet_cli.network.zf5 import initialise, zf5_trunk
from sppnet_cli.network.zf_frcnn import zf_frcnn_trunk

POOLS = {
    "zf5": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "zf_frcnn": nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    "convnet5": nn.MaxPool2d(3, stride=2),
}
SHAPES = [
    (1, 6, 1, 1), (2, 6, 2, 3), (3, 32, 3, 2), (2, 6, 3, 3), (1, 97, 4, 5), (2, 1, 9, 8), (3, 17, 12, 17),
    (1, 97, 5, 151), (1, 2100, 4, 7),  # these two take several tiles
]  # fmt: skip
SMALLEST = {"zf5": 2, "zf_frcnn": 1, "convnet5": 3}  # of the maps that can be pooled
CASES = [(pool, shape) for pool in POOLS for shape in SHAPES if min(shape[2:]) >= SMALLEST[pool]]


def random_maps(shape, size=200.0, seed=0):
    # 200: at 5e-5 * 200^2 = 2 the squares matter.
    x = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def unchanged(channels, pool=POOLS["zf5"]):
    """A convolution that changes nothing, and the layers after it."""
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.ones_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(inplace=True), WithinChannelLRN(), pool)


def heated(trunk):
    """Weights and biases at which ReLU and LRN have something to do."""
    torch.manual_seed(0)
    initialise(trunk, "he")
    trunk.conv1.weight.data *= 8
    nn.init.uniform_(trunk.conv1.bias, -50, 50)
    return trunk.to(memory_format=torch.channels_last)


def both(layers, x):
    with torch.inference_mode():
        return fused(layers)(x), layers(x)


def assert_alike(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_window_by_hand():
    # All nine cells see the square of 600, so only its own is above zero: 600 * 3^-0.75; -900 counts for nothing.
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1], x[0, 0, 1, 2] = 600, -900
    found, _ = both(unchanged(1), x)
    assert found.shape == (1, 1, 1, 1)
    assert found.item() == pytest.approx(600 / (1 + 5e-5 * 360000 / 9) ** 0.75, rel=1e-6)


@pytest.mark.parametrize(("pool", "shape"), CASES)
def test_the_layers_one_by_one(pool, shape):
    assert_alike(*both(unchanged(shape[1], POOLS[pool]), random_maps(shape)))


@pytest.mark.parametrize(("pool", "shape"), CASES)
def test_bfloat16_is_rounded_at_the_end_alone(pool, shape):
    layers, x = unchanged(shape[1], POOLS[pool]), random_maps(shape).bfloat16()
    exact = POOLS[pool](within_channel_lrn(x.float().relu(), 5e-5)).bfloat16()
    found, _ = both(layers.bfloat16(), x)
    assert found.dtype == torch.bfloat16
    ulps = found.view(torch.int16).int() - exact.view(torch.int16).int()
    assert ulps.abs().max() <= 1
    assert (ulps != 0).float().mean() < 0.01


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e4, 1e8, 1e15])
def test_the_power_from_small_to_large(size):
    x = random_maps((1, 64, 31, 31), size)
    found, _ = both(unchanged(64), x)
    exact = POOLS["zf5"](within_channel_lrn(x.double().relu(), 5e-5))
    torch.testing.assert_close(found.double(), exact, rtol=4e-7, atol=0)


def test_below_zero_there_is_nothing():
    for layers, x in (
        (unchanged(16), -random_maps((1, 16, 9, 9)).abs()),
        (unchanged(16), torch.full((1, 16, 9, 9), -0.0)),
    ):
        found, _ = both(layers, x)
        assert not found.any()
        assert not found.signbit().any()


@pytest.mark.parametrize(("pool", "size"), [("zf5", 1), ("convnet5", 2)])
def test_maps_too_small_for_the_pool_are_refused_as_ever(pool, size):
    x = random_maps((1, 6, size, 8))
    layers = unchanged(6, POOLS[pool])
    for network in (layers, fused(layers)):
        with torch.inference_mode(), pytest.raises(RuntimeError, match="Output size is too small"):
            network(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("place", [(0, 0), (4, 5), (10, 11), (0, 11)])
def test_what_is_not_finite_stays_visible(value, place, dtype):
    x = random_maps((1, 16, 11, 12)).to(dtype)
    x[0, 3, place[0], place[1]] = value
    found, expected = both(unchanged(16).to(dtype), x)
    assert (expected.isfinite() | ~found.isfinite()).all()
    assert not found[0, 3].isfinite().all()
    others = [c for c in range(16) if c != 3]
    torch.testing.assert_close(found[:, others], expected[:, others], rtol=2**-7, atol=0)


@pytest.mark.parametrize("value", [float("nan"), -float("nan")])
def test_nan_reaches_as_far_as_in_the_layers(value):
    x = random_maps((1, 16, 11, 12))
    x[0, 3, 0, 6] = value
    assert_alike(*both(unchanged(16), x))


@pytest.mark.parametrize("make", [zf5_trunk, zf_frcnn_trunk, convnet5_trunk])
@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (2, 3, 181, 250)])
@pytest.mark.parametrize("band", [1, 40_000, 1 << 30])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_trunks_end_to_end(make, shape, band, layout, monkeypatch):
    monkeypatch.setattr(module, "_BAND", band)
    trunk = heated(make(0.0625))
    x = random_maps(shape, 60).contiguous(memory_format=layout)
    found, expected = both(trunk, x)
    assert expected.max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_bands_of_any_convolution(padding, stride, monkeypatch):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, (7, 5), stride=stride, padding=padding)
    layers = nn.Sequential(conv, *unchanged(8, POOLS["zf_frcnn"])[1:]).to(memory_format=torch.channels_last)
    x = random_maps((2, 3, 61, 37))
    whole, expected = both(layers, x)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-4)
    for band in (1, 5000):
        monkeypatch.setattr(module, "_BAND", band)
        torch.testing.assert_close(both(layers, x)[0], expected, rtol=1e-5, atol=1e-4)


def test_the_convolution_is_made_in_bands(monkeypatch):
    monkeypatch.setattr(
        module, "_BAND", 15 * 20 * 8 * 4
    )  # 15 rows, six of the pool's but for what they share
    layers, passes = unchanged(8), []
    layers[0].register_forward_hook(lambda *call: passes.append(call[2].shape[2]))
    both(layers, random_maps((1, 8, 31, 20)))
    assert passes == [14, 15, 8, 31]  # rows 0-13, 11-25, 23-30; then the layers themselves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 6, 40, 30), (7, 6, 5, 5), (2, 97, 9, 150)])
def test_threads_do_not_change_a_bit(shape, dtype, torch_threads):
    layers, x = unchanged(shape[1]).to(dtype), random_maps(shape).to(dtype)
    one, _ = both(layers, x)
    for threads in (2, 5):
        torch_threads(threads)
        assert torch.equal(both(layers, x)[0], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_place_in_memory_does_not_change_a_bit(dtype):
    x = random_maps((1, 13, 9, 11)).to(dtype).permute(0, 2, 3, 1).contiguous()
    found = []
    for shift in range(9):
        maps = torch.cat([torch.zeros(shift, dtype=dtype), x.flatten()])[shift:].view(x.shape)
        out = torch.empty(4 * 5 * 13 + shift, dtype=dtype)[shift:].view(1, 4, 5, 13)
        pool_rows(maps, out, 0, (0, 9), 0, 5e-5)
        found.append(out)
    assert all(torch.equal(out, found[0]) for out in found)
    exact = F.max_pool2d(within_channel_lrn(x.permute(0, 3, 1, 2).float().relu(), 5e-5), 3, 2)
    torch.testing.assert_close(found[0].permute(0, 3, 1, 2).float(), exact, rtol=2**-8, atol=0)


def test_an_empty_batch():
    found, expected = both(unchanged(6), torch.zeros(0, 6, 7, 9))
    assert found.shape == expected.shape == (0, 6, 3, 4)


def test_weights_are_shared():
    trunk = heated(zf5_trunk(0.0625))
    quick, x = fused(trunk), random_maps((1, 3, 64, 80), 60)
    assert {id(p) for p in quick.parameters()} == {id(p) for p in trunk.parameters()}
    assert "conv1.weight" in trunk.state_dict()
    with torch.inference_mode():
        before = quick(x)
        trunk.conv1.weight.mul_(0.5)
        after = quick(x)
        torch.testing.assert_close(after, trunk(x), rtol=1e-5, atol=1e-4)
    assert not torch.allclose(before, after)


def test_layers_that_stay_can_still_be_listened_to():
    trunk = heated(zf5_trunk(0.0625))
    heard = []
    conv4_part(trunk)[-1].register_forward_hook(lambda *call: heard.append(call[2].shape))
    with torch.inference_mode():
        fused(trunk)(torch.zeros(1, 3, 224, 224))
    assert heard == [(1, 24, 13, 13)]


def test_with_gradients_the_layers_run_as_they_are():
    layers = unchanged(6)
    x = random_maps((1, 6, 9, 9))
    found, expected = fused(layers)(x), layers(x)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert layers[0].weight.grad is not None


def test_other_dtypes_and_autocast_run_the_layers_as_they_are():
    x = random_maps((1, 6, 9, 9))
    found, expected = both(unchanged(6).double(), x.double())
    assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = both(unchanged(6), x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_runs_and_what_is_none():
    def names(trunk):
        return [name for name, _ in fused(trunk).named_children()]

    rest = ["conv3", "relu3", "conv4", "relu4", "conv5", "relu5"]
    assert names(zf5_trunk(0.0625)) == ["pool1", "pool2", *rest]
    first = ["conv1", "relu1", "lrn1", "pool2", "conv3", "relu3", "pool3"]
    assert names(convnet5_trunk(0.0625)) == [*first, *rest[2:]]
    for arch in ("overfeat5", "squeezenet1_1"):
        trunk, _ = build_trunk(arch)
        assert fused(trunk) is trunk


@pytest.mark.parametrize(
    "change",
    [
        lambda conv, pool: setattr(conv, "padding", "same"),
        lambda conv, pool: setattr(conv, "padding_mode", "reflect"),
        lambda conv, pool: setattr(conv, "dilation", (2, 2)),
        lambda conv, pool: setattr(pool, "kernel_size", 2),
        lambda conv, pool: setattr(pool, "stride", 3),
        lambda conv, pool: setattr(pool, "dilation", 2),
        lambda conv, pool: setattr(pool, "padding", (1, 0)),
    ],
)
def test_what_the_kernel_does_not_know_stays(change):
    layers = unchanged(6, nn.MaxPool2d(3, stride=2))
    change(layers[0], layers[3])
    assert fused(layers) is layers
