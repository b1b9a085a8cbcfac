"""The spatial pyramid pooling layer (paper section 2.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPP6 = (1, 2, 3, 6)
SPP4 = (1, 2, 3, 4)


def bin_edges(extent: int, bins: int) -> list[tuple[int, int]]:
    """Half-open cell ranges `[floor(i*extent/bins), ceil((i+1)*extent/bins))` of the bins of one axis.

    Every bin holds at least one cell and neighbours may overlap (journal edition, appendix).
    """
    return [(i * extent // bins, -((i + 1) * extent // -bins)) for i in range(bins)]


def bin_count(levels: tuple[int, ...]) -> int:
    """Number of bins of a pyramid: 50 for {1, 2, 3, 6}, 30 for {1, 2, 3, 4}."""
    return sum(n * n for n in levels)


class SpatialPyramidPooling(nn.Module):
    """Max-pools maps `(B, C, H, W)` of any size to vectors `(B, C * bins)`.

    The layout is the one that window pooling shares: levels in ascending order, and in a level of `n x n`
    bins the channel first: `c*n*n + row*n + column`.
    """

    def __init__(self, levels: tuple[int, ...] = SPP6) -> None:
        super().__init__()
        self.levels = tuple(sorted(levels))
        self.bins = bin_count(self.levels)

    def forward(self, maps: Tensor) -> Tensor:
        """Pool `maps` (B, C, H, W); `F.adaptive_max_pool2d` has exactly the bins of `bin_edges`."""
        return torch.cat([F.adaptive_max_pool2d(maps, n).flatten(1) for n in self.levels], dim=1)
