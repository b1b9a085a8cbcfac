"""`make check-gpu` without a GPU, and what it would run there: on the stand-in, without OpenCV and defusedxml."""

import json
import os
import subprocess
import sys
from pathlib import Path

import check_gpu
import pytest
import torch

TESTS = Path(__file__).parent
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cv2", "defusedxml"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Blocked())
"""
MARK = "pytest.mark." + "gpu"
# Fewer windows and sizes than on a GPU.
LESS = "not 20000 and not size4 and not 64"


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + script, *map(str, arguments)],
        cwd=TESTS.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_all_tests_of_a_gpu_on_the_stand_in():
    pytest.importorskip("torch.utils.backend_registration")
    script = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ("-q", "-n", "0", "-p", "no:cacheprovider", "-m", "gpu", "-k", LESS)
    done = run(script, *options, TESTS / "gpu", SPPNET_STAND_IN="1")
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def test_tests_of_a_gpu_are_where_it_looks_for_them():
    elsewhere = [
        path for path in TESTS.rglob("test_*.py") if path.parent.name != "gpu" and MARK in path.read_text()
    ]
    assert elsewhere == []
    for path in (TESTS / "gpu").glob("test_*.py"):
        assert f"pytestmark = {MARK}" in path.read_text(), path


BENCHMARKS = """
from dataclasses import replace
from sppnet_cli.benchmark import detect, pooling, pretrain
from sppnet_cli.evaluation import limits
from sppnet_cli.benchmark.result import write_benchmark
from pathlib import Path

limits._GEMM_SIDE["cpu"] = 64
detect.PAPER = replace(detect.PAPER, scales=(96, 128, 160), single_scale=128)
out, network = map(Path, sys.argv[1:])
for result in (
    pooling.benchmark_pooling(pooling.PoolingConfig(windows=20, map_shape=(12, 16, 8), repeats=1)),
    detect.benchmark_detect(detect.DetectSpeed(windows=9, rcnn_windows=2, repeats=1), network=network),
    pretrain.benchmark_pretrain(pretrain.PretrainSpeed(batch=2, batches=1, width=0.0625, fc=16, repeats=1)),
):
    write_benchmark(result, out)
"""


def test_the_benchmarks_without_opencv(window_network, tmp_path):
    done = run(BENCHMARKS, tmp_path, window_network)
    assert done.returncode == 0, done.stderr[-5000:]
    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in check_gpu.BENCHMARKS}
    assert records["pooling"]["windows_from"] == records["detect"]["windows_from"] == "random"
    assert records["detect"]["proposals"] == {}
    assert records["detect"]["image_sizes"] == [[375, 500]]
    # The names that the goals are read from.
    goals = check_gpu.goals({f"{name}_fp32": record for name, record in records.items()})
    assert len(goals) == 7
    assert all(goal["measured"] > 0 for goal in goals.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, TESTS / "check_gpu.py", "--out", tmp_path / "check.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"check-gpu: torch {torch.__version__} finds no GPU; nothing was checked\n"
    assert not (tmp_path / "check.json").exists()


def test_the_goals_by_hand():
    side = {"times_bare": 1.4, "speedup_vs_rcnn": 30.0, "flops_ratio": 50.0}
    goals = check_gpu.goals(
        {
            "pooling_bf16": {"seconds": 1.0, "times_write_limit": 2.5, "speedup_vs_roi_pool": 11.0},
            "detect_bf16": {"rcnn": {}, "spp_1scale": side, "spp_5scale": side},
            "pretrain_bf16": {"error": "exit code 1"},
        }
    )
    met = {name: goal["met"] for name, goal in goals.items()}
    assert met == {
        "pooling_times_write_limit_bf16": False,
        "pooling_speedup_vs_roi_pool_bf16": True,
        "spp_1scale_times_bare_bf16": True,
        "spp_1scale_speedup_as_share_of_arithmetic_bf16": False,
        "spp_5scale_times_bare_bf16": True,
        "spp_5scale_speedup_as_share_of_arithmetic_bf16": False,
    }


def test_all_of_it_by_a_python_that_does_nothing(tmp_path, monkeypatch, capsys):
    calls = []

    def call(command, seconds, folder):
        assert seconds <= check_gpu.SECONDS
        calls.append(command)
        if "pytest" in command:
            report = next(part for part in command if part.startswith("--junitxml=")).partition("=")[2]
            Path(report).write_text(
                '<testsuites><testsuite><testcase classname="a" name="x"/><testcase classname="a" name="y">'
                "<skipped/></testcase></testsuite></testsuites>"
            )
            return None
        if "pretrain" in command:
            return "exit code 1"
        folder.mkdir(parents=True, exist_ok=True)
        subject = command[command.index("benchmark") + 1]
        (folder / f"{subject}.json").write_text('{"threads": 1}')
        return None

    monkeypatch.setattr(check_gpu, "call", call)
    monkeypatch.setattr(check_gpu, "what_is_missing", lambda: None)
    monkeypatch.setattr(check_gpu, "machine", lambda: {"card": "none"})
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", "--out", str(tmp_path / "deep" / "check.json")])
    assert check_gpu.main() == 1
    found = json.loads((tmp_path / "deep" / "check.json").read_text())
    assert found["tests"] == {"passed": 1, "failed": [], "skipped": ["a.y"]}
    assert found["benchmarks"]["detect_bf16"] == {"threads": 1}
    assert found["benchmarks"]["pretrain_fp32"] == {"error": "exit code 1"}
    assert len(calls) == 7
    assert "benchmark pretrain_fp32: exit code 1" in capsys.readouterr().out
