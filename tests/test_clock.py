from types import SimpleNamespace

import pytest
import torch

from sppnet_cli.clock import Clock


@pytest.fixture
def hands(monkeypatch):
    """Stands in for the module `time`."""
    hands = SimpleNamespace(now=5.0, perf_counter=lambda: hands.now)
    monkeypatch.setattr("sppnet_cli.clock.time", hands)
    return hands


def test_a_lap_is_the_time_since_the_last(hands):
    clock = Clock()
    hands.now = 7.0
    assert clock.lap() == 2
    assert clock.lap() == 0
    hands.now = 7.5
    assert clock.lap() == 0.5


def test_a_gpu_is_waited_for_before_the_time_is_taken(hands, monkeypatch):
    waited = []

    def synchronize(device):
        waited.append(device)
        hands.now += 10

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    clock = Clock("cuda:1")
    assert hands.now == 15
    assert clock.lap() == 10  # the work that was not done yet
    assert waited == ["cuda:1"] * 2
