import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sppnet_cli.benchmark import detect, images, train
from sppnet_cli.benchmark.result import Benchmark
from sppnet_cli.evaluation import limits
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import save_network

OF_POOLING = {
    "windows", "map_shape", "seconds", "roi_pool_seconds", "speedup_vs_roi_pool", "write_limit_seconds",
    "times_write_limit", "bit_identical",
}  # fmt: skip
OF_SIDES = {
    "conv_seconds", "pool_seconds", "fc_seconds", "total_seconds", "windows", "conv_flops", "conv_gflops_per_second",
}  # fmt: skip
OF_SPP = OF_SIDES | {"conv_speedup_vs_rcnn", "conv_flops_ratio", "speedup_vs_rcnn", "times_gemm_floor"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small products of matrices, and proposals that take no time."""
    monkeypatch.setitem(limits._GEMM_SIDE, "cpu", 64)
    for module in (detect, images):
        monkeypatch.setattr(module, "propose", lambda *_: np.array([[0, 0, 49, 49.0]], np.float32))


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 16, 5))
    (tmp_path / "network").mkdir()
    save_network(net, tmp_path / "network")
    return tmp_path / "network"


def test_pooling_under_the_names_that_scripts_read(sppnet, tmp_path):
    code, out, err = sppnet("benchmark", "pooling", "--windows", 20, "--repeats", 1, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found.keys() >= OF_POOLING
    assert found["map_shape"] == [43, 58, 256]
    assert found["bit_identical"] is True
    assert "benchmark pooling" in err
    written = json.loads((tmp_path / "results" / "benchmark" / "pooling.json").read_text())
    assert {name: written[name] for name in found} == found


def test_detect_under_the_names_that_scripts_read(sppnet, tmp_path, network):
    code, out, err = sppnet(
        *("benchmark", "detect", "--network", network, "--windows", 6, "--rcnn-windows", 2),
        *("--repeats", 1, "--out", tmp_path / "here", "--json", "--quiet"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["rcnn"].keys() >= OF_SIDES
    for side in ("spp_1scale", "spp_5scale"):
        assert found[side].keys() >= OF_SPP
    assert found.keys() >= {"gemm_gflops", "precision", "threads", "device", "images"}
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        "detect.csv",
        "detect.json",
        "detect.png",
    }


def test_a_table_is_printed(sppnet):
    code, out, err = sppnet("benchmark", "svm", "--windows", 40, "--images", 40, "--repeats", 1)
    assert code == 0, err
    assert out.startswith("benchmark svm\n")
    assert "transfer" in out
    assert "nan" not in out
    assert "written to results/benchmark/svm.csv, results/benchmark/svm.json" in err


@pytest.mark.parametrize("name", ["pooling", "detect", "pretrain", "extract", "svm", "scaling", "train"])
def test_every_subject_has_help(sppnet, name):
    code, out, _ = sppnet("benchmark", name, "--help")
    assert code == 0
    assert ("--repeats" in out) == (name != "train")  # a training is not repeated


def test_train_under_the_names_that_scripts_read(sppnet, tmp_path, monkeypatch):
    column = {"processor_seconds": 2.0, "wall_seconds": 1.0, "epochs": None, "mAP": 0.5}
    other = column | {"epochs": 3.0, "mAP": 0.25}
    table = pd.DataFrame([{"side": "sppnet train"} | column, {"side": "theirs"} | other])
    seen = []

    def measure(config, data):
        seen.append((config.arch, config.weights, config.times, config.seed, data))
        return Benchmark("train", {"sides": {"sppnet train": column}}, table, "how to read it")

    monkeypatch.setattr(train, "benchmark_train", measure)
    given = ("benchmark", "train", "--data", "mine", "--weights", "a.pth", "--seed", 3)
    code, out, err = sppnet(*given)
    assert code == 0, err
    assert seen == [("squeezenet1_1", "a.pth", (1, 2, 4), 3, Path("mine"))]
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["sppnet", "train", "2", "1", "0.5"],
        ["theirs", "2", "1", "3", "0.25"],
    ]
    assert "how to read it" in err
    assert json.loads((tmp_path / "results/benchmark/train.json").read_text())["sides"].keys() == {
        "sppnet train"
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["detect", "--rcnn-windows", "some"], 2, "--rcnn-windows some: write a number of windows or all"),
        (["detect", "--rcnn-windows", "0"], 2, "--rcnn-windows 0"),
        (["detect", "--data", "nowhere"], 3, "nowhere: no such folder"),
        (["extract", "--network", "nowhere"], 3, "nowhere"),
        (["pretrain", "--data", "nowhere"], 3, "nowhere: no such folder"),
        (["train"], 2, "--data"),
        (["pooling", "--device", "gpu"], 2, "--device gpu"),
    ],
)
def test_a_wrong_call_is_one_line(sppnet, arguments, code, message):
    found, out, err = sppnet("benchmark", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
