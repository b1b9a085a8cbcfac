"""Layers that people call spatial pyramid pooling: right ones, and the known mistakes as they are written."""

import math

import torch
from torch import nn
from torch.nn import functional as F

LEVELS = (1, 2, 3, 6)


class SideBySide(nn.Module):
    def __init__(self):
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveMaxPool2d(n) for n in LEVELS)

    def forward(self, x):
        return torch.cat([pool(x).flatten(1) for pool in self.pools], dim=1)


class CeilPadding(nn.Module):
    def forward(self, x):
        parts = []
        for n in LEVELS:
            kernel = [math.ceil(a / n) for a in x.shape[2:]]
            pad = [(k * n - a + 1) // 2 for k, a in zip(kernel, x.shape[2:], strict=True)]
            parts.append(F.max_pool2d(x, kernel, stride=kernel, padding=pad).flatten(1))
        return torch.cat(parts, dim=1)


class CeilZeros(nn.Module):
    def forward(self, x):
        height, width = x.shape[2:]
        parts = []
        for n in LEVELS:
            h, w = math.ceil(height / n), math.ceil(width / n)
            down, right = h * n - height, w * n - width
            padded = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
            parts.append(nn.MaxPool2d((h, w), stride=(h, w))(padded).flatten(1))
        return torch.cat(parts, dim=1)


class FloorKernel(nn.Module):
    def forward(self, x):
        parts = []
        for n in LEVELS:
            kernel = [int(a / n) for a in x.shape[2:]]
            parts.append(F.max_pool2d(x, kernel, stride=kernel).flatten(1))
        return torch.cat(parts, dim=1)


class FloorSlices(nn.Module):
    def forward(self, x):
        parts = []
        for n in LEVELS:
            h, w = (max(a // n, 1) for a in x.shape[2:])
            corners = [(i * h, j * w) for i in range(n) for j in range(n)]
            bins = [x[:, :, top : top + h, left : left + w].amax((2, 3)) for top, left in corners]
            parts.append(torch.stack(bins, dim=2).flatten(1))
        return torch.cat(parts, dim=1)


class Sliding(nn.Module):
    def forward(self, x):
        parts = []
        for n in LEVELS:
            kernel = [math.ceil(a / n) for a in x.shape[2:]]
            stride = [math.floor(a / n) for a in x.shape[2:]]
            parts.append(F.max_pool2d(x, kernel, stride).flatten(1))
        return torch.cat(parts, dim=1)


class PowersOfTwo(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_max_pool2d(x, 2**level).flatten(1) for level in range(4)], dim=1)


class Average(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_avg_pool2d(x, n).flatten(1) for n in LEVELS], dim=1)


class FoldedBatch(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_max_pool2d(x, n).reshape(1, -1) for n in LEVELS], dim=1)


class MixedBatch(nn.Module):
    def forward(self, x):
        # (bins, N, C) read as (N, C x bins).
        bins = torch.cat([F.adaptive_max_pool2d(x, n).flatten(2) for n in LEVELS], dim=2)
        return bins.permute(2, 0, 1).reshape(len(x), -1)


class YoloSPP(nn.Module):
    def forward(self, x):
        return torch.cat([x, *(F.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13))], dim=1)


class Falling(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in (6, 3, 2, 1)], dim=1)


class BinsFirst(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_max_pool2d(x, n).permute(0, 2, 3, 1).flatten(1) for n in LEVELS], dim=1)


class AveragedPowers(nn.Module):
    def forward(self, x):
        return torch.cat([F.adaptive_avg_pool2d(x, 2**level).flatten(1) for level in range(4)], dim=1)


class Unknown(nn.Module):
    """Right, but for a bin of large maps."""

    def forward(self, x):
        right = SideBySide()(x)
        if min(x.shape[2:]) > 20:
            right[:, 0] += 1
        return right


class Chatty(SideBySide):
    def forward(self, x):
        print("pooling")
        return super().forward(x)


class Listed(nn.Module):
    def forward(self, x):
        return [F.adaptive_max_pool2d(x, n) for n in LEVELS]


class Argued(nn.Module):
    def __init__(self, levels):
        super().__init__()
