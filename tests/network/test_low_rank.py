import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.network.low_rank import Axes, low_rank, low_rank_head, most_of_use, principal_axes
from sppnet_cli.network.sppnet import Head


def decaying(samples, dimension, decay=0.8, seed=0):
    """Samples about a mean that is not zero, whose spread falls by `decay` from direction to direction."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    spread = decay ** np.arange(dimension)
    x = rng.normal(size=(samples, dimension)) * spread @ turn.T + rng.normal(size=dimension)
    return torch.from_numpy(x.astype(np.float32))


def layer_of(inputs, outputs):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


def fitted(linear, samples, rank):
    with torch.no_grad():
        return low_rank(linear, principal_axes(linear(samples)), rank)


def best(outputs, rank):
    """The closest affine approximation of that rank: the truncated SVD of the centred outputs, in double precision."""
    outputs = outputs.detach().double().numpy()
    mean = outputs.mean(axis=0)
    u, s, v = np.linalg.svd(outputs - mean, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank] + mean


def truncated(linear, rank):
    """The truncated SVD of the weights, and the bias as it is."""
    u, s, v = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    plain = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        plain.weight.copy_((u[:, :rank] * s[:rank]) @ v[:rank])
        plain.bias.copy_(linear.bias)
    return plain


@pytest.mark.parametrize("shape", [(60, 24), (24, 60), (30, 30)])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_no_layer_of_the_rank_is_closer_in_its_outputs(shape, rank):
    layer, samples = layer_of(*shape), decaying(200, shape[0])
    first, second = cut = fitted(layer, samples, rank)
    assert first.bias is None
    assert first.weight.shape == (rank, shape[0])
    assert second.weight.shape == (shape[1], rank)
    np.testing.assert_allclose(cut(samples).detach().numpy(), best(layer(samples), rank), atol=2e-5)


@pytest.mark.parametrize("shape", [(60, 24), (24, 60), (30, 30)])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_it_is_closer_than_the_svd_of_the_weights_on_unseen_samples_too(shape, rank):
    layer = layer_of(*shape)
    samples = decaying(400, shape[0])
    cut, plain = fitted(layer, samples[:200], rank), truncated(layer, rank)
    with torch.no_grad():
        for part in (samples[:200], samples[200:]):
            ours, theirs = (float((each(part) - layer(part)).norm()) for each in (cut, plain))
            assert ours < 0.5 * theirs


def test_outputs_in_as_many_directions_as_the_rank_are_exact():
    layer = layer_of(40, 24)
    samples = decaying(50, 6) @ decaying(6, 40) + decaying(1, 40)
    torch.testing.assert_close(fitted(layer, samples, 6)(samples), layer(samples), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [200, 24, 7, 2, 1])
@pytest.mark.parametrize("outputs", [24, 25])
def test_the_axes_are_those_of_most_variance(samples, outputs):
    x = decaying(samples, outputs)
    axes, mean = principal_axes(x)
    assert axes.shape == (outputs, 12)
    assert axes.dtype == mean.dtype == torch.float32
    torch.testing.assert_close(axes.T @ axes, torch.eye(12), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, x.mean(dim=0))
    centred = (x - mean).double().numpy()
    variance = np.square(centred @ axes.double().numpy()).sum(axis=0)
    s = np.linalg.svd(centred, compute_uv=False)[:12]
    np.testing.assert_allclose(variance[: len(s)], np.square(s), rtol=1e-3, atol=1e-6 * s[0] ** 2)
    assert (np.diff(variance) <= 1e-6 * s[0] ** 2).all()


def test_known_axes():
    x = torch.tensor(
        [[5.0, 0, 1, 0], [-1, 0, 1, 0], [2, 2, 1, 0], [2, -2, 1, 0]]
    )  # by 3 and by 2 about (2, 0, 1, 0)
    axes, mean = principal_axes(x)
    torch.testing.assert_close(mean, torch.tensor([2.0, 0, 1, 0]))
    torch.testing.assert_close(axes.abs(), torch.eye(4)[:, :2])


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_few_outputs_have_an_axis(outputs):
    layer, samples = layer_of(5, outputs), decaying(9, 5)
    with torch.no_grad():
        axes = principal_axes(layer(samples))
    assert axes.axes.shape == (outputs, 1)
    assert float(axes.axes.norm()) == pytest.approx(1)
    found = low_rank(layer, axes, 1)(samples).detach().numpy()
    np.testing.assert_allclose(found, best(layer(samples), 1), atol=1e-5)


def test_twice_the_same_bytes():
    layer, samples = layer_of(60, 24), decaying(20, 60)
    with torch.no_grad():
        one, other = (principal_axes(layer(samples)) for _ in range(2))
    assert torch.equal(one.axes, other.axes)
    assert torch.equal(one.mean, other.mean)
    (a, b), (c, d) = low_rank(layer, one, 7), low_rank(layer, other, 7)
    assert torch.equal(a.weight, c.weight)
    assert torch.equal(b.weight, d.weight)
    assert torch.equal(b.bias, d.bias)


def axes_of(head, samples):
    with torch.no_grad():
        fc6 = head.fc6(samples * head.input_scale)
        return {"fc6": principal_axes(fc6), "fc7": principal_axes(head.fc7(fc6.relu()))}


def test_a_head_with_cut_layers_leaves_the_old_one_alone():
    torch.manual_seed(0)
    head = Head(80, 24, 5, 0.5).eval()
    with torch.no_grad():
        for layer, rank in ((head.fc6, 12), (head.fc7, 6)):  # already of the ranks to which they are cut
            layer.weight.copy_(torch.randn(24, rank) @ torch.randn(rank, layer.in_features) / 10)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    axes = axes_of(head, torch.randn(100, 80))
    cut = low_rank_head(head, axes, (12, 6)).eval()
    x = torch.randn(7, 80)
    for layer in ("fc6", "fc7"):
        torch.testing.assert_close(cut.features(x, layer), head.features(x, layer), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in cut.fc6.parameters()) == 12 * (80 + 24) + 24
    assert cut.fc8 is head.fc8
    assert isinstance(head.fc6, nn.Linear)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    one = low_rank_head(head, {"fc6": axes["fc6"]}, (12,))
    assert one.fc7 is head.fc7
    assert isinstance(one.fc6, nn.Sequential)


@pytest.mark.parametrize("shape", [(80, 24), (24, 24), (5, 300), (300, 5), (3, 3), (2, 2), (7, 1)])
def test_the_highest_rank_that_saves_something(shape):
    inputs, outputs = shape
    saving = [r for r in range(1, outputs // 2 + 1) if r * (inputs + outputs) < inputs * outputs]
    assert most_of_use(nn.Linear(*shape)) == max(saving, default=0)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ((0,), "rank 0 of fc6: of 80 x 24 numbers a rank of 1 to 12 spares some"),
        ((13,), "rank 13 of fc6: of 80 x 24 numbers"),
        ((12, 12), "rank 12 of fc7: of 24 x 24 numbers a rank of 1 to 11 spares some"),  # 12 * 48 = 24 * 24
        ((), "0 ranks: give that of fc6"),
        ((4, 4, 4), "3 ranks"),
    ],
)
def test_ranks_that_save_nothing(ranks, message):
    head = Head(80, 24, 5)
    axes = {name: Axes(torch.eye(24)[:, :12], torch.zeros(24)) for name in ("fc6", "fc7")}
    with pytest.raises(UsageError, match=message):
        low_rank_head(head, axes, ranks)
    low_rank_head(head, axes, (12, 11))
