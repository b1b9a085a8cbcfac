import threading

import pytest
import torch
from torch import nn

from sppnet_cli.network.parts import in_parts
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet


@pytest.fixture
def conv():
    """1x1, with weight 2 and bias 1."""
    layer = nn.Conv2d(1, 1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 1.0)
    return layer


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_results_and_gradients_by_hand(conv, parts):
    images = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    found = in_parts(conv, images, parts)
    assert found.flatten().tolist() == [3.0, 5.0, 7.0]
    (found.flatten() * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert conv.weight.grad.item() == 1 * 1 + 10 * 2 + 100 * 3
    assert conv.bias.grad.item() == 111


def test_mixed_precision_reaches_every_part(conv):
    with torch.autocast("cpu", torch.bfloat16):
        found = in_parts(conv, torch.ones(3, 1, 1, 1), 2)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert conv.weight.grad.item() == 3


def test_frozen_parameters_get_no_gradient(conv):
    conv.bias.requires_grad_(False)
    in_parts(conv, torch.ones(2, 1, 1, 1), 2).sum().backward()
    assert conv.bias.grad is None
    assert conv.weight.grad.item() == 2


def test_parts_run_side_by_side_forward_and_back():
    together = threading.Barrier(2, timeout=10)

    class Meeting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            together.wait()
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            together.wait()
            return gradient

    class Layer(nn.Linear):
        def forward(self, x):
            return Meeting.apply(super().forward(x))

    in_parts(Layer(1, 1), torch.ones(4, 1), 2).sum().backward()


def test_a_network_learns_the_same_from_parts():
    """Conv, LRN and pooling as in ZF-5; the gradients are those of the whole batch, but for the last bits."""
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 32, 5)).train()
    network.initialise("he")
    images = torch.rand(6, 3, 224, 224) * 255
    gradients = {}
    for parts in (1, 2, 3):
        network.parts = parts
        network.zero_grad()
        torch.manual_seed(1)  # for dropout
        network(images).square().sum().backward()
        gradients[parts] = {name: p.grad.clone() for name, p in network.named_parameters()}
    for parts in (2, 3):
        for name, whole in gradients[1].items():
            assert (gradients[parts][name] - whole).norm() < 1e-4 * whole.norm(), name
    network.parts = 2
    network.zero_grad()
    torch.manual_seed(1)
    network(images).square().sum().backward()
    for name, p in network.named_parameters():
        assert torch.equal(p.grad, gradients[2][name]), name
