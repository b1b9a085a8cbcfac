"""Weights of a trunk in the files of other programs."""

import argparse
import os
import shlex
import subprocess
import sys
import urllib.error
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from sppnet_cli.errors import DataError
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import (
    load_trunk_weights,
    read_state_dict,
)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="module")
def classifier():
    return torchvision.models.get_model("squeezenet1_1", weights=None)


def squeezenet(arch="squeezenet1_1"):
    return SPPNet(NetworkSpec(arch, levels=SPP6))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_the_trunk_takes_a_classifiers_features(tmp_path, classifier, whole, wrapped):
    state = {k: v for k, v in classifier.state_dict().items() if whole or k.startswith("features.")}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    network = squeezenet()
    load_trunk_weights(network, str(tmp_path / "net.pth"))
    assert_same(network.trunk.state_dict(), classifier.features.state_dict())


def test_a_safetensors_file_will_do(tmp_path, classifier):
    save_file(classifier.state_dict(), tmp_path / "net.safetensors")
    network = squeezenet()
    load_trunk_weights(network, str(tmp_path / "net.safetensors"))
    assert_same(network.trunk.state_dict(), classifier.features.state_dict())


@pytest.mark.parametrize(("file_of", "arch"), [("squeezenet1_0", "squeezenet1_1"), ("resnet34", "resnet18")])
def test_weights_of_another_arch(tmp_path, file_of, arch):
    # Every tensor of resnet18's trunk is in resnet34's file too, in the same shape.
    path = tmp_path / "other.pth"
    torch.save(torchvision.models.get_model(file_of, weights=None).state_dict(), path)
    network = squeezenet(arch)
    before = {k: v.clone() for k, v in network.trunk.state_dict().items()}
    with pytest.raises(DataError, match=r"other\.pth: weights of another architecture: ") as caught:
        load_trunk_weights(network, str(path))
    assert "\n" not in str(caught.value)
    assert_same(network.trunk.state_dict(), before)


def test_files_older_than_the_batch_counters(tmp_path):
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) == 102  # as in resnet18-5c106cde.pth
    torch.save(old, tmp_path / "old.pth")
    network = squeezenet("resnet18")
    load_trunk_weights(network, str(tmp_path / "old.pth"))
    assert torch.equal(network.trunk.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(network.trunk.bn1.running_var, state["bn1.running_var"])


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"weight": torch.zeros(1), "x": Malicious(f"touch {trace}")}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=r"bad\.pth: not a weights file"):
        read_state_dict(tmp_path / "bad.pth")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Readme: weights are elsewhere\n",  # R, N, } and q are opcodes of pickle
        b"Not found\n",
        b'}"error": "gone"}',
        b"quota exceeded\n",
        b"<!DOCTYPE html><html></html>\n",
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04",
        b"\x00" * 64,
    ],
)
def test_what_is_no_weights_file(tmp_path, content, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a weights file; give a") as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_off(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for length in (10, 1000, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"net\.pth: not a weights file"):
            read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.zeros(1)],
        torch.zeros(1),
        {"a": 1},
        {"state_dict": [1]},
        {1: torch.ones(1)},
    ],
)
def test_a_torch_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"x\.pth: holds no state dict"):
        read_state_dict(tmp_path / "x.pth")


