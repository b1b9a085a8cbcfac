import numpy as np
import pytest
import torch
from pooled_windows import by_roi_pool, random_cells, random_maps

from sppnet_cli.kernels.pooling import pool_into, pool_windows, pooled_by_definition
from sppnet_cli.kernels.pyramid import SPP4, SPP6, SpatialPyramidPooling, bin_count

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16]
SIZES = [(1, 1), (13, 10), (29, 44), (74, 53), (74, 150)]  # the last of 1200 x 2400 pixels


def pooled(maps, cells, levels, device):
    found = pool_windows(maps.to(device), cells, levels)
    assert found.device.type == device
    assert found.dtype == maps.dtype
    return found.cpu()


@pytest.mark.parametrize("levels", [SPP6, SPP4, (1, 2, 4)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [5, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bit_for_bit_roi_pool(device, levels, size, channels, dtype):
    maps, cells = random_maps(*size, channels).to(dtype), random_cells(*size, 200)
    assert torch.equal(
        pooled(maps, cells, levels, device), by_roi_pool(maps.float(), cells, levels).to(dtype)
    )


@pytest.mark.parametrize("levels", [(5,), (3, 7), (1, 2, 3, 4, 6, 12)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bit_for_bit_the_definition(device, levels, dtype):
    # roi_pool has other bins of some extents beyond 44 (see test_pooling.py).
    maps, cells = random_maps(74, 53, 7).to(dtype), random_cells(74, 53, 60)
    assert torch.equal(pooled(maps, cells, levels, device), pooled_by_definition(maps, cells, levels))


@pytest.mark.parametrize("count", [1, 2, 33, 20_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_windows(device, count, dtype):
    maps, cells = random_maps(43, 58, 8).to(dtype), random_cells(43, 58, count)
    assert torch.equal(pooled(maps, cells, SPP6, device), pool_windows(maps, cells, SPP6))


def test_as_many_numbers_as_32_bits_do_not_count(cuda):
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of the GPU's memory")
    maps, cells = random_maps(5, 5, 2048).bfloat16(), random_cells(5, 5, 21_000)
    found = pool_windows(maps.to(cuda), cells, SPP6)
    assert found.numel() > 2**31
    assert torch.equal(found[-50:].cpu(), pool_windows(maps, cells[-50:], SPP6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_into_some_rows(device, dtype):
    maps, cells = random_maps(20, 30, 300).to(dtype), random_cells(20, 30, 20)  # two blocks of channels
    rows = np.random.default_rng(0).permutation(50)[:20]
    vectors = torch.full((50, 300 * bin_count(SPP6)), -9.0, dtype=dtype, device=device)
    pool_into(vectors, rows, maps.to(device), cells)
    vectors = vectors.cpu()
    assert torch.equal(vectors[rows], pool_windows(maps, cells))
    assert (vectors[np.setdiff1d(np.arange(50), rows)] == -9).all()


def test_no_windows(device):
    found = pool_windows(random_maps(5, 5, 3).to(device), np.empty((0, 4), np.int32))
    assert found.shape == (0, 150)
    assert found.device.type == device


@pytest.mark.parametrize("size", [(10, 10), (13, 13), (5, 3), (42, 63)])
def test_the_pyramid_of_a_whole_map(device, size):
    maps = torch.randn(2, 7, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(SpatialPyramidPooling()(maps.to(device)).cpu(), SpatialPyramidPooling()(maps))
