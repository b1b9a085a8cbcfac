from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.features.responses import FilterResponses
from sppnet_cli.network.receptive import Geometry
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet


class OnMaps(SimpleNamespace):
    """A network of any maps."""

    def to(self, device):
        return self

    def eval(self):
        return self


def with_maps(maps):
    return OnMaps(geometry=Geometry(16, 20, 139), maps=lambda images, layer: torch.tensor(maps)[None])


def peaks(height, width, *places):
    """Maps with one response each, at row and column."""
    maps = np.zeros((len(places), height, width), np.float32)
    for k, (row, column) in enumerate(places):
        maps[k, row, column] = k + 1.5
    return maps


def test_strongest_cells_and_their_receptive_fields():
    maps = peaks(13, 13, (5, 7), (0, 12))
    found = FilterResponses(with_maps(maps), 224)(np.zeros((224, 224, 3), np.uint8))
    np.testing.assert_array_equal(found.maps, maps)
    assert found.strongest.tolist() == [1.5, 2.5]
    assert found.centres.tolist() == [[132, 100], [212, 20]]
    # 69 pixels to each side of the centre, cut at the edges.
    assert found.fields.tolist() == [[63, 31, 201, 169], [143, 0, 223, 89]]
    assert found.extent == (12, 220, 220, 12)


def test_places_are_those_of_the_original_image():
    found = FilterResponses(with_maps(peaks(13, 18, (5, 7))), 224)(np.zeros((448, 640, 3), np.uint8))
    scale = 223 / 447  # as boxes are scaled
    np.testing.assert_allclose(found.centres, [[132 / scale, 100 / scale]])
    np.testing.assert_allclose(found.fields, [[63 / scale, 31 / scale, 201 / scale, 169 / scale]])
    np.testing.assert_allclose(found.extent, [12 / scale, 300 / scale, 220 / scale, 12 / scale])


def test_the_first_of_equal_responses():
    found = FilterResponses(with_maps(np.ones((1, 3, 4), np.float32)), 224)(np.zeros((224, 224, 3), np.uint8))
    assert found.centres.tolist() == [[20, 20]]


@pytest.mark.parametrize("place", [(5, 9), (40, 60), (78, 118), (0, 0), (62, 33)])
def test_the_receptive_field_holds_what_was_responded_to(place):
    def maps(images, layer):
        return F.avg_pool2d(F.pad(images.float(), (7,) * 4), 15, 4)  # centres 0, 4, ..

    image = np.zeros((80, 120, 3), np.uint8)
    image[place] = 255
    network = OnMaps(geometry=Geometry(4, 0, 15), maps=maps)
    for size in (80, 160, 64):
        found = FilterResponses(network, size)(image)
        x1, y1, x2, y2 = found.fields[0]
        assert y1 - 1 <= place[0] <= y2 + 1
        assert x1 - 1 <= place[1] <= x2 + 1
        assert (x2 - x1 + 1) * size / 80 <= 17
        # The cell lies over the image where its centre is.
        height, width = found.maps.shape[1:]
        left, right, bottom, top = found.extent
        row, column = np.unravel_index(found.maps[0].argmax(), (height, width))
        middle = [left + (column + 0.5) * (right - left) / width, top + (row + 0.5) * (bottom - top) / height]
        np.testing.assert_allclose(found.centres[0], middle)


@pytest.mark.parametrize("levels", [(1, 2, 3, 6), None])
def test_of_a_network(levels):
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, levels))
    network.initialise("he")
    image = np.random.default_rng(0).integers(0, 256, (180, 250, 3), dtype=np.uint8)
    found = FilterResponses(network, 180)(image)
    with torch.inference_mode():
        expected = network.eval().maps(torch.from_numpy(image).permute(2, 0, 1)[None], "conv5")[0].numpy()
    np.testing.assert_array_equal(found.maps, expected)
    assert found.maps.shape[:2] == (16, 10)
    assert found.strongest.max() > 0
