"""Two steps of Caffe's SGD by hand: v = m v + lr (g + decay w), w -= v."""

import pytest
import torch
from torch import nn

from sppnet_cli.learning.optimizer import parameter_groups


class Model(nn.Module):
    """One number a layer, each of value 1 and with gradient 1."""

    def __init__(self):
        super().__init__()
        self.fc7, self.fc8 = nn.Linear(1, 1), nn.Linear(1, 1)
        for parameter in self.parameters():
            nn.init.ones_(parameter)


def two_steps(groups):
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5)
    for _ in range(2):
        for group in groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * group["factor"]
        optimizer.step()


# Decay .2.  At rate .1: 1 - .12 = .88, then v = .5 * 1.2 + (1 + .176) = 1.776: .88 - .1776 = .7024.
# At .2: 1 - .24 = .76, v = .6 + 1.152 = 1.752: .76 - .3504 = .4096.  At .2 without decay: 1 - .2 - .2 * 1.5 = .5.
# At 1: 1 - 1.2 = -.2, v = .6 + .96 = 1.56: -1.76.  At 2 without decay: 1 - 2 - 3 = -4.
@pytest.mark.parametrize(
    ("fc8_rate", "fc8"),
    [(None, (0.7024, 0.4096)), (1.0, (0.7024, 0.5)), (10.0, (-1.76, -4.0))],
    ids=["pre-training", "SPP-net", "R-CNN"],
)
def test_two_steps_by_hand(fc8_rate, fc8):
    model = Model()
    two_steps(parameter_groups(model, 0.2, fc8_rate))
    parameters = (model.fc7.weight, model.fc7.bias, model.fc8.weight, model.fc8.bias)
    found = [parameter.item() for parameter in parameters]
    assert found == pytest.approx([0.7024, 0.4096, *fc8], abs=1e-6)


def test_a_layer_is_known_by_its_own_name_wherever_it_stands():
    groups = parameter_groups(nn.Sequential(nn.Linear(1, 1), Model()), 0.2, 10.0)
    assert sorted((g["factor"], g["weight_decay"], len(g["params"])) for g in groups) == [
        (1.0, 0.2, 2),
        (2.0, 0.2, 2),
        (10.0, 0.2, 1),
        (20.0, 0.0, 1),
    ]
