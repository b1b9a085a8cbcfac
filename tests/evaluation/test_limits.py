import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sppnet_cli import provenance
from sppnet_cli.evaluation import limits
from sppnet_cli.libraries import linear_library


@pytest.fixture
def clock(monkeypatch):
    """Replaces the module's clock; `clock.now` is moved by what is timed."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("sppnet_cli.clock.time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_the_shortest_call_counts_but_for_the_first(clock):
    seconds = iter([1.0, 5.0, 3.0, 4.0])  # the first warms up

    def call():
        clock.now += next(seconds)

    assert limits.best_seconds(call, 3) == 3.0
    assert next(seconds, None) is None


@pytest.mark.parametrize(
    "seconds", [{"mkl": 2e-6, "onednn": 5e-6}, {"mkl": 5e-6, "onednn": 2e-6}, {"mkl": 2e-6}]
)
def test_operations_per_second_by_hand(clock, monkeypatch, seconds):
    """A product of matrices of 8 numbers a side takes 2 * 8^3 = 1,024 operations; the quicker library counts."""
    monkeypatch.setitem(limits._GEMM_SIDE, "cpu", 8)

    def taking(duration):
        def product(a, b):
            assert a.shape == b.shape == (8, 8)
            clock.now += duration

        return product

    monkeypatch.setattr(limits, "products", lambda: {name: taking(own) for name, own in seconds.items()})
    assert limits.gemm_gflops() == pytest.approx(0.512)


def test_other_precisions_are_torchs_own(clock, monkeypatch):
    monkeypatch.setitem(limits._GEMM_SIDE, "cpu", 8)
    product = torch.mm

    def slowly(a, b, *, out):
        assert a.dtype == torch.bfloat16
        clock.now += 2e-6
        return product(a, b, out=out)

    monkeypatch.setattr(torch, "mm", slowly)
    assert limits.gemm_gflops(dtype=torch.bfloat16) == pytest.approx(0.512)


def test_the_bandwidth_by_hand(clock, monkeypatch):
    def slowly(count, device):
        def call():
            clock.now += 0.5

        return call

    monkeypatch.setattr(limits, "writer", slowly)
    assert limits.write_bandwidth(1000) == 2000


@pytest.mark.parametrize(("count", "threads"), [(1, 1), (1000, 1), (1001, 3), (2, 3)])
def test_every_byte_is_written_each_time(count, threads, torch_threads, monkeypatch):
    torch_threads(threads)
    memory = np.ones(count, dtype=np.uint8)
    monkeypatch.setattr(limits.np, "ones", lambda *_, **__: memory)
    write = limits.writer(count)
    for _ in range(2):
        memory[:] = 7
        write()
        assert (memory == 1).all()


def test_limits_of_this_machine(monkeypatch):
    monkeypatch.setitem(limits._GEMM_SIDE, "cpu", 64)
    assert limits.gemm_gflops(repeats=1) > 0
    assert limits.write_bandwidth(10_000, repeats=1) > 0


def test_float32_for_a_while():
    before = torch.backends.cudnn.allow_tf32
    with limits.float32_everywhere():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_machine_is_described(torch_threads):
    torch_threads(2)
    about = json.loads(json.dumps(limits.machine()))
    assert about["cpu"]
    assert about["threads"] == 2
    assert about["device"] == "cpu"
    assert about["linear_library"] == linear_library()
    assert "gpu" not in about
    assert about.items() >= provenance.environment().items()


def test_the_processor_of_linux_or_of_the_platform(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(limits, "_CPUS", file)
    monkeypatch.setattr(limits.platform, "processor", lambda: "")
    monkeypatch.setattr(limits.platform, "machine", lambda: "arm64")
    assert limits.machine()["cpu"] == "arm64"
    cores = itertools.repeat("processor\t: 0\nmodel name\t: Quick 3000\nflags\t\t: fpu\n\n", 2)
    file.write_text("".join(cores))
    assert limits.machine()["cpu"] == "Quick 3000"
