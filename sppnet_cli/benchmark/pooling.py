"""Benchmark of window pooling: ours, torchvision's `roi_pool`, and writing the result."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import roi_pool

from sppnet_cli.benchmark.images import benchmark_windows, drawn_image, window_source
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.evaluation.limits import machine, writer
from sppnet_cli.evaluation.timing import take_turns
from sppnet_cli.kernels.pooling import pool_windows
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.geometry import window_cells
from sppnet_cli.network.precision import Precision, require
from sppnet_cli.network.receptive import geometry_of
from sppnet_cli.protocols import PAPER, MappingRules, take


@dataclass(frozen=True)
class PoolingConfig:
    """Settings; the defaults are the map of a photograph at 688 px, of a full-width ZF-5."""

    windows: int = 2000
    map_shape: tuple[int, int, int] = (43, 58, 256)  # height, width, channels
    levels: tuple[int, ...] = SPP6
    repeats: int = 5
    seed: int = 0
    precision: Precision = "fp32"


def benchmark_pooling(config: PoolingConfig, device: str = "cpu") -> Benchmark:
    """Time the pyramid vectors of selective search's windows, and compare them bit by bit with `roi_pool`'s.

    In bf16 `roi_pool` pools the same numbers in fp32, since on a CPU it knows no other; its result is then rounded to
    compare it.  The other side is one `roi_pool` call per level on a map in its own memory order, without concatenating the results.
    On the CPU, where `roi_pool` uses one thread, it is also timed with the windows divided among torch's threads.
    """
    dtype = require(config.precision, device)
    height, width, channels = config.map_shape
    generator = torch.Generator().manual_seed(config.seed)
    maps = torch.randn(height, width, channels, generator=generator).relu().to(device, dtype)
    image = drawn_image(config.seed, 0)
    boxes = benchmark_windows(image, config.windows, config.seed)
    geometry = geometry_of(build_trunk("zf5", 1 / 16)[0])
    scale = PAPER.single_scale
    cells = window_cells(boxes, image.shape[:2], scale, (height, width), geometry, take(MappingRules, PAPER))

    batch = maps.float().permute(2, 0, 1)[None].contiguous()
    rois = torch.cat([torch.zeros(len(cells), 1), torch.from_numpy(cells)], dim=1).to(batch)

    def call_roi_pool(part: Tensor = rois) -> list[Tensor]:
        return [roi_pool(batch, part, n).flatten(1) for n in config.levels]

    ours = pool_windows(maps, cells, config.levels)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: pool_windows(maps, cells, config.levels),
        "roi_pool": call_roi_pool,
        "write_limit": writer(ours.nbytes, device),
    }
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        if device == "cpu" and threads > 1:
            sides["roi_pool_threaded"] = lambda: list(pool.map(call_roi_pool, rois.chunk(threads)))
        seconds = take_turns(sides, config.repeats, device, warm=True)
    record = {
        "windows": len(cells),
        "windows_from": window_source(),
        "precision": str(dtype).removeprefix("torch."),
        "map_shape": list(config.map_shape),
        "levels": list(config.levels),
        "seconds": seconds["ours"],
        **{f"{side}_seconds": of_side for side, of_side in seconds.items() if side != "ours"},
        "speedup_vs_roi_pool": seconds["roi_pool"] / seconds["ours"],
        "times_write_limit": seconds["ours"] / seconds["write_limit"],
        "bit_identical": torch.equal(ours, torch.cat(call_roi_pool(), dim=1).to(dtype)),
        "bytes": ours.nbytes,
        "repeats": config.repeats,
        "seed": config.seed,
        "machine": machine(device),
    }
    rows = [(side, of_side, of_side / seconds["ours"]) for side, of_side in seconds.items()]
    same = "the same" if record["bit_identical"] else "NOT the same"
    note = (
        f"{len(cells)} windows of a map of {height}x{width}x{channels}, levels {config.levels}: bit by bit {same} as "
        f"roi_pool's.  write_limit writes the result's {ours.nbytes / 1e6:.0f} MB into memory that is already allocated."
    )
    return Benchmark("pooling", record, pd.DataFrame(rows, columns=["side", "seconds", "times_ours"]), note)
