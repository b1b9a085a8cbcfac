"""Views of an image, and windows of its maps."""

import numpy as np
import pytest

from sppnet_cli.evaluation.views import (
    map_scales,
    map_windows,
    resize_as_torchvision,
    views_of,
)
from sppnet_cli.network.geometry import resized_size
from sppnet_cli.network.preprocessing import resize_short


@pytest.fixture
def image():
    """Short side 256 already, so that nothing is resampled."""
    return np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)


def test_ten_views_are_of_the_entire_image(image):
    views = views_of(image, "10")
    assert [view.shape for view in views] == [(224, 224, 3)] * 10
    np.testing.assert_array_equal(views[0], image[16:240, 38:262])
    np.testing.assert_array_equal(views[1], image[:224, :224])
    np.testing.assert_array_equal(views[4], image[32:, 76:])
    for view, flipped in zip(views[:5], views[5:], strict=True):
        np.testing.assert_array_equal(view[:, ::-1], flipped)


def test_the_central_ten_are_of_the_middle_square(image):
    views = views_of(image, "10central")
    assert len(views) == 10
    np.testing.assert_array_equal(views[0], image[16:240, 38:262])  # the centre is the same
    np.testing.assert_array_equal(views[1], image[:224, 22:246])  # the square is columns 22 .. 277
    np.testing.assert_array_equal(views[2], image[:224, 54:278])
    np.testing.assert_array_equal(views[3], image[32:, 22:246])
    np.testing.assert_array_equal(views[4], image[32:, 54:278])
    upright = views_of(image.transpose(1, 0, 2), "10central")
    np.testing.assert_array_equal(upright[1], views[1].transpose(1, 0, 2))
    for view, flipped in zip(views[:5], views[5:], strict=True):
        np.testing.assert_array_equal(view[:, ::-1], flipped)


def test_in_a_square_both_tens_are_the_same(image):
    square = image[:, :256]
    for one, other in zip(views_of(square, "10"), views_of(square, "10central"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_single_and_full_views(image):
    (crop,) = views_of(image, "1crop")
    np.testing.assert_array_equal(crop, image[16:240, 38:262])
    (full,) = views_of(image, "1full")
    np.testing.assert_array_equal(full, image)
    assert sorted(view.shape[1] for view in views_of(image, "8+2full")) == [224] * 8 + [300] * 2


def test_the_short_side_becomes_what_is_asked():
    image = np.zeros((100, 150, 3), np.uint8)
    assert resize_short(image, 224).shape == (224, 336, 3)
    assert resize_short(image.transpose(1, 0, 2), 560).shape == (840, 560, 3)


def test_resizing_as_torchvision_by_hand():
    # Halved: the triangle weighs four pixels by 1, 3, 3, 1; ours takes the mean of the middle two.
    row = np.array([0, 0, 0, 160, 0, 0, 0, 0, 0], np.uint8)
    image = np.broadcast_to(row[None, :8, None], (8, 8, 3)).copy()
    assert resize_short(image, 4)[0, :, 0].tolist() == [0, 80, 0, 0]
    assert resize_as_torchvision(image, 4)[0, :, 0].tolist() == [0, 60, 20, 0]
    # 9 pixels become 4.5: rounded up by us, down by torchvision.
    image = np.broadcast_to(row[None, :, None], (8, 9, 3)).copy()
    assert resize_short(image, 4).shape == (4, 5, 3)
    assert resize_as_torchvision(image, 4).shape == (4, 4, 3)
    assert views_of(np.zeros((512, 513, 3), np.uint8), "1full", resize_as_torchvision)[0].shape[1] == 256


def test_ten_windows_of_the_maps_lie_where_the_ten_crops_do(image):
    windows = map_windows((256, 300), "maps:10")
    crops = [image[y1 : y2 + 1, x1 : x2 + 1] for x1, y1, x2, y2 in windows]
    for crop, view in zip(crops, views_of(image, "10"), strict=False):
        np.testing.assert_array_equal(crop, view)


def test_nine_windows_by_hand():
    corners = map_windows((300, 360), "maps:96")[:, :2].tolist()
    assert corners == [[x, y] for y in (0, 38, 76) for x in (0, 68, 136)]
    assert (map_windows((300, 360), "maps:96")[:, 2:] - corners == 223).all()


@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((224, 300), [[0, 0], [38, 0], [76, 0]]),
        ((300, 224), [[0, 0], [0, 38], [0, 76]]),
        ((224, 224), [[0, 0], [0, 0], [0, 0]]),  # all of them are the image
    ],
)
def test_at_224_there_are_the_positions_along_the_long_side(size, corners):
    assert map_windows(size, "maps:96")[:, :2].tolist() == corners


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (400, 400), (256, 256), (90, 1000)])
@pytest.mark.parametrize(("views", "count"), [("maps:10", 10), ("maps:96", 96), ("maps:96+2full", 96)])
def test_number_of_windows(size, views, count):
    scales = map_scales(views)
    assert 2 * sum(len(map_windows(resized_size(size, scale), views)) for scale in scales) == count
    for scale in scales:
        height, width = resized_size(size, scale)
        windows = map_windows((height, width), views)
        assert windows.min() >= 0
        assert windows[:, 2].max() == width - 1
        assert windows[:, 3].max() == height - 1
