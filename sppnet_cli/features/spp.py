"""SPP-net's window features: conv5 maps once per image and scale, then every window pooled from them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.errors import UsageError
from sppnet_cli.features.method import DistinctWindows, Extractor, Image, PooledWindows, Step
from sppnet_cli.kernels.pooling import empty_vectors, pool_into, pool_windows
from sppnet_cli.network.flops import flops
from sppnet_cli.network.geometry import Boxes, choose_scales, resized_size, window_cells
from sppnet_cli.network.precision import Precision
from sppnet_cli.network.preprocessing import resize
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import MappingRules


@dataclass(frozen=True)
class FeatureMaps:
    """conv5 maps of one image at each scale, `(h, w, C)` float32 or bfloat16; `size` is (H, W) in pixels."""

    size: tuple[int, int]
    maps: tuple[Tensor, ...]


class SppWindows(Extractor):
    """Pools windows of an image from its conv5 maps at one or several scales (paper section 4.1).

    Raises `UsageError` for a plain net, which has no pyramid, and as `Extractor` does.
    """

    method = "spp"
    per_window = False
    cascade = True

    def __init__(
        self,
        network: SPPNet,
        mapping: MappingRules,
        scales: Sequence[int] = (),
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        if network.spec.levels is None:
            raise UsageError("the plain network has no pyramid: windows cannot be pooled from its maps")
        super().__init__(network, mapping, scales, device, precision)
        self.levels = network.spec.levels

    def network_input(self, image: Image, scale: int) -> Tensor:
        """The image `(H, W, 3)` resized so that its short side is `scale`, preprocessed: `(1, 3, h, w)`."""
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)
        return self.network.preprocessing(resize(pixels, resized_size(image.shape[:2], scale)))

    @torch.inference_mode()
    def conv5(self, network_input: Tensor) -> Tensor:
        """conv5 map `(h, w, C)` of a network input."""
        return self.trunk(network_input.to(self.dtype))[0].permute(1, 2, 0).contiguous()

    def prepare(self, image: Image) -> FeatureMaps:
        """conv5 maps at every scale of an RGB image `(H, W, 3)`."""
        maps = tuple(self.conv5(self.network_input(image, scale)) for scale in self.scales)
        return FeatureMaps(image.shape[:2], maps)

    @torch.inference_mode()
    def pool(self, prepared: FeatureMaps, boxes: Boxes, scales: NDArray[np.int64] | None = None) -> Tensor:
        """Pyramid vectors `(N, D)` of windows `(N, 4)` in the original image, each at its own scale.

        `scales` `(N,)` are indices into the extractor's; without them the protocol chooses.  The rule `all` ignores
        them: a vector then holds the maxima, element by element, of the window's vectors at all scales.
        """
        if self.mapping.scale_rule == "all":
            every = (
                pool_windows(conv5, self.cells(prepared, boxes, index), self.levels)
                for index, conv5 in enumerate(prepared.maps)
            )
            return functools.reduce(torch.maximum, every)
        choice = choose_scales(boxes, prepared.size, self.scales, self.mapping) if scales is None else scales
        pooled = empty_vectors(len(boxes), self.network.pooled_size, prepared.maps[0])
        for index, conv5 in enumerate(prepared.maps):
            rows = np.flatnonzero(choice == index)
            if len(rows):
                pool_into(pooled, rows, conv5, self.cells(prepared, boxes[rows], index), self.levels)
        return pooled

    def cells(self, prepared: FeatureMaps, boxes: Boxes, index: int) -> NDArray[np.int32]:
        """Cells `(N, 4)` of windows on the map of the `index`-th scale."""
        height, width = prepared.maps[index].shape[:2]
        geometry, mapping = self.network.geometry, self.mapping
        return window_cells(boxes, prepared.size, self.scales[index], (height, width), geometry, mapping)

    def pool_in_steps(self, image: Image, boxes: Boxes, lap: Callable[[Step], None]) -> Tensor:
        """Distinct vectors `(U, D)` of windows `(N, 4)`, with a `lap` after each step (see `Extractor`)."""
        maps = []
        for scale in self.scales:
            network_input = self.network_input(image, scale)
            lap("image")
            maps.append(self.conv5(network_input))
            lap("conv")
        vectors = self.pool_distinct(FeatureMaps(image.shape[:2], tuple(maps)), boxes).vectors
        lap("pool")
        return vectors

    def conv_flops(self, size: tuple[int, int], windows: int) -> int:
        """Operations of the convolutional layers on an image of `size` at every scale, however many its windows."""
        return sum(flops(self.network.trunk, (1, 3, *resized_size(size, scale))) for scale in self.scales)

    def distinct(self, prepared: FeatureMaps, boxes: Boxes) -> DistinctWindows:
        """Windows of the same cells of the same map share a vector; a small shift often changes neither."""
        scales = range(len(self.scales))
        if self.mapping.scale_rule == "all":
            keys = np.concatenate([self.cells(prepared, boxes, index) for index in scales], axis=1)
        else:
            choice = choose_scales(boxes, prepared.size, self.scales, self.mapping)
            keys = np.empty((len(boxes), 5), np.int32)
            keys[:, 0] = choice
            for index in scales:
                chosen = choice == index
                keys[chosen, 1:] = self.cells(prepared, boxes[chosen], index)
        first, rows = np.unique(keys, axis=0, return_index=True, return_inverse=True)[1:]
        return DistinctWindows(first, rows)

    def cacheable(
        self, image: Callable[[], Image], boxes: Callable[[], Boxes]
    ) -> dict[str, Callable[[], Tensor]]:
        """The conv5 map of each scale; any windows can be pooled from them quickly."""
        return {str(scale): functools.partial(self._map_of, image, scale) for scale in self.scales}

    def cached_shapes(self, size: tuple[int, int], windows: int) -> list[tuple[int, ...]]:
        """That of each scale's map."""
        shapes = (self.network.map_shape(resized_size(size, scale)) for scale in self.scales)
        return [(height, width, channels) for channels, height, width in shapes]

    def _map_of(self, image: Callable[[], Image], scale: int) -> Tensor:
        return self.conv5(self.network_input(image(), scale))

    def pool_cached(
        self,
        parts: Sequence[Tensor],
        size: tuple[int, int],
        boxes: Boxes,
        rows: NDArray[np.intp] | None = None,
        scales: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """`pool` from the maps."""
        return self.pool(self._maps(parts, size), boxes if rows is None else boxes[rows], scales)

    def pool_cached_distinct(
        self, parts: Sequence[Tensor], size: tuple[int, int], boxes: Boxes
    ) -> PooledWindows:
        """`pool_distinct` from the maps."""
        return self.pool_distinct(self._maps(parts, size), boxes)

    def _maps(self, parts: Sequence[Tensor], size: tuple[int, int]) -> FeatureMaps:
        return FeatureMaps(size, tuple(part.to(self.device, self.dtype) for part in parts))
