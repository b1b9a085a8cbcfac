"""Triton's interpreter must be asked for before Triton is imported, hence another process."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import itertools

import numpy as np
import torch

from sppnet_cli.kernels.pooling import plan_of, pool_windows
from sppnet_cli.kernels.triton_pooling import pool_on_gpu
from sppnet_cli.kernels.pyramid import bin_count

cells = np.array([[0, 0, 8, 6], [3, 2, 3, 2], [8, 6, 8, 6], [0, 1, 8, 1], [2, 0, 4, 6]], np.int32)
rows = np.array([3, 0, 6, 5, 1])
pyramids = [((1, 2, 3, 6), 5), ((1, 2, 3, 4), 300), ((5,), 3), ((3, 7), 8)]  # 300 channels are two blocks
for (levels, channels), dtype in itertools.product(pyramids, (torch.float32, torch.bfloat16)):
    maps = torch.randn(7, 9, channels, generator=torch.Generator().manual_seed(0)).to(dtype)
    vectors = torch.full((7, channels * bin_count(levels)), -9.0, dtype=dtype)
    pool_on_gpu(vectors, rows, maps, cells, plan_of(levels))
    assert torch.equal(vectors[rows], pool_windows(maps, cells, levels))
    assert (vectors[[2, 4]] == -9).all()
"""

COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sppnet_cli.kernels.pooling import plan_of
from sppnet_cli.kernels.triton_pooling import _pool

plan = tuple(plan_of((1, 2, 3, 6)).ravel().tolist())
kinds = ["*bf16", "*i32", "*i64", "*bf16", "i32", "i32", "i32", "constexpr", "constexpr"]
signature = dict(zip(_pool.arg_names, kinds, strict=True))
source = ASTSource(_pool, signature, {"PLAN": plan, "BLOCK": 64})
assert "st.global" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
"""


def run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr


def test_the_same_bits_as_on_the_cpu():
    run(INTERPRETED, TRITON_INTERPRET="1")


def test_it_compiles_for_a_gpu(tmp_path):
    run(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
