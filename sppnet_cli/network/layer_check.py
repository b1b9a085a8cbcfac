"""Is it SPP?  Anybody's layer against the definition of spatial pyramid pooling, and the known mistakes by name."""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.kernels.pyramid import bin_edges

_LONGEST = 40  # cells
_LENGTHS = range(1, _LONGEST + 1)
# (H, W): every length from 1 to 40 as a square, then twice beside another length.
SIZES = (
    *((a, a) for a in _LENGTHS),
    *((a, _LONGEST + 1 - a) for a in _LENGTHS),
    *((a, 7 * a % _LONGEST + 1) for a in _LENGTHS),
)
_IMAGES, _CHANNELS = 2, 3

MISTAKES = {
    "ceil": "kernel and stride are both ceil(a/n), and padding makes up the rest: bins reach into the padding "
    "or hold fewer cells than their neighbours",
    "floor": "kernel and stride are both int(a/n): the remainder is dropped, or there are more than n x n bins",
    "sliding": "kernel ceil(a/n) and stride floor(a/n), the paper's own sliding windows: 10 cells give 9 x 9 bins "
    "for 6 x 6, and lose the last row and column for other n",
    "powers": "levels have 2^l x 2^l bins in place of the levels asked for",
    "average": "bins are averaged; the pyramid takes their maximum",
    "order": "the bins are in another order: levels ascend, and in a level it is c*n*n + row*n + column",
    "batch": "the batch is folded into the bins: what an image gives depends on the images beside it",
    "yolo": 'it returns maps of the size of its input, as YOLO\'s "SPP" does, which is another layer',
}


@dataclass(frozen=True)
class Bin:
    """A bin whose value is wrong."""

    level: int  # bins per side
    row: int
    column: int
    cells: tuple[int, int, int, int]  # x1, y1, x2, y2, inclusive
    difference: float  # the largest over images and channels; cells are whole numbers in random order


@dataclass(frozen=True)
class Finding:
    """What a layer does wrong on maps of one size: an error, another shape, or wrong bins."""

    size: tuple[int, int]  # (H, W) in cells
    error: str | None = None
    shape: tuple[int, ...] | None = None
    bins: tuple[Bin, ...] = ()


@dataclass(frozen=True)
class LayerCheck:
    """What `check_layer` found."""

    findings: tuple[Finding, ...]  # of the sizes at which the layer differs from the definition
    mistakes: tuple[str, ...]  # keys of `MISTAKES`; empty where it is none of them, or there is none

    @property
    def equal(self) -> bool:
        """Whether the layer is spatial pyramid pooling."""
        return not self.findings


