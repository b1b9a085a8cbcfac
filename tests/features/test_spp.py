import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.errors import UsageError
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.kernels.pyramid import SPP4, SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import ALL_SCALES, PAPER, RELEASED

SCALES = (200, 300, 412)
SIZE = (120, 161)


def network(levels=SPP6):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, levels))
    net.initialise("he")
    return net


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def boxes():
    rng = np.random.default_rng(1)
    x, y = np.sort(rng.integers(0, SIZE[1], (80, 2))), np.sort(rng.integers(0, SIZE[0], (80, 2)))
    found = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
    found[0] = 0, 0, SIZE[1] - 1, SIZE[0] - 1
    found[1] = 7, 9, 7, 9
    return found


def conv5_of(net, image, scale):
    """The map of an image whose short side becomes `scale`."""
    side = [-(-length * scale // min(SIZE)) for length in SIZE]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, side, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return net.trunk(resized.flip(1) - 128)


def by_brute_force(net, conv5, box, scale, protocol):
    """One window from the definition: cells by looking at all centres, then adaptive pooling."""
    slack = 0 if protocol is PAPER else 1.5
    ranges = []
    for axis in (1, 0):  # rows, columns
        low = box[axis] * (scale - 1) / (min(SIZE) - 1) - slack
        high = box[axis + 2] * (scale - 1) / (min(SIZE) - 1) + slack
        first = min(k for k in range(-9, 99) if 16 * k + 20 > low)
        last = max(k for k in range(-9, 99) if 16 * k + 20 < high)
        if first > last:
            first = last = (first + last) // 2
        end = conv5.shape[3 - axis] - 1
        ranges.append(slice(min(max(first, 0), end), min(max(last, 0), end) + 1))
    window = conv5[:, :, ranges[0], ranges[1]]
    return torch.cat([F.adaptive_max_pool2d(window, n).flatten() for n in net.pool.levels])


def chosen_scale(box, protocol):
    """Index of the scale, from SPEC section 0."""
    x1, y1, x2, y2 = map(float, box)
    if protocol is PAPER:
        sides = [((x2 - x1) * (s - 1) / 119 + 1, (y2 - y1) * (s - 1) / 119 + 1) for s in SCALES]
        return int(np.argmin([abs(w * h - 224 * 224) for w, h in sides]))
    wanted = int(13 * 16 * 120 / np.sqrt((x2 - x1 + 1) * (y2 - y1 + 1)) + 0.5)
    return int(np.argmin([abs(s - wanted) for s in SCALES]))


@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=["paper", "released"])
def test_each_window_is_pooled_from_the_map_of_its_scale(image, boxes, protocol):
    net = network()
    windows = SppWindows(net, protocol, SCALES)
    pooled = windows.pool(windows.prepare(image), boxes)
    assert pooled.shape == (80, 16 * 50)
    choices = [chosen_scale(box, protocol) for box in boxes]
    assert set(choices) == {0, 1, 2}
    maps = [conv5_of(net, image, scale) for scale in SCALES]
    expected = [
        by_brute_force(net, maps[choice], box, SCALES[choice], protocol)
        for box, choice in zip(boxes, choices, strict=True)
    ]
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_scales_that_are_given(image, boxes):
    windows = SppWindows(network(), RELEASED, SCALES)
    prepared = windows.prepare(image)
    given = np.arange(len(boxes)) % len(SCALES)
    pooled = windows.pool(prepared, boxes, given)
    for index, (scale, maps) in enumerate(zip(SCALES, prepared.maps, strict=True)):
        one = SppWindows(windows.network, RELEASED, (scale,)).pool(type(prepared)(SIZE, (maps,)), boxes)
        assert torch.equal(pooled[given == index], one[given == index])


def test_all_scales_give_the_maxima_of_every_channel_and_bin(image, boxes):
    net = network()
    windows = SppWindows(net, ALL_SCALES, SCALES)
    prepared = windows.prepare(image)
    pooled = windows.pool(prepared, boxes)
    singles = [SppWindows(net, PAPER, (scale,)) for scale in SCALES]
    first, second, third = (single.pool(single.prepare(image), boxes) for single in singles)
    assert torch.equal(pooled, torch.maximum(torch.maximum(first, second), third))
    assert all((pooled > single).any() for single in (first, second, third))
    maps = [conv5_of(net, image, scale) for scale in SCALES]
    for box, vector in zip(boxes[:20], pooled, strict=False):
        parts = [
            by_brute_force(net, *of_scale, PAPER) for of_scale in zip(maps, [box] * 3, SCALES, strict=True)
        ]
        torch.testing.assert_close(vector, torch.stack(parts).amax(dim=0), rtol=1e-4, atol=1e-4)


def test_with_all_scales_those_that_are_given_do_not_apply(image, boxes):
    windows = SppWindows(network(), ALL_SCALES, SCALES)
    prepared = windows.prepare(image)
    given = np.zeros(len(boxes), np.int64)
    assert torch.equal(windows.pool(prepared, boxes, given), windows.pool(prepared, boxes))


def test_all_of_one_scale_is_the_papers_rule(image, boxes):
    net = network()
    every, chosen = (SppWindows(net, protocol, (300,)) for protocol in (ALL_SCALES, PAPER))
    assert torch.equal(every.pool(every.prepare(image), boxes), chosen.pool(chosen.prepare(image), boxes))


def test_the_whole_image_is_what_the_network_pools(image):
    net = network(SPP4).eval()
    windows = SppWindows(net, PAPER, (224,))
    prepared = windows.prepare(image)
    assert prepared.size == SIZE
    assert prepared.maps[0].shape == (13, 17, 16)  # 224 x 301: 149, 74, 35, 17
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, (224, 301), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        expected = net.pool(net.trunk(net.preprocessing(resized)))
    # A box so large that it takes every cell.
    whole = windows.pool(prepared, np.array([[-50.0, -50, 250, 250]]))
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("protocol", [PAPER, ALL_SCALES], ids=["paper", "all-scales"])
def test_no_windows(image, protocol):
    windows = SppWindows(network(), protocol, SCALES)
    none = np.empty((0, 4), np.float32)
    assert windows.pool(windows.prepare(image), none).shape == (0, 800)


def test_the_plain_net_cannot_pool_windows():
    with pytest.raises(UsageError, match="no pyramid"):
        SppWindows(network(None), PAPER, SCALES)


@pytest.mark.parametrize("protocol", [PAPER, ALL_SCALES], ids=["paper", "all-scales"])
def test_bf16_is_close_to_fp32(image, boxes, protocol, bf16_anywhere):
    net = network()
    exact = SppWindows(net, protocol, SCALES)
    expected = exact.pool(exact.prepare(image), boxes)
    windows = SppWindows(net, protocol, SCALES, precision="bf16")
    prepared = windows.prepare(image)
    assert {conv5.dtype for conv5 in prepared.maps} == {torch.bfloat16}
    found = windows.pool(prepared, boxes)
    assert found.dtype == torch.bfloat16
    assert 0 < (found.float() - expected).norm() < 2e-2 * expected.norm()
    # Given the maps, nothing is rounded any more.
    widened = type(prepared)(SIZE, tuple(conv5.float() for conv5 in prepared.maps))
    assert torch.equal(found.float(), exact.pool(widened, boxes))
    assert {p.dtype for p in net.parameters()} == {torch.float32}
