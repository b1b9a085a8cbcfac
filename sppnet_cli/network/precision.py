"""What a network computes in when it is used: float32, or bfloat16 where the machine is quick at it."""

import copy
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from sppnet_cli.errors import UsageError

Precision = Literal["fp32", "bf16"]
M = TypeVar("M", bound=nn.Module)

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CPUS = Path("/proc/cpuinfo")
_INSTRUCTIONS = {"amx_bf16", "avx512_bf16", "bf16"}  # of x86 and, the last, of ARM


def require(precision: Precision, device: str = "cpu") -> torch.dtype:
    """The dtype of `precision`; raises `UsageError` for another name and where `device` is slow at it."""
    if precision not in DTYPES:
        raise UsageError(f"unknown precision {precision!r}: {' or '.join(DTYPES)}")
    if precision == "bf16" and not _fast_bf16(device):
        raise UsageError(
            f"bf16 would be slower than fp32 on this {device}, which lacks it; use precision fp32"
        )
    return DTYPES[precision]


def converted(module: M, dtype: torch.dtype) -> M:
    """`module` itself for float32, else a copy with weights of `dtype`, to be used without gradients."""
    return module if dtype == torch.float32 else copy.deepcopy(module).to(dtype).requires_grad_(False)


def _fast_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or not _CPUS.is_file():
        return False
    lines = _CPUS.read_text().splitlines()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _INSTRUCTIONS.isdisjoint(flags.split())
