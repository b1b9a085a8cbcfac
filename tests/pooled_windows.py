"""Random maps and windows, and torchvision's pooling of them."""

import numpy as np
import torch
from torchvision.ops import roi_pool


def random_maps(height, width, channels, seed=0):
    """Of both signs: a maximum that starts from zero would show."""
    return torch.randn(height, width, channels, generator=torch.Generator().manual_seed(seed))


def random_cells(height, width, count, seed=0):
    """Random windows, with one-cell, one-row and border ones and the full map among them."""
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.integers(0, width, (count, 2))), np.sort(rng.integers(0, height, (count, 2)))
    cells = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.int32)
    cells[::10, 2:] = cells[::10, :2]  # one cell
    cells[1::10, 3] = cells[1::10, 1]  # one row
    cells[2::10, 0], cells[2::10, 3] = 0, height - 1
    cells[3::10, 1], cells[3::10, 2] = 0, width - 1
    cells[4:5] = 0, 0, width - 1, height - 1
    cells[5:6], cells[6:7] = (0, 0, 0, 0), (width - 1, height - 1, width - 1, height - 1)
    return cells


def by_roi_pool(maps, cells, levels):
    """torchvision's pooling, level by level; it works on (1, C, H, W)."""
    batch = maps.permute(2, 0, 1)[None].contiguous()
    rois = torch.cat([torch.zeros(len(cells), 1), torch.from_numpy(cells).float()], dim=1)
    return torch.cat([roi_pool(batch, rois, n, spatial_scale=1.0).flatten(1) for n in levels], dim=1)
