"""SPP-net's window features: conv5 maps once per image and scale, then every window pooled from them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.errors import UsageError
from sppnet_cli.features.rules import MethodRules, spp_rules
from sppnet_cli.kernels.pooling import empty_vectors, pool_into, pool_windows
from sppnet_cli.network.fused import fused
from sppnet_cli.network.geometry import Boxes, choose_scales, resized_size, window_cells
from sppnet_cli.network.precision import Precision, converted, require
from sppnet_cli.network.preprocessing import resize
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import Protocol


@dataclass(frozen=True)
class FeatureMaps:
    """conv5 maps of one image at each scale, `(h, w, C)` float32 or bfloat16; `size` is (H, W) in pixels."""

    size: tuple[int, int]
    maps: tuple[Tensor, ...]


class SppWindows:
    """Pools windows of an image from its conv5 maps at one or several scales (paper section 4.1).

    In `bf16` the trunk is a copy with weights of that precision, made here, and maps and vectors are bfloat16; the
    network given keeps its float32.  Raises `UsageError` for a plain net, and as `precision.require` does.
    """

    method = "spp"

    def __init__(
        self,
        network: SPPNet,
        protocol: Protocol,
        scales: Sequence[int],
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        if network.spec.levels is None:
            raise UsageError("the plain network has no pyramid: windows cannot be pooled from its maps")
        self.dtype = require(precision, device)
        self.network = network.to(device).eval()
        self.trunk = fused(converted(self.network.trunk, self.dtype))
        self.protocol = protocol
        self.scales = tuple(scales)
        self.levels = network.spec.levels
        self.device = device

    @property
    def rules(self) -> MethodRules:
        """SPP-net's rules under its protocol."""
        return spp_rules(self.protocol)

    def network_input(self, image: NDArray[np.uint8], scale: int) -> Tensor:
        """The image `(H, W, 3)` resized so that its short side is `scale`, preprocessed: `(1, 3, h, w)`."""
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)
        return self.network.preprocessing(resize(pixels, resized_size(image.shape[:2], scale)))

    @torch.inference_mode()
    def conv5(self, network_input: Tensor) -> Tensor:
        """conv5 map `(h, w, C)` of a network input."""
        return self.trunk(network_input.to(self.dtype))[0].permute(1, 2, 0).contiguous()

    def prepare(self, image: NDArray[np.uint8]) -> FeatureMaps:
        """Maps at every scale of an RGB image `(H, W, 3)` uint8."""
        maps = tuple(self.conv5(self.network_input(image, scale)) for scale in self.scales)
        return FeatureMaps(image.shape[:2], maps)

    @torch.inference_mode()
    def pool(self, prepared: FeatureMaps, boxes: Boxes, scales: NDArray[np.int64] | None = None) -> Tensor:
        """Pyramid vectors `(N, D)` of windows `(N, 4)` in the original image, each at its own scale.

        `scales` `(N,)` are indices into the extractor's; without them the protocol chooses.  By the rule `all` there
        is nothing to choose: a vector holds the maxima, element by element, of the window's vectors at all scales.
        """
        if self.protocol.scale_rule == "all":
            every = (
                pool_windows(conv5, self.cells(prepared, boxes, index), self.levels)
                for index, conv5 in enumerate(prepared.maps)
            )
            return functools.reduce(torch.maximum, every)
        choice = choose_scales(boxes, prepared.size, self.scales, self.protocol) if scales is None else scales
        pooled = empty_vectors(len(boxes), self.network.pooled_size, prepared.maps[0])
        for index, conv5 in enumerate(prepared.maps):
            rows = np.flatnonzero(choice == index)
            if len(rows):
                pool_into(pooled, rows, conv5, self.cells(prepared, boxes[rows], index), self.levels)
        return pooled

    def cells(self, prepared: FeatureMaps, boxes: Boxes, index: int) -> NDArray[np.int32]:
        """Cells `(N, 4)` of windows on the map of the `index`-th scale."""
        height, width = prepared.maps[index].shape[:2]
        geometry, protocol = self.network.geometry, self.protocol
        return window_cells(boxes, prepared.size, self.scales[index], (height, width), geometry, protocol)
