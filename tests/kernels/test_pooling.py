import numpy as np
import pytest
import torch
from pooled_windows import by_roi_pool, random_cells, random_maps

from sppnet_cli.kernels.pooling import empty_vectors, pool_into, pool_windows, pooled_by_definition
from sppnet_cli.kernels.pyramid import SPP4, SPP6, SpatialPyramidPooling

LEVELS = [SPP6, SPP4, (1, 2, 4), (5,)]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("size", [(29, 44), (74, 53)])
@pytest.mark.parametrize("channels", [5, 64])  # 32 are worked on at once, and whole cache lines written
def test_bit_for_bit_torchvisions_roi_pool(levels, size, channels):
    maps, cells = random_maps(*size, channels), random_cells(*size, 1000)
    assert torch.equal(pool_windows(maps, cells, levels), by_roi_pool(maps, cells, levels))


@pytest.mark.parametrize("levels", [*LEVELS, (3, 7)])
@pytest.mark.parametrize("relu", [True, False])  # it works on the bits, whose order is another below zero
@pytest.mark.parametrize("channels", [5, 64])
def test_bfloat16_is_that_of_float32(levels, relu, channels):
    maps, cells = random_maps(29, 44, channels), random_cells(29, 44, 1000)
    maps = (maps.relu() if relu else maps - 2).bfloat16()
    pooled = pool_windows(maps, cells, levels)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, by_roi_pool(maps.float(), cells, levels).bfloat16())


@pytest.mark.parametrize("levels", [*LEVELS, (3, 7)])
def test_bit_for_bit_the_definition(levels):
    # roi_pool, which adds up sevenths in float32, takes in a row too many of some extents beyond 44.
    maps, cells = random_maps(74, 53, 5), random_cells(74, 53, 200)
    assert torch.equal(pool_windows(maps, cells, levels), pooled_by_definition(maps, cells, levels))
    assert pooled_by_definition(maps, cells[:0], levels).shape == (0, 5 * sum(n * n for n in levels))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("size", [(13, 13), (10, 10), (42, 63), (1, 1), (2, 17)])
def test_the_full_map_is_spatial_pyramid_pooling(levels, size):
    maps = random_maps(*size, 7)
    full = np.array([[0, 0, size[1] - 1, size[0] - 1]], dtype=np.int32)
    whole_image = SpatialPyramidPooling(levels)(maps.permute(2, 0, 1)[None])
    assert torch.equal(pool_windows(maps, full, levels), whole_image)


def test_by_hand():
    # Channel 0 counts 1, 2, 3 / 4, 5, 6; channel 1 is its negative.
    counting = torch.arange(1.0, 7).view(2, 3)
    maps = torch.stack([counting, -counting], dim=2).contiguous()
    cells = np.array([[1, 0, 2, 1], [0, 1, 0, 1]], dtype=np.int32)
    assert pool_windows(maps, cells, (1, 2)).tolist() == [
        [6, -2, 2, 3, 5, 6, -2, -3, -5, -6],
        [4, -4, 4, 4, 4, 4, -4, -4, -4, -4],
    ]


def test_levels_come_out_rising_however_given():
    maps, cells = random_maps(9, 9, 2), random_cells(9, 9, 20)
    assert torch.equal(pool_windows(maps, cells, (6, 3, 2, 1)), pool_windows(maps, cells, (1, 2, 3, 6)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 32])
def test_into_some_rows(dtype, channels):
    maps, cells = random_maps(20, 30, channels).relu().to(dtype), random_cells(20, 30, 20)
    rows = np.random.default_rng(0).permutation(50)[:20]
    vectors = torch.full((50, 50 * channels), -1.0, dtype=dtype)
    pool_into(vectors, rows, maps, cells)
    assert torch.equal(vectors[rows], pool_windows(maps, cells))
    assert (vectors[np.setdiff1d(np.arange(50), rows)] == -1).all()


def test_memory_is_used_again_once_nobody_holds_it():
    like = torch.empty(0)
    first, second = empty_vectors(300, 1000, like), empty_vectors(300, 1000, like)
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    view = first[3].numpy()
    view[:] = 7
    del first
    third = empty_vectors(300, 1000, like).fill_(1)
    assert third.data_ptr() not in places
    assert (view == 7).all()
    del second
    assert empty_vectors(280, 1000, like).data_ptr() in places
    small = empty_vectors(300, 10, like)  # would keep all of it from use
    assert small.data_ptr() not in places


def test_memory_of_another_size_and_dtype():
    for count, dtype in (
        (1000, torch.float32),
        (1500, torch.bfloat16),
        (4000, torch.float32),
        (0, torch.float32),
    ):
        vectors = empty_vectors(count, 512, torch.empty(0, dtype=dtype)).fill_(count)
        assert vectors.shape == (count, 512)
        assert vectors.dtype == dtype
        assert (vectors == torch.tensor(count, dtype=dtype)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_threads_do_not_change_a_bit(count, torch_threads):
    maps, cells = random_maps(20, 30, 4), random_cells(20, 30, 50)[:count]
    alone = pool_windows(maps, cells)
    torch_threads(3)
    assert torch.equal(pool_windows(maps, cells), alone)


def test_no_windows():
    pooled = pool_windows(random_maps(5, 5, 3), np.empty((0, 4), np.int32))
    assert pooled.shape == (0, 150)
    assert pooled.dtype == torch.float32
