"""The whole network: trunk, pooling and fully connected head, with its preprocessing and geometry."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.linear import Linear
from sppnet_cli.kernels.pyramid import SPP6, SpatialPyramidPooling, bin_count
from sppnet_cli.names import MAP_LAYERS
from sppnet_cli.network.backbones import build_trunk, conv4_part, feature_channels, plain_pool
from sppnet_cli.network.fused import fused
from sppnet_cli.network.geometry import CROP
from sppnet_cli.network.parts import in_parts
from sppnet_cli.network.preprocessing import CAFFE, MinusMeanImage
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.network.zf5 import initialise


@dataclass(frozen=True)
class NetworkSpec:
    """What must be known to build a network before its weights are loaded."""

    arch: str = "zf5"
    width: float = 1.0  # factor of the filter numbers, our own nets only
    levels: tuple[int, ...] | None = SPP6  # pyramid; None: the plain net's max pool to 6x6
    fc: int = 0  # outputs of fc6 and of fc7; 0: a trunk without a head
    classes: int = 0  # outputs of fc8


class Dropout(nn.Dropout):
    """`nn.Dropout` whose halves, on a CPU, take one random bit for each number.

    Torch draws a whole random number for each, on AMD's processors one after the other, which takes longer than fc8.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`; while training, with probability `p` zero and else divided by `1 - p`."""
        if not self.training or self.p != 0.5 or x.device.type != "cpu":
            return super().forward(x)
        drawn = torch.randint(256, (-(-x.numel() // 8), 1), dtype=torch.uint8)
        bits = (drawn >> torch.arange(8, dtype=torch.uint8)) & 1
        return x * bits.view(-1)[: x.numel()].view(x.shape).to(x.dtype).mul_(2)


class Head(nn.Module):
    """fc6, ReLU, dropout, fc7, ReLU, dropout, fc8, on pooled vectors `(N, inputs)`.

    `input_scale` multiplies the pooled vectors first.  It is 1 for a head trained with its trunk; a new head on
    a foreign trunk takes the scale that brings that trunk's features to the size its initialisation expects.
    """

    input_scale: Tensor

    def __init__(self, inputs: int, hidden: int, outputs: int, input_scale: float = 1.0) -> None:
        super().__init__()
        self.fc6 = Linear(inputs, hidden)
        self.fc7 = Linear(hidden, hidden)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # some heads have no classes
            self.fc8 = Linear(hidden, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(0.5)
        self.register_buffer("input_scale", torch.tensor(input_scale))

    def features(self, pooled: Tensor, layer: str) -> Tensor:
        """fc6 or fc7 after ReLU, `(N, hidden)`, of pooled vectors."""
        x = self.relu(self.fc6(self._scaled(pooled)))
        return x if layer == "fc6" else self.relu(self.fc7(self.dropout(x)))

    def forward(self, pooled: Tensor) -> Tensor:
        """Class scores before the softmax, `(N, outputs)`."""
        return self.fc8(self.dropout(self.features(pooled, "fc7")))

    def _scaled(self, pooled: Tensor) -> Tensor:
        # Multiplying by one takes a pass over the largest of all arrays; looking would mean waiting for a GPU.
        quick = self.input_scale.device.type == "cpu" and not torch.compiler.is_compiling()
        if quick and self.input_scale == 1:
            return pooled
        return pooled * self.input_scale


class SPPNet(nn.Module):
    """A network built from its `NetworkSpec`; random weights until `weights.load_network` fills them."""

    mean_image: Tensor | None

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk, self.preprocessing = build_trunk(spec.arch, spec.width)
        # (3, 224, 224) float32, BGR in 0..255: of ImageNet's training images, where the network was trained on them.
        self.register_buffer("mean_image", None, persistent=False)
        self._tried: dict[tuple[int, int], tuple[int, ...]] = {}  # shapes of maps, for `map_shape`
        self.parts = 1  # of a training batch, which the trunk takes side by side (see `parts`)
        self.geometry = geometry_of(self.trunk)
        self.channels = feature_channels(self.trunk)
        if spec.levels is None:
            self.pool = plain_pool(spec.arch)
            bins = 36
        else:
            self.pool = SpatialPyramidPooling(spec.levels)
            bins = bin_count(spec.levels)
        self.pooled_size = self.channels * bins
        self.head = Head(self.pooled_size, spec.fc, spec.classes) if spec.fc else None
        self.to(memory_format=torch.channels_last)

    def initialise(self, rule: str) -> None:
        """Random weights by the `paper` or `he` rule (see `zf5.initialise`)."""
        initialise(self, rule)

    def require_head(self) -> Head:
        """The head; raises `UsageError` for a bare trunk."""
        if self.head is None:
            raise UsageError(f"{self.spec.arch} has no fc layers: fine-tune them first, or use layer pool5")
        return self.head

    @property
    def takes_mean_image(self) -> bool:
        """Whether the network is to be trained on images minus their mean image: ZF-5 and its kin are."""
        return self.preprocessing == CAFFE

    @property
    def imagenet_preprocessing(self) -> Callable[[Tensor], Tensor]:
        """What images of the set that the network was trained on go through; all others take `preprocessing`."""
        return self.preprocessing if self.mean_image is None else MinusMeanImage(self.mean_image)

    def map_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the conv5 map of an image that enters the trunk with `size` (H, W); nothing is computed."""
        # Each stride of pixels more gives a cell more, so few sizes need be tried.
        stride = self.geometry.stride
        height, width = (side if side < CROP else CROP + (side - CROP) % stride for side in size)
        if (height, width) not in self._tried:
            with torch.no_grad():
                shape = self._shapes_only(torch.empty(1, 3, height, width, device="meta")).shape
            self._tried[height, width] = shape[1:]
        channels, rows, columns = self._tried[height, width]
        return channels, rows + (size[0] - height) // stride, columns + (size[1] - width) // stride

    @cached_property
    def _shapes_only(self) -> nn.Module:
        return copy.deepcopy(self.trunk).to("meta").eval()

    def maps(self, images: Tensor, layer: str, *, imagenet: bool = False) -> Tensor:
        """Maps `(B, C, h, w)`, after ReLU, of RGB images `(B, 3, H, W)` in 0..255.

        `imagenet` images go through `imagenet_preprocessing`.  `layer` is `conv5`, the trunk's last map, or `conv4`, the map before it (see `backbones.conv4_part`).
        Raises `UsageError` for another name and for a trunk without a conv4.
        """
        if layer not in MAP_LAYERS:
            raise UsageError(f"{layer!r} is no layer of maps; these are {', '.join(MAP_LAYERS)}")
        part = self._quick_trunk if layer == "conv5" else self._conv4
        return part((self.imagenet_preprocessing if imagenet else self.preprocessing)(images))

    @cached_property
    def _conv4(self) -> nn.Sequential:
        return fused(conv4_part(self.trunk))

    @cached_property
    def _quick_trunk(self) -> nn.Sequential:
        return fused(self.trunk)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `(B, classes)` before the softmax, of RGB images `(B, 3, H, W)` in 0..255.

        The classes are ImageNet's, and so are the images: they go through `imagenet_preprocessing`.
        """
        pixels = self.imagenet_preprocessing(images)
        if torch.compiler.is_compiling():
            maps = self.trunk(pixels)
        elif torch.is_grad_enabled():
            maps = in_parts(self.trunk, pixels, self.parts)
        else:
            maps = self._quick_trunk(pixels)
        return self.require_head()(self.pool(maps))
