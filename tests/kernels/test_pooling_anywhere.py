import numpy as np
import pytest
import torch
from pooled_windows import random_cells, random_maps

from sppnet_cli.kernels.pooling import pool_windows, pooled_by_definition
from sppnet_cli.kernels.pooling_anywhere import pool_anywhere
from sppnet_cli.kernels.pyramid import SPP4, SPP6


@pytest.mark.parametrize("levels", [SPP6, SPP4, (5,), (3, 7)])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (29, 44), (74, 53)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bit_for_bit_the_definition(levels, size, dtype):
    maps, cells = random_maps(*size, 3).to(dtype), random_cells(*size, 60)
    found = pool_anywhere(maps, cells, levels)
    assert found.dtype == dtype
    assert torch.equal(found, pooled_by_definition(maps, cells, levels))


def test_by_hand():
    maps = torch.arange(1.0, 7).view(2, 3, 1)  # 1, 2, 3 / 4, 5, 6
    cells = np.array([[1, 0, 2, 1], [0, 1, 0, 1]], np.int32)
    assert pool_anywhere(maps, cells, (1, 2)).tolist() == [[6, 2, 3, 5, 6], [4, 4, 4, 4, 4]]


def test_no_windows():
    cells = np.empty((0, 4), np.int32)
    assert (
        pool_anywhere(random_maps(5, 5, 3), cells, SPP6).shape
        == pool_windows(random_maps(5, 5, 3), cells).shape
    )