def load_layer(file: Path, name: str) -> Callable[[Tensor], Any]:
    """An instance of the class `name` of a Python file, made without arguments; a module in evaluation mode.

    Runs the file, whose folder may hold other modules that it imports.  Raises `DataError` for a file that is missing
    or cannot be run, `UsageError` for a class that it lacks or that takes arguments.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file; give FILE.py:CLASS")
    spec = importlib.util.spec_from_file_location(f"layer_of_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise DataError(f"{file}: not a Python file; give FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - anybody's code
        raise DataError(f"{file}: cannot be run ({_reason(error)})") from None
    finally:
        sys.path.pop(0)
    made = getattr(module, name, None)
    if not isinstance(made, type):
        known = ", ".join(
            k for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, nn.Module)
        )
        raise UsageError(f"{file}: has no class {name}{f'; it has {known}' if known else ''}")
    try:
        layer = made()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - anybody's code
        raise UsageError(
            f"{file}: {name}() fails ({_reason(error)}); write a class that needs no arguments"
        ) from None
    if not callable(layer):
        raise UsageError(f"{file}: {name} is no layer: its instances cannot be called")
    return layer.eval() if isinstance(layer, nn.Module) else layer


@torch.no_grad()
def check_layer(layer: Callable[[Tensor], Any], levels: tuple[int, ...]) -> LayerCheck:
    """Compare a layer with the definition on maps `(N, C, H, W)` of every one of `SIZES`, batches of 2 and of 1.

    The layer is to return `(N, C * bins)` in the layout of `SpatialPyramidPooling`.  The maps hold distinct whole
    numbers, negative ones too, so that equal means equal to the last bit.
    """
    levels = tuple(sorted(levels))
    findings, alone, folded = [], {}, False
    for size in SIZES:
        maps = _maps(size)
        expected = _definition_of(maps, levels)
        try:
            found = _called(layer, maps)
            each = torch.cat([_called(layer, one) for one in maps.split(1)])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - anybody's code
            findings.append(Finding(size, error=_reason(error)))
            continue
        alone[size] = each
        folded |= not _same(found, each)
        if found.shape != expected.shape:
            findings.append(Finding(size, shape=tuple(found.shape)))
        elif not torch.equal(found.to(expected.dtype), expected):
            findings.append(Finding(size, bins=tuple(_differing(found, expected, levels, size))))
    if not findings:
        return LayerCheck((), ())
    known = _recognised(alone, levels)
    return LayerCheck(tuple(findings), (*(["batch"] if folded else []), *known))


def _maps(size: tuple[int, int]) -> Tensor:
    """Distinct whole numbers around zero in random order, `(2, 3, H, W)` float32."""
    count = _IMAGES * _CHANNELS * size[0] * size[1]
    numbers = torch.randperm(count, generator=torch.Generator().manual_seed(count)) - count // 2
    return numbers.float().view(_IMAGES, _CHANNELS, *size)


def _called(layer: Callable[[Tensor], Any], maps: Tensor) -> Tensor:
    found = layer(maps.clone())
    if not isinstance(found, Tensor):
        raise TypeError(f"it returns a {type(found).__name__}, not a tensor")
    return found.detach().cpu()


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-5, atol=1e-3, equal_nan=True)


def _differing(
    found: Tensor, expected: Tensor, levels: tuple[int, ...], size: tuple[int, int]
) -> Iterator[Bin]:
    difference = torch.where(found == expected, 0.0, (found.float() - expected).abs()).nan_to_num(torch.inf)
    lengths = [_CHANNELS * n * n for n in levels]
    for n, part in zip(levels, difference.split(lengths, dim=1), strict=True):
        largest = part.view(_IMAGES, _CHANNELS, n, n).amax(dim=(0, 1))
        for row, column in largest.nonzero().tolist():
            (top, bottom), (left, right) = bin_edges(size[0], n)[row], bin_edges(size[1], n)[column]
            cells = (left, top, right - 1, bottom - 1)
            yield Bin(n, row, column, cells, float(largest[row, column]))


# A grid gives the bins `(N, C, rows, columns)` of one level of n, by the maximum or by the mean; None where it has none.
Grid = Callable[[Tensor, int, bool], Tensor | None]


def _definition(maps: Tensor, n: int, mean: bool) -> Tensor:
    if mean:
        return F.adaptive_avg_pool2d(maps, n)
    rows, columns = (bin_edges(extent, n) for extent in maps.shape[2:])
    bins = [
        maps[:, :, top:bottom, left:right].amax(dim=(2, 3)) for top, bottom in rows for left, right in columns
    ]
    return torch.stack(bins, dim=2).unflatten(2, (n, n))


def _definition_of(maps: Tensor, levels: tuple[int, ...]) -> Tensor:
    return torch.cat([_definition(maps, n, mean=False).flatten(1) for n in levels], dim=1)


def _slid(maps: Tensor, kernel: list[int], stride: list[int], mean: bool) -> Tensor | None:
    if min(kernel + stride) < 1 or kernel[0] > maps.shape[2] or kernel[1] > maps.shape[3]:
        return None
    return (F.avg_pool2d if mean else F.max_pool2d)(maps, kernel, stride)


def _floor(maps: Tensor, n: int, mean: bool, *, only_n: bool) -> Tensor | None:
    kernel = [extent // n for extent in maps.shape[2:]]
    bins = _slid(maps, kernel, kernel, mean)
    return bins[:, :, :n, :n] if only_n and bins is not None else bins


def _sliding(maps: Tensor, n: int, mean: bool) -> Tensor | None:
    kernel = [math.ceil(extent / n) for extent in maps.shape[2:]]
    return _slid(maps, kernel, [extent // n for extent in maps.shape[2:]], mean)


def _ceil(
    maps: Tensor, n: int, mean: bool, *, pads: Callable[[int], tuple[int, int]], value: float
) -> Tensor | None:
    kernel = [math.ceil(extent / n) for extent in maps.shape[2:]]
    rows, columns = (pads(k * n - extent) for k, extent in zip(kernel, maps.shape[2:], strict=True))
    return _slid(F.pad(maps, (*columns, *rows), value=value), kernel, kernel, mean)


# What a padding of `rest` cells in all is made of, before and after.
_PADS: tuple[Callable[[int], tuple[int, int]], ...] = (
    lambda rest: ((rest + 1) // 2, (rest + 1) // 2),
    lambda rest: (rest // 2, rest // 2),
    lambda rest: (rest // 2, rest - rest // 2),
    lambda rest: (rest - rest // 2, rest // 2),
    lambda rest: (0, rest),
)
_GRIDS: tuple[tuple[str | None, Grid], ...] = (
    (None, _definition),
    *(("ceil", partial(_ceil, pads=p, value=v)) for p in _PADS for v in (-math.inf, 0.0)),
    *(("floor", partial(_floor, only_n=only)) for only in (True, False)),
    ("sliding", _sliding),
)
_LAYOUTS = ((1, 2, 3), (1, 3, 2), (2, 3, 1), (3, 2, 1))  # axes of (N, C, row, column) in a level


def _candidates(
    levels: tuple[int, ...],
) -> Iterator[tuple[tuple[str, ...], Callable[[Tensor], Tensor | None]]]:
    """Every combination of the mistakes that show in single images, fewest first, and what it gives."""
    count = len(levels)
    powers = {tuple(2**k for k in exponents) for exponents in (range(count), range(1, count + 1), levels)}
    pyramids = [(None, levels), *(("powers", p) for p in sorted(powers - {levels}))]
    orders = [
        (None if (step, layout) == (1, _LAYOUTS[0]) else "order", (step, layout))
        for step in (1, -1)
        for layout in _LAYOUTS
    ]
    means = [(None, False), ("average", True)]
    found = []
    for (p, pyramid), (g, grid), (m, mean), (o, order) in itertools.product(pyramids, _GRIDS, means, orders):
        names = tuple(name for name in (g, p, m, o) if name is not None)
        found.append((names, partial(_pooled, levels=pyramid, grid=grid, mean=mean, order=order)))
    return iter(sorted(found, key=lambda candidate: len(candidate[0])))


def _pooled(
    maps: Tensor, levels: tuple[int, ...], grid: Grid, mean: bool, order: tuple[int, tuple[int, ...]]
) -> Tensor | None:
    step, layout = order
    parts = []
    for n in levels[::step]:
        bins = grid(maps, n, mean)
        if bins is None:
            return None
        parts.append(bins.permute(0, *layout).flatten(1))
    return torch.cat(parts, dim=1)


def _recognised(alone: dict[tuple[int, int], Tensor], levels: tuple[int, ...]) -> tuple[str, ...]:
    """The fewest mistakes that explain what a layer gives for single images at all sizes where it gives something."""
    sizes = list(alone)[::-1]
    if sizes and all(alone[size].ndim == 4 and alone[size].shape[2:] == size for size in sizes):
        return ("yolo",)
    for names, candidate in _candidates(levels):
        agree = 0
        for size in sizes:
            given = candidate(_maps(size))
            if given is not None:
                if not _same(given, alone[size]):
                    break
                agree += 1
        else:
            if agree:
                return names
    return ()
