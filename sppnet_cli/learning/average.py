"""Running mean of a network's weights, which changes less from step to step than they do (Polyak and Juditsky, 1992)."""

import torch
from torch import Tensor, nn

_WARM_UP = (
    10  # steps: before, the mean follows the weights more closely, so that it forgets those of the beginning
)


class WeightAverage:
    """Exponential running mean of the parameters of `network`: `decay` of the old mean, the rest of the new weights."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._network = network
        self._means = {name: value.detach().clone() for name, value in network.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + _WARM_UP))
        for name, value in self._network.named_parameters():
            self._means[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the mean and the weights: the network gets the mean; another call gives it its weights back."""
        for name, value in self._network.named_parameters():
            weights = value.clone()
            value.copy_(self._means[name])
            self._means[name].copy_(weights)

    def state(self) -> dict[str, Tensor | int]:
        """The state, for a checkpoint."""
        return {"steps": self.steps, **self._means}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Continue from a checkpoint's state.  Raises anything where it does not fit (`checkpoint.restoring`)."""
        self.steps = int(state["steps"])
        for name, mean in self._means.items():
            saved = state[name]
            assert isinstance(saved, Tensor)
            assert saved.shape == mean.shape
            mean.copy_(saved)
