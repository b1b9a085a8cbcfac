import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.features.rcnn import RcnnWindows, warp_window
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER


def noise(height, width):
    return np.random.default_rng(0).normal(size=(height, width, 3)).astype(np.float32)


def resized(pixels, height, width):
    """Bilinear, half-pixel centres, no antialias."""
    batch = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    out = F.interpolate(batch, (height, width), mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0).numpy()


def box(*corners):
    return np.array(corners, dtype=np.float32)


def test_a_window_whose_context_lies_inside():
    # 192 x 96 px: half sides 96 and 48 grow by 7/6 to 112 and 56 about the centre (196, 148).
    pixels = noise(300, 400)
    crop = warp_window(pixels, box(100, 100, 291, 195))
    np.testing.assert_allclose(crop, resized(pixels[92:205, 84:309], 224, 224), atol=5e-4)


def test_at_the_top_left_corner_zeros_lie_outside():
    # Centre (96, 96), so -16 .. 208 before clipping: 225 px to 224, of which round(16 * 224 / 225) = 16 outside.
    pixels = noise(300, 400)
    crop = warp_window(pixels, box(0, 0, 191, 191))
    assert not crop[:16].any()
    assert not crop[:, :16].any()
    np.testing.assert_allclose(crop[16:, 16:], resized(pixels[:209, :209], 208, 208), atol=5e-4)


def test_at_the_bottom_right_corner_zeros_lie_outside():
    # Centre (304, 204): 192 .. 416 and 92 .. 316; inside 208 of 225 px, round(208 * 224 / 225) = 207.
    pixels = noise(300, 400)
    crop = warp_window(pixels, box(208, 108, 399, 299))
    assert not crop[207:].any()
    assert not crop[:, 207:].any()
    np.testing.assert_allclose(crop[:207, :207], resized(pixels[92:300, 192:400], 207, 207), atol=5e-4)


def test_a_window_of_the_whole_image_has_a_margin_all_around():
    # 96 x 60 px: centre (48, 30); half sides 48 and 30 grow to 56 and 35: -8 .. 104 and -5 .. 65.
    crop = warp_window(np.full((60, 96, 3), 7, np.float32), box(0, 0, 95, 59))
    rows, columns = np.flatnonzero(crop.any(axis=(1, 2))), np.flatnonzero(crop.any(axis=(0, 2)))
    # round(8 * 224 / 113) = 16, 96 * 224 / 113 = 190.3; round(5 * 224 / 71) = 16, 60 * 224 / 71 = 189.3.
    assert (columns[0], len(columns)) == (16, 190)
    assert (rows[0], len(rows)) == (16, 189)
    assert (crop[16:205, 16:206] == 7).all()
    assert crop.sum() == 7 * 190 * 189 * 3


def test_a_constant_image_stays_constant_inside():
    pixels = np.full((80, 90, 3), -3.5, np.float32)
    rng = np.random.default_rng(0)
    for _ in range(200):
        x1, y1 = rng.integers(0, (70, 60))
        x2, y2 = rng.integers((x1 + 19, y1 + 19), (90, 80))
        crop = warp_window(pixels, box(x1, y1, x2, y2))
        assert crop.shape == (224, 224, 3)
        assert crop.dtype == np.float32
        assert set(np.unique(crop)) <= {-3.5, 0}
        inside = crop[:, :, 0] != 0
        # A rectangle, with the window in it but for a pixel or so at its edge, 9 px in the crop at most.
        assert inside.sum() == inside.any(axis=0).sum() * inside.any(axis=1).sum()
        assert inside[32:-32, 32:-32].all()


@pytest.mark.parametrize("corners", [(0, 0, 0, 0), (89, 79, 89, 79), (0, 40, 89, 40), (30, 0, 30, 79)])
def test_windows_of_a_pixel_or_a_line(corners):
    crop = warp_window(np.ones((80, 90, 3), np.float32), box(*corners))
    assert crop.shape == (224, 224, 3)
    assert crop[100, 100].tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def windows():
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    network.initialise("he")
    return RcnnWindows(network, PAPER)


def test_the_image_is_preprocessed_before_it_is_warped(windows):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    prepared = windows.prepare(image)
    assert prepared.size == (50, 70)
    np.testing.assert_array_equal(prepared.pixels, image[:, :, ::-1].astype(np.float32) - 128)


def test_batches_keep_the_order_of_the_windows(windows):
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 100, (70, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, 50, (70, 2))], axis=1).astype(np.float32)
    prepared = windows.prepare(image)
    batches = list(windows.warp(prepared, boxes))
    assert [batch.shape for batch in batches] == [(64, 3, 224, 224), (6, 3, 224, 224)]
    pooled = windows.pool(prepared, boxes)
    assert pooled.shape == (70, 800)
    for index in (0, 63, 64, 69):
        crop = torch.from_numpy(warp_window(prepared.pixels, boxes[index])).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = windows.network.pool(windows.network.trunk(crop))[0]
        torch.testing.assert_close(pooled[index], expected, rtol=1e-4, atol=1e-4)


def test_bf16_is_close_to_fp32(windows, bf16_anywhere):
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    boxes = np.array([[10, 20, 90, 110], [0, 0, 169, 149], [40, 40, 70, 60]], np.float32)
    half = RcnnWindows(windows.network, PAPER, precision="bf16")
    prepared = half.prepare(image)
    expected, found = windows.pool(prepared, boxes), half.pool(prepared, boxes)
    assert found.dtype == torch.bfloat16
    assert 0 < (found.float() - expected).norm() < 2e-2 * expected.norm()
    assert half.pool(prepared, boxes[:0]).dtype == torch.bfloat16
    assert {p.dtype for p in windows.network.parameters()} == {torch.float32}


def test_no_windows(windows):
    prepared = windows.prepare(np.zeros((50, 70, 3), np.uint8))
    assert windows.pool(prepared, np.empty((0, 4), np.float32)).shape == (0, 800)
