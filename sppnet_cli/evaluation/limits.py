"""The limits of this machine, measured, to compare times with; and the record of which machine it is."""

import ctypes
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.backends import cudnn

from sppnet_cli.clock import Clock
from sppnet_cli.kernels.linear import products
from sppnet_cli.libraries import linear_library
from sppnet_cli.provenance import environment

_GEMM_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
_CPUS = Path("/proc/cpuinfo")


def gemm_gflops(device: str = "cpu", repeats: int = 5, dtype: torch.dtype = torch.float32) -> float:
    """10^9 floating-point operations per second in products of square matrices of `dtype`, the best of `repeats`.

    On the CPU in as many threads as torch uses, and in float32 by the quicker of the libraries of `kernels.linear`.  Two
    operations for every multiply-add, as in `network.flops`.
    """
    side = _GEMM_SIDE[device.partition(":")[0]]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(side, side, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(a)
    calls: list[Callable[[], object]] = [lambda: torch.mm(a, b, out=out)]
    if device == "cpu" and dtype == torch.float32:
        calls = [partial(product, a, b) for product in products().values()]
    return 2 * side**3 / min(best_seconds(call, repeats, device) for call in calls) / 1e9


def writer(count: int, device: str = "cpu") -> Callable[[], object]:
    """A function that writes `count` bytes to the same memory each time: the least that a result of that size costs.

    The memory is allocated beforehand, so that no page faults.  On a CPU as many threads as torch uses share the
    work, each by the C library's `memset`, which is the fastest way to write.  The bytes are not zero: some processors
    clear memory faster than they write anything else to it (AMD's Zen 5 twice as fast).
    """
    if device != "cpu":
        memory_there = torch.zeros(count, dtype=torch.uint8, device=device)
        return lambda: memory_there.fill_(1)
    memory = np.ones(count, dtype=np.uint8)
    parts = np.array_split(memory, torch.get_num_threads())
    if len(parts) == 1:
        return lambda: _write(memory)
    threads = ThreadPoolExecutor(len(parts))
    return lambda: list(threads.map(_write, parts))


def write_bandwidth(count: int, device: str = "cpu", repeats: int = 5) -> float:
    """Bytes per second of `writer`, the best of `repeats`."""
    return count / best_seconds(writer(count, device), repeats, device)


@contextmanager
def float32_everywhere() -> Iterator[None]:
    """Run convolutions on a GPU in full float32, like its matrix products; torch's default is TF32."""
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


@contextmanager
def in_threads(count: int) -> Iterator[None]:
    """Let torch compute in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_seconds(call: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Seconds of the shortest of `repeats` calls, after one to warm up."""
    call()
    clock = Clock(device)
    seconds = []
    for _ in range(repeats):
        clock.lap()
        call()
        seconds.append(clock.lap())
    return min(seconds)


def machine(device: str = "cpu") -> dict[str, Any]:
    """What a time was measured on: processor, device, threads (of torch's), library of fc layers, `runs.environment`."""
    accelerator = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    return {
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
        "linear_library": linear_library(),
        **accelerator,
        **environment(),
    }


def _processor() -> str:
    """The processor's model name: Linux's, or the platform module's."""
    lines = _CPUS.read_text().splitlines() if _CPUS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write(memory: np.ndarray) -> None:
    ctypes.memset(memory.ctypes.data, 1, memory.nbytes)
