import pytest
import torch

from sppnet_cli.errors import UsageError
from sppnet_cli.features.layers import Layer
from sppnet_cli.network.sppnet import Head


@pytest.fixture
def head():
    torch.manual_seed(0)
    return Head(12, 5, 3, input_scale=0.5)


def test_pool5_is_the_pooled_vectors():
    pooled = torch.randn(4, 12)
    assert Layer("pool5")(pooled) is pooled


def test_fc6_and_fc7_are_after_relu_and_without_dropout(head):
    head.train()
    pooled = torch.randn(4, 12)
    fc6 = (pooled * 0.5 @ head.fc6.weight.T + head.fc6.bias).clamp(min=0)
    fc7 = (fc6 @ head.fc7.weight.T + head.fc7.bias).clamp(min=0)
    torch.testing.assert_close(Layer("fc6", head)(pooled), fc6.detach())
    torch.testing.assert_close(Layer("fc7", head)(pooled), fc7.detach())


def test_bfloat16_vectors_go_through_a_head_of_their_own_and_come_out_in_float32():
    torch.manual_seed(0)
    head = Head(800, 64, 3, input_scale=0.3)
    vectors = torch.randn(50, 800).relu().bfloat16()
    layer = Layer("fc7", head)
    found, exact = layer(vectors), layer(vectors.float())
    assert found.dtype == torch.float32
    assert 0 < (found - exact).norm() < 2e-2 * exact.norm()
    assert {p.dtype for p in head.parameters()} == {torch.float32}
    assert torch.equal(layer(vectors), found)
    pool5 = Layer("pool5")(vectors)
    assert pool5.dtype == torch.float32
    assert torch.equal(pool5.bfloat16(), vectors)


@pytest.mark.parametrize("count", [0, 1, 2048, 5000])
def test_any_number_of_windows(head, count):
    pooled = torch.randn(count, 12)
    found = Layer("fc7", head)(pooled)
    assert found.shape == (count, 5)
    torch.testing.assert_close(found, head.eval().features(pooled, "fc7").detach())


def test_the_fc_layers_need_a_head(head):
    with pytest.raises(UsageError, match="fc6 needs fc layers"):
        Layer("fc6")
    with pytest.raises(UsageError, match="unknown layer 'fc8'; layers are pool5, fc6, fc7"):
        Layer("fc8", head)
