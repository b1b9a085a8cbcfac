"""Features of a layer from pooled vectors."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sppnet_cli.errors import UsageError
from sppnet_cli.names import WINDOW_LAYERS
from sppnet_cli.network.precision import converted
from sppnet_cli.network.sppnet import Head

_CHUNK = 2048  # windows at a time through the fc layers


@dataclass(frozen=True)
class Layer:
    """pool5, fc6 or fc7 (after ReLU) on top of pooled vectors; the fc layers are those of `head`.

    Vectors in bfloat16 go through a bfloat16 copy of the head, made when it is first needed.
    """

    name: str
    head: Head | None = None

    def __post_init__(self) -> None:
        if self.name not in WINDOW_LAYERS:
            raise UsageError(f"unknown layer {self.name!r}; layers are {', '.join(WINDOW_LAYERS)}")
        if self.name != "pool5" and self.head is None:
            raise UsageError(f"{self.name} needs fc layers: fine-tune them first, or use pool5")

    @torch.inference_mode()
    def __call__(self, pooled: Tensor) -> Tensor:
        """`(N, D)` float32 on the device of `pooled` `(N, C * bins)`, computed in the precision of `pooled`."""
        if self.name == "pool5" or self.head is None:
            return pooled.float()
        head = self._bf16_head if pooled.dtype == torch.bfloat16 else self.head
        head = head.to(pooled.device).eval()
        return torch.cat([head.features(part, self.name) for part in pooled.split(_CHUNK)]).float()

    @cached_property
    def _bf16_head(self) -> Head:
        assert self.head is not None
        head = converted(self.head, torch.bfloat16)
        head.input_scale = self.head.input_scale  # in fp32, since its rounding would shift all features alike
        return head
