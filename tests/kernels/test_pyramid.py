import itertools
import math

import pytest
import torch

from sppnet_cli.kernels.pyramid import SPP4, SPP6, SpatialPyramidPooling, bin_count, bin_edges

EXTENTS = range(1, 41)


@pytest.mark.parametrize("bins", [1, 2, 3, 4, 6])
def test_edges_are_floor_and_ceil(bins):
    for extent in EXTENTS:
        edges = bin_edges(extent, bins)
        assert edges == [
            (math.floor(i * extent / bins), math.ceil((i + 1) * extent / bins)) for i in range(bins)
        ]
        assert edges[0][0] == 0
        assert edges[-1][1] == extent
        assert all(first < last for first, last in edges)
        assert all(after[0] <= before[1] for before, after in itertools.pairwise(edges))


@pytest.mark.parametrize(("coarse", "fine"), [(1, 2), (1, 3), (1, 4), (1, 6), (2, 4), (2, 6), (3, 6)])
def test_coarse_bins_are_unions_of_fine_ones(coarse, fine):
    side = fine // coarse
    for extent in EXTENTS:
        parts = bin_edges(extent, fine)
        for index, (first, last) in enumerate(bin_edges(extent, coarse)):
            inside = parts[index * side : (index + 1) * side]
            assert {cell for a, b in inside for cell in range(a, b)} == set(range(first, last))


def test_thirds_are_no_unions_of_quarters():
    assert bin_edges(12, 3)[0] == (0, 4)
    assert bin_edges(12, 4)[:2] == [(0, 3), (3, 6)]


@pytest.mark.parametrize("bins", [1, 2, 3, 4, 6])
def test_at_13_cells_they_are_the_papers_sliding_windows(bins):
    window, stride = math.ceil(13 / bins), math.floor(13 / bins)
    sliding = [(i * stride, i * stride + window) for i in range((13 - window) // stride + 1)]
    assert bin_edges(13, bins) == sliding


def test_at_10_cells_the_sliding_windows_of_6_bins_would_be_9():
    assert (10 - math.ceil(10 / 6)) // math.floor(10 / 6) + 1 == 9
    assert bin_edges(10, 6) == [(0, 2), (1, 4), (3, 5), (5, 7), (6, 9), (8, 10)]


def test_bin_counts():
    assert bin_count(SPP6) == 50
    assert bin_count(SPP4) == 30


def test_layout_by_hand():
    # Two channels of 2 x 3 cells; levels given in falling order come out rising.
    maps = torch.tensor([[[[1.0, 5, 3], [4, 2, 6]], [[-1, -5, -3], [-4, -2, -6]]]])
    pooled = SpatialPyramidPooling((2, 1))(maps)
    # 1 bin: the two maxima.  2 bins of 3 columns: [0, 2) and [1, 3).
    assert pooled.tolist() == [[6, -1, 5, 5, 4, 6, -1, -3, -2, -2]]


@pytest.mark.parametrize("levels", [SPP6, SPP4])
@pytest.mark.parametrize("size", [(13, 13), (10, 10), (29, 44), (3, 2), (1, 1)])
def test_against_loops(levels, size):
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = [
        [
            maps[image, channel, top:bottom, left:right].max().item()
            for n in levels
            for channel in range(3)
            for top, bottom in bin_edges(size[0], n)
            for left, right in bin_edges(size[1], n)
        ]
        for image in range(2)
    ]
    assert SpatialPyramidPooling(levels)(maps).tolist() == expected
