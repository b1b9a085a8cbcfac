"""What a detection method offers: vectors of an image's windows, and the rules in which methods differ."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet_cli.network.fused import fused
from sppnet_cli.network.geometry import Boxes
from sppnet_cli.network.precision import Precision, converted, require
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import MappingRules, Protocol

Image = NDArray[np.uint8]
Step = Literal["image", "warp", "conv", "pool"]


class DistinctWindows(NamedTuple):
    """Which of an image's windows have vectors of their own; several windows may share one."""

    first: NDArray[np.intp]  # (U,) one window for each distinct vector
    rows: NDArray[np.intp]  # (N,) the vector of each window, an index into `first`


class PooledWindows(NamedTuple):
    """Pyramid vectors of an image's windows, each distinct vector once."""

    vectors: Tensor  # (U, D)
    rows: NDArray[np.intp]  # (N,) the vector of each window


class Extractor(ABC):
    """Pyramid vectors of an image's windows, by one detection method.

    A new method is a subclass and a line in `methods.METHODS`.  What stands here suits a method that sends every
    window through the network on its own; one that shares maps among windows overrides the methods from `distinct`
    on.  `prepare` returns what `pool` needs of an image; only the method itself looks into it, apart from its `size`.

    Args:
        network: in `bf16` its trunk is copied and converted; the network itself keeps its float32.
        mapping: from windows to cells, for a method that pools them from a map.
        scales: short sides in pixels; a method that is `per_window` has none and ignores them.
        device: where all of it runs.
        precision: of the trunk, the maps and the vectors.

    Raises:
        UsageError: as `precision.require` does.
    """

    method: ClassVar[str]  # its name in METHODS
    # Whether every window goes through the network on its own.  What is cached then depends on the windows and not
    # on the image alone, reading it is always quicker than computing it, and the time of conv and pool grows with
    # the number of windows, so that it may be measured on some of them.
    per_window: ClassVar[bool] = True
    # Whether the detector may skip the fc layers of windows that a linear guess rules out.
    cascade: ClassVar[bool] = False

    def __init__(
        self,
        network: SPPNet,
        mapping: MappingRules,
        scales: Sequence[int] = (),
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.dtype = require(precision, device)
        self.network = network.to(device).eval()
        self.trunk = fused(converted(self.network.trunk, self.dtype))
        self.mapping = mapping
        self.scales = () if self.per_window else tuple(scales)
        self.device = device

    @staticmethod
    def protocol_of(protocol: Protocol) -> Protocol:
        """The protocol as the method follows it: the numbers in which it differs from SPP-net are its own."""
        return protocol

    @abstractmethod
    def prepare(self, image: Image) -> Any:
        """What the windows of an RGB image `(H, W, 3)` share; it has a `size`, (H, W)."""

    @abstractmethod
    def pool(self, prepared: Any, boxes: Boxes, scales: NDArray[np.int64] | None = None) -> Tensor:
        """Vectors `(N, D)` of windows `(N, 4)` in the original image.

        `scales` `(N,)` are indices into the extractor's; without them the protocol chooses.
        """

    @abstractmethod
    def pool_in_steps(self, image: Image, boxes: Boxes, lap: Callable[[Step], None]) -> Tensor:
        """Distinct vectors `(U, D)` of windows `(N, 4)` of an RGB image `(H, W, 3)`, for timing.

        `lap` is called after each step: `image` (work on the image before the network), `warp` (work on windows before
        the network), `conv` and `pool`; more than once where the steps alternate.
        """

    @abstractmethod
    def conv_flops(self, size: tuple[int, int], windows: int) -> int:
        """Floating-point operations of the convolutional layers for an image of `size` (H, W) with so many windows."""

    def distinct(self, prepared: Any, boxes: Boxes) -> DistinctWindows:
        """Which windows `(N, 4)` have the same vector."""
        each = np.arange(len(boxes))
        return DistinctWindows(each, each)

    def pool_distinct(self, prepared: Any, boxes: Boxes) -> PooledWindows:
        """Vectors of windows `(N, 4)`, each distinct vector once."""
        first, rows = self.distinct(prepared, boxes)
        return PooledWindows(self.pool(prepared, boxes[first]), rows)

    def cacheable(
        self, image: Callable[[], Image], boxes: Callable[[], Boxes]
    ) -> dict[str, Callable[[], Tensor]]:
        """What of an image is worth keeping on disk: for each part its folder, or "", and how to compute it."""
        return {"": lambda: self.pool(self.prepare(image()), boxes())}

    def cached_shapes(self, size: tuple[int, int], windows: int) -> list[tuple[int, ...]]:
        """The shape of each `cacheable` part of an image of `size` (H, W) with so many windows; -1: of any length."""
        return [(windows, -1)]

    def pool_cached(
        self,
        parts: Sequence[Tensor],
        size: tuple[int, int],
        boxes: Boxes,
        rows: NDArray[np.intp] | None = None,
        scales: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """As `pool`, from the `cacheable` parts as the cache gives them, of an image of `size` (H, W).

        `boxes` `(N, 4)` are all windows that the parts were computed for; `rows` choose some of them.
        """
        (vectors,) = parts
        chosen = vectors if rows is None else vectors[torch.from_numpy(rows)]
        return chosen.to(self.device, self.dtype)

    def pool_cached_distinct(
        self, parts: Sequence[Tensor], size: tuple[int, int], boxes: Boxes
    ) -> PooledWindows:
        """As `pool_distinct`, from the `cacheable` parts of all windows `boxes` `(N, 4)`."""
        return PooledWindows(self.pool_cached(parts, size, boxes), np.arange(len(boxes)))
