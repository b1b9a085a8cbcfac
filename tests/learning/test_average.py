"""Running mean of weights against hand-worked numbers."""

import pytest
import torch
from torch import nn

from sppnet_cli.learning.average import WeightAverage


@pytest.fixture
def network():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    return layer


def step(network, average, value):
    with torch.no_grad():
        network.weight.fill_(value)
    average.update()


def mean(network, average):
    average.swap()
    value = network.weight.item()
    average.swap()
    return value


def test_the_mean_by_hand(network):
    average = WeightAverage(network, 0.15)
    step(network, average, 12.0)  # keeps 1/11 of the mean: (1 + 10 * 12) / 11
    assert mean(network, average) == pytest.approx(11.0)
    step(network, average, 0.0)  # 2/12 would be more than the decay: .15 * 11
    assert mean(network, average) == pytest.approx(1.65)
    assert network.weight.item() == 0.0  # swapped back


def test_it_goes_on_from_a_checkpoint(network):
    average = WeightAverage(network, 0.9)
    for value in (3.0, 5.0):
        step(network, average, value)
    again = WeightAverage(network, 0.9)
    again.restore(average.state())
    for each in (average, again):
        step(network, each, 7.0)
    assert mean(network, average) == mean(network, again)


def test_another_networks_state_does_not_fit(network):
    other = WeightAverage(nn.Linear(2, 1), 0.9)
    with pytest.raises((KeyError, AssertionError)):
        WeightAverage(nn.Linear(1, 1), 0.9).restore(other.state())
