import pytest
import torch
from torch import nn

from sppnet_cli.errors import UsageError
from sppnet_cli.network import precision
from sppnet_cli.network.precision import converted, require

XEON = "processor : 0\nmodel name : Xeon\nflags : fpu avx512f amx_bf16 amx_tile\nbugs : none\n"
ZEN4 = "flags\t\t: fpu avx512f avx512_bf16\n"
GRAVITON3 = "processor : 0\nFeatures : fp asimd bf16 i8mm\n"
SKYLAKE = "model name : bf16 at heart\nflags : fpu avx512f avx512bw\n"


def cpu(monkeypatch, tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(precision, "_CPUS", path)


@pytest.mark.parametrize("text", [XEON, ZEN4, GRAVITON3])
def test_machines_that_are_quick_at_bf16(text, monkeypatch, tmp_path):
    cpu(monkeypatch, tmp_path, text)
    assert require("bf16") == torch.bfloat16


@pytest.mark.parametrize("text", [SKYLAKE, ""])
def test_machines_that_are_not(text, monkeypatch, tmp_path):
    cpu(monkeypatch, tmp_path, text)
    assert require("fp32") == torch.float32
    with pytest.raises(UsageError, match="slower than fp32 on this cpu, which lacks it; use precision fp32"):
        require("bf16")


def test_where_nothing_tells(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_CPUS", tmp_path / "none")
    with pytest.raises(UsageError, match="use precision fp32"):
        require("bf16")


def test_other_precisions():
    with pytest.raises(UsageError, match="unknown precision 'fp16': fp32 or bf16"):
        require("fp16")


def test_the_module_keeps_its_float32():
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    half = converted(module, torch.bfloat16)
    assert half.weight.dtype == torch.bfloat16
    assert not half.weight.requires_grad
    assert torch.equal(module.weight, before)
    assert module.weight.requires_grad
    assert converted(module, torch.float32) is module