def test_no_file_at_all(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(DataError, match="no such weights file"):
            read_state_dict(path)


def test_published_weights(monkeypatch):
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: old)
    network = squeezenet("resnet18")
    load_trunk_weights(network, "DEFAULT")
    assert torch.equal(network.trunk.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("failure", [urllib.error.URLError("no route"), RuntimeError("invalid hash value")])
def test_published_weights_that_cannot_be_had(monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(DataError, match=r"squeezenet1_1 DEFAULT: the download failed.*--weights"):
        load_trunk_weights(squeezenet(), "DEFAULT")


def test_nobody_publishes_zf5():
    with pytest.raises(DataError, match="zf5 DEFAULT"):
        load_trunk_weights(SPPNet(NetworkSpec("zf5", 0.0625)), "DEFAULT")


def test_a_download_leaves_standard_output_alone(tmp_path, monkeypatch, capsys):
    state = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, file, *_, **__: torch.save(state, file)
    )
    network = SPPNet(NetworkSpec("squeezenet1_1"))
    load_trunk_weights(network, "DEFAULT")
    assert torch.equal(network.trunk[0].weight, state["features.0.weight"])
    said = capsys.readouterr()
    assert said.out == ""
    assert "Downloading" in said.err


WRAPPED = {
    "module": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "both": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "inside": lambda state: {k.replace("features.", "features._orig_mod."): v for k, v in state.items()},
    "lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
    "model": lambda state: {"model": state, "epoch": 3},
    "nested": lambda state: {"model": {"state_dict": state}},
    "averaged": lambda state: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in state.items()}},
    "references": lambda state: {
        "model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "lr_scheduler": {"T": 1}, "epoch": 9,
        "args": argparse.Namespace(lr=0.1, data_path="/data", output_dir=Path("out")), "scaler": None,
    },
    "ema": lambda state: {"ema": {"module": state, "decay": 0.999}, "updates": 7},
    "model_ema": lambda state: {"model_ema": {f"module.{k}": v for k, v in state.items()}, "iteration": 3},
    "params": lambda state: {"params": state},
    "student": lambda state: {"student": {f"module.backbone.{k}": v for k, v in state.items()}, "epoch": 1},
    "encoder": lambda state: {f"encoder.{k}": v for k, v in state.items()},
    "moments": lambda state: {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}, "loss": {"weight": torch.ones(5)}, "model": state,
    },
    "best": lambda state: {"state_dict": state, "best_acc1": np.float64(61.5), "seen": defaultdict(list)},
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_weights_in_the_wrappers_of_training_code(tmp_path, classifier, wrapper):
    state = WRAPPED[wrapper](classifier.state_dict())
    torch.save(state, tmp_path / "net.pth")
    network = squeezenet()
    load_trunk_weights(network, str(tmp_path / "net.pth"))
    assert_same(network.trunk.state_dict(), classifier.features.state_dict())


def test_several_state_dicts_are_named(tmp_path, classifier):
    state = classifier.state_dict()
    torch.save({"generator": state, "critics": {"a": state}, "epoch": 1}, tmp_path / "net.pth")
    with pytest.raises(
        DataError, match=r"holds the state dicts generator, critics\.a; give a file that holds one"
    ):
        read_state_dict(tmp_path / "net.pth")


def test_the_content_tells_the_format(tmp_path, classifier):
    save_file(classifier.state_dict(), tmp_path / "net.pth")
    torch.save(classifier.state_dict(), tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        assert_same(read_state_dict(tmp_path / name), classifier.state_dict())
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n")
    with pytest.raises(
        DataError, match=r"lfs\.pth: is a pointer of Git LFS; `git lfs pull` gets the weights"
    ):
        read_state_dict(tmp_path / "lfs.pth")


def test_a_wrapper_in_safetensors(tmp_path, classifier):
    save_file({f"module.{k}": v for k, v in classifier.state_dict().items()}, tmp_path / "net.safetensors")
    assert_same(read_state_dict(tmp_path / "net.safetensors"), classifier.state_dict())


def pickled_module(path, net):
    torch.save(net, path)


def module_in_a_checkpoint(path, net):
    torch.save({"epoch": 1, "model": net}, path)


def script(path, net):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(net, torch.zeros(1, 3, 64, 64)).save(path)


@pytest.mark.parametrize("save", [pickled_module, module_in_a_checkpoint, script])
def test_the_line_that_unwraps_what_is_not_loaded(tmp_path, classifier, save, monkeypatch):
    path = tmp_path / "my net.pt"
    save(path, classifier.eval())
    with pytest.raises(DataError, match=r"my net\.pt: .* is not loaded; if you trust it") as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert "\n" not in text
    line = text[text.index("(python") + 1 : text.rindex(") and give my net.weights.pth")]
    monkeypatch.chdir(tmp_path)
    subprocess.run(shlex.split(line.replace("python", sys.executable, 1)), check=True, capture_output=True)
    assert_same(read_state_dict(tmp_path / "my net.weights.pth"), classifier.state_dict())
