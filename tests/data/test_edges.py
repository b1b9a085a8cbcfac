import cv2
import numpy as np
import pytest

from sppnet_cli.data.edges import edge_map


def step(angle, size=81):
    """A dark and a bright half plane; the border goes through the middle, its normal at `angle` from x towards y."""
    y, x = np.indices((size, size)) - size // 2
    bright = np.cos(angle) * x + np.sin(angle) * y > 0.25
    return np.where(bright[:, :, None], (220, 200, 180), (40, 60, 50)).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 135, 170])
def test_a_step_is_a_thin_line_with_its_normal(degrees):
    angle = np.radians(degrees)
    strength, direction = edge_map(step(angle))
    assert strength.shape == direction.shape == (81, 81)
    assert strength.dtype == direction.dtype == np.float32
    inside = (slice(15, -15),) * 2
    y, x = (np.indices((81, 81)) - 40)[(slice(None), *inside)]
    away = np.abs(np.cos(angle) * x + np.sin(angle) * y)
    strong = strength[inside] > 0.1
    assert away[strong].max() < 2
    assert 51 <= strong.sum() <= 3 * 51  # 51 pixels long at least, thin
    off = np.abs(direction[inside][strong] - angle)
    assert np.minimum(off, np.pi - off).max() < 0.15


def test_a_change_of_colour_alone_is_an_edge():
    image = np.full((60, 60, 3), (200, 90, 90), dtype=np.uint8)
    image[:, 30:] = (84, 143, 84)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)[..., 0]
    assert abs(int(grey[0, 0]) - int(grey[0, 59])) < 6
    strength, _ = edge_map(image)
    assert strength[30].argmax() in (29, 30)
    assert strength[30].max() > 0.9


def test_strengths_are_fractions_and_what_stands_alone_counts_more():
    image = np.full((100, 200, 3), 128, dtype=np.uint8)
    image[40:60, 20:40] = 160  # alone
    image[:, 100::4] = 90  # among many of its kind
    strength, direction = edge_map(image)
    assert strength.min() == 0
    assert strength.max() == 1
    assert (direction >= 0).all()
    assert (direction <= np.float32(np.pi)).all()
    assert strength[50, 15:25].max() > strength[20:80, 120:180].max()


def test_a_flat_image_has_no_edges():
    strength, _ = edge_map(np.full((30, 40, 3), 77, dtype=np.uint8))
    assert not strength.any()
