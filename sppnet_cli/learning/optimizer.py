"""Learning rates and weight decay of each kind of parameter, as Caffe's prototxt files state them."""

from typing import Any

from torch import nn

_BIAS_RATE = 2.0  # `blobs_lr: 2` in every layer of the authors' networks


def parameter_groups(
    model: nn.Module, weight_decay: float, fc8_rate: float | None = None
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: `params`, `weight_decay`, and `factor`, which multiplies the learning rate.

    Biases learn twice as fast as weights.  They decay like weights: the authors' network prototxt states no
    `weight_decay` for a layer, so Caffe's default of 1 holds.  Their fine-tuning prototxt states 0 for the bias of fc8
    alone; give `fc8_rate`, the factor of fc8's learning rate, when fine-tuning, and None when pre-training.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        factor, decay = (_BIAS_RATE if kind == "bias" else 1.0), weight_decay
        if fc8_rate is not None and layer.rpartition(".")[2] == "fc8":
            factor *= fc8_rate
            decay = 0.0 if kind == "bias" else weight_decay
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": params, "factor": factor, "weight_decay": decay}
        for (factor, decay), params in groups.items()
    ]
