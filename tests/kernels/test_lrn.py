import numpy as np
import pytest
import torch

from sppnet_cli.kernels.lrn import WithinChannelLRN, within_channel_lrn

SHAPES = [(2, 8, 6, 5), (1, 3, 1, 7), (1, 8, 7, 1), (3, 1, 4, 4), (1, 1, 1, 1), (1, 16, 11, 2)]


def by_loops(x, alpha=5e-5):
    """y = x * (1 + alpha * mean of the 3x3 squares around, zeros outside)^-0.75, in double precision."""
    x = x.double().numpy()
    y = np.empty_like(x)
    height, width = x.shape[2:]
    for b, c, i, j in np.ndindex(x.shape):
        total = 0.0
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                if 0 <= i + di < height and 0 <= j + dj < width:
                    total += x[b, c, i + di, j + dj] ** 2
        y[b, c, i, j] = x[b, c, i, j] * (1 + alpha * total / 9) ** -0.75
    return y


def maps(shape, layout, seed=0):
    # Values at which the squares matter: 5e-5 * 200^2 = 2.
    x = 200 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=layout)


def test_one_cell_by_hand():
    # A single cell of 600: 5e-5 * 360000 / 9 = 2, so 600 * 3^-0.75.
    for x in (torch.full((1, 1, 1, 1), 600.0), torch.full((1, 1, 1, 1), 600.0, dtype=torch.float64)):
        assert WithinChannelLRN()(x).item() == pytest.approx(600 / 3**0.75, rel=1e-6)


def test_channels_do_not_see_each_other():
    x = maps((1, 2, 5, 5), torch.channels_last)
    alone = WithinChannelLRN()(x[:, :1].contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(WithinChannelLRN()(x)[:, :1], alone)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_formula_in_loops(shape, layout):
    x = maps(shape, layout)
    np.testing.assert_allclose(WithinChannelLRN()(x).numpy(), by_loops(x), rtol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_definition(shape):
    x = maps(shape, torch.channels_last).requires_grad_()
    incoming = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    WithinChannelLRN()(x).backward(incoming)
    exact = x.detach().double().requires_grad_()
    within_channel_lrn(exact, 5e-5).backward(incoming.double())
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


def test_the_definition_passes_gradcheck():
    x = (200 * torch.randn(1, 2, 4, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: within_channel_lrn(maps, 5e-5), x, eps=1e-3)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 8, 3, 5), (7, 8, 2, 2)])
def test_threads_do_not_change_a_bit(shape, threads, torch_threads):
    def both():
        x = maps(shape, torch.channels_last).requires_grad_()
        y = WithinChannelLRN()(x)
        y.sum().backward()
        return y, x.grad

    one = both()
    torch_threads(threads)
    many = both()
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_rounded_at_the_end_alone(shape, layout):
    x = maps(shape, layout).bfloat16()
    exact = WithinChannelLRN()(x.float())
    found = WithinChannelLRN()(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=layout)
    assert ((found.float() - exact).abs() <= exact.abs() * (2**-8 + 1e-6)).all()


def test_bfloat16_rounds_to_the_nearest_even():
    # Next to zero the scale is 1: bfloat16 comes back as it was.  3 / 3^.75 and the like round as torch's own.
    small = torch.linspace(-0.01, 0.01, 64).view(1, 64, 1, 1).bfloat16()
    assert torch.equal(WithinChannelLRN()(small), small)
    x = maps((1, 16, 40, 40), torch.channels_last).bfloat16()
    assert torch.equal(WithinChannelLRN()(x), WithinChannelLRN()(x.float()).bfloat16())


def test_bfloat16_has_gradients():
    x = maps((1, 8, 5, 5), torch.channels_last).bfloat16().requires_grad_()
    WithinChannelLRN()(x).sum().backward()
    exact = x.detach().double().requires_grad_()
    within_channel_lrn(exact, 5e-5).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 8, 3, 5), (7, 8, 2, 2)])
def test_threads_do_not_change_a_bit_of_bfloat16(shape, torch_threads):
    x = maps(shape, torch.channels_last).bfloat16()
    one = WithinChannelLRN()(x)
    torch_threads(3)
    assert torch.equal(WithinChannelLRN()(x), one)


def test_an_empty_batch():
    assert WithinChannelLRN()(torch.zeros(0, 8, 4, 4)).shape == (0, 8, 4, 4)
