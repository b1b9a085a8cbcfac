import pytest
import torch
from torch.nn import functional as F

from sppnet_cli.kernels.lrn_pool import pool_rows, relu_lrn_pool

ALPHA = 5e-5


def random_maps(shape, seed=0):
    """Values at which the squares matter: 5e-5 * 200^2 = 2."""
    return 200 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pooled(maps, pad, shape, first=0):
    """Rows of the result, `shape` of them, from the row `first` on, of whole maps `(B, C, h, w)`."""
    by_cells = maps.permute(0, 2, 3, 1).contiguous()
    out = torch.empty(shape[0], *shape[2:], shape[1], dtype=maps.dtype)
    pool_rows(by_cells, out, 2 * first - pad, (0, maps.shape[2]), pad, ALPHA)
    return out.permute(0, 3, 1, 2)


def test_the_definition_by_hand():
    # One channel, 3 x 3: only the 600 in the middle passes the ReLU; 5e-5 * 600^2 / 9 = 2, so 600 / 3^0.75.
    maps = torch.full((1, 1, 3, 3), -7.0)
    maps[0, 0, 1, 1] = 600
    assert relu_lrn_pool(maps, ALPHA, 0, False).item() == pytest.approx(600 / 3**0.75, rel=1e-6)
    assert pooled(maps, 0, (1, 1, 1, 1)).item() == pytest.approx(600 / 3**0.75, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("pad", "ceil"), [(0, False), (0, True), (1, True)])
@pytest.mark.parametrize("shape", [(2, 6, 3, 3), (1, 97, 4, 5), (3, 17, 12, 17), (1, 2100, 4, 7)])
def test_as_the_definition(shape, pad, ceil, dtype):
    maps = random_maps(shape).to(dtype)
    expected = relu_lrn_pool(maps.float(), ALPHA, pad, ceil)
    found = pooled(maps, pad, expected.shape)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.float(), expected, rtol=1e-6 if dtype == torch.float32 else 2**-8, atol=0
    )


def test_a_band_gives_its_rows_of_the_whole():
    maps = random_maps((1, 6, 21, 9))
    expected = relu_lrn_pool(maps, ALPHA, 0, False)  # 10 rows
    torch.testing.assert_close(pooled(maps, 0, (1, 6, 4, 4), first=3), expected[:, :, 3:7], rtol=1e-6, atol=0)


def test_the_definition_is_of_the_layers():
    maps = random_maps((1, 4, 9, 9))
    squares = F.avg_pool2d(maps.relu().square(), 3, 1, 1, count_include_pad=True)
    expected = F.max_pool2d(maps.relu() * (1 + ALPHA * squares) ** -0.75, 3, 2)
    torch.testing.assert_close(relu_lrn_pool(maps, ALPHA, 0, False), expected, rtol=1e-6, atol=0)
