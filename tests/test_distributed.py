"""Two processes under torchrun give what one gives."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.distributed import World, barrier, from_first, gather, local_device, local_share, world
from sppnet_cli.errors import UsageError
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network, save_network
from sppnet_cli.protocols import PAPER, MappingRules, take

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

# Dropout is off: each process draws its own.
WORK = """
import sys
from pathlib import Path
from sppnet_cli.chain import Cost, Resources, Stage
from sppnet_cli.distributed import leave
from sppnet_cli.learning.pretrain import Recipe
from sppnet_cli.making import build_stage
from sppnet_cli.network.sppnet import Dropout
from sppnet_cli.stages.evaluate_network import EvaluateConfig, evaluate
from sppnet_cli.stages.extract_features import ExtractConfig, extract
from sppnet_cli.stages.pretrain import PretrainConfig, make_network

data, out, network = (Path(argument) for argument in sys.argv[1:])
Dropout.forward = lambda self, x: x


def make(name, build, config, images=(), **inputs):
    stage = Stage(name, config, inputs, out / name, build, Cost, images, together=True)
    build_stage(stage, Resources())


recipe = Recipe((224, 180), 2, 8, 0.00001, "one-cycle", "he", 5.0, parts=2)
config = PretrainConfig("zf5", 0.0625, (1, 2, 3, 6), 32, recipe, seed=0)
make("net", make_network, config, data=data / "imagenet")
make("errors", evaluate, EvaluateConfig("8+2full"), network=network, data=data / "imagenet")
images = tuple(sorted((data / "VOCdevkit" / "VOC2007" / "JPEGImages").glob("*.jpg"))[:7])
make("features", extract, ExtractConfig(("conv5", "SPP pool5"), "crop", 224, None), images, network=network)
leave()
"""

DETECTION = """
import sys
from pathlib import Path
from sppnet_cli import console
from sppnet_cli.chain import Cost, Resources, Stage
from sppnet_cli.distributed import leave, world
from sppnet_cli.features import cache as feature_cache
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.making import build_stage
from sppnet_cli.protocols import PAPER, BboxRules, DetectRules, FinetuneRules, MappingRules, SvmRules, take
from sppnet_cli.stages.detect import DetectConfig, detect, lacks_images
from sppnet_cli.stages.finetune import FinetuneConfig, finetune_fc_layers
from sppnet_cli.stages.propose import ProposeConfig, propose_windows
from sppnet_cli.stages.train_bbox import BboxConfig, add_regressors
from sppnet_cli.stages.train_svm import SvmConfig, train_detector
from sppnet_cli.stages.windows import WindowConfig

data, network, detector, out = (Path(argument) for argument in sys.argv[1:5])
console.configure(silent=not world().first)
feature_cache._WEIGHED = 10**6  # whatever is quicker today, maps are kept


def make(name, build, config, gigabytes=0.0, cache="none", memory=8.0, unfinished=None, **inputs):
    stage = Stage(
        name, config, inputs, out / name, build, Cost, together=True, unfinished=unfinished
    )
    how = Resources(cache=out / f"cache-{cache}", cache_gb=gigabytes, max_memory=memory)
    build_stage(stage, how)
    return stage.folder


windows = WindowConfig("trainval", "spp", (120, 240), take(MappingRules, PAPER), 1000, 5)
for name, gigabytes in (("all", 1.0), ("some", 5e-5), ("none", 0.0)):
    cache = {"gigabytes": gigabytes, "cache": name}
    inputs = {}
    for split in ("trainval", "test"):
        config = ProposeConfig(split, "ss-fast", 0, 5, 150)
        proposals = make(f"proposals-{split}", propose_windows, config, data=data)
        inputs[split] = {"data": data, "proposals": proposals}
    config = FinetuneConfig(windows, take(FinetuneRules, PAPER), Schedule(((1e-3, 4),)), 8, flip=True, seed=0)
    trainval = inputs["trainval"]
    make(f"head-{name}", finetune_fc_layers, config, **cache, memory=8 * 5e-4, **trainval, network=network)
    config, test = DetectConfig("test", 1000, 5), inputs["test"]
    make(f"detections-{name}", detect, config, **cache, unfinished=lacks_images, **test, detector=detector)
    config = SvmConfig(windows, "pool5", take(SvmRules, PAPER), take(DetectRules, PAPER), "paper", 0)
    trained = make(f"detector-{name}", train_detector, config, **cache, memory=0.2, **trainval, network=network)
    config = BboxConfig(windows, take(BboxRules, PAPER), 0)
    make(f"detector-bb-{name}", add_regressors, config, **cache, memory=0.2, **trainval, detector=trained)
leave()
# What still ran when Python ends would take the process with it.
threads = [(task / "comm").read_text() for task in Path("/proc/self/task").glob("*")]
assert not [name for name in threads if "gloo" in name], threads
"""

DEATH = """
import os, sys
from sppnet_cli.cli import run
from sppnet_cli.distributed import barrier, world
barrier()
if world().rank == 1:
    os._exit(9)
run(lambda **_: barrier())
"""


def start(script, *arguments, processes):
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return subprocess.run(
        [sys.executable, *(several if processes > 1 else ()), str(script), *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_give_what_one_gives(tiny_data, tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    network = tmp_path / "one" / "net"
    for name, processes in (("one", 1), ("two", 2)):
        done = start(script, tiny_data, tmp_path / name, network, processes=processes)
        assert done.returncode == 0, done.stderr
    # Training: the same samples and steps, but for the rounding of sums.  The rate is low: at a higher one a rounding
    # soon moves a maximum to another cell, and the two networks part.
    one, two = (load_file(tmp_path / name / "net" / "network.safetensors") for name in ("one", "two"))
    begun = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 32, 20))
    torch.manual_seed(0)
    begun.initialise("he")
    for name, value in begun.named_parameters():
        learnt, gap = one[name] - value, two[name] - one[name]
        assert learnt.norm() > 0, name
        assert gap.norm() < 5e-3 * learnt.norm(), name
    means = [(tmp_path / name / "net" / "mean.safetensors").read_bytes() for name in ("one", "two")]
    assert means[0] == means[1]
    lines = [
        [json.loads(line) for line in (tmp_path / name / "net" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    # Evaluation and features: the same bits.
    with (
        np.load(tmp_path / "one" / "errors" / "wrong.npz") as a,
        np.load(tmp_path / "two" / "errors" / "wrong.npz") as b,
    ):
        assert all((a[name] == b[name]).all() for name in ("wrong1", "wrong5"))
    for name in ("conv5.npy", "SPP-pool5.npy", "index.csv"):
        a, b = ((tmp_path / k / "features" / name).read_bytes() for k in ("one", "two"))
        assert a == b
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"net", "errors", "features"}


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6)))
    net.initialise("he")
    (tmp_path / "network").mkdir()
    save_network(net, tmp_path / "network")
    return tmp_path / "network"


@pytest.fixture
def detector(tmp_path, tiny_data, network):
    """One that has learnt nothing."""
    names = load_voc(tiny_data / "VOCdevkit", "test").class_names
    extractor = SppWindows(load_network(network), take(MappingRules, PAPER), (120, 240))
    weights = np.random.default_rng(0).normal(size=(len(names), extractor.network.pooled_size))
    svms = Svms(weights.astype(np.float32), np.full(len(names), -1, np.float32), 0.01)
    (tmp_path / "detector").mkdir()
    Detector(extractor, "pool5", names, svms).save(tmp_path / "detector")
    return tmp_path / "detector"


def test_two_processes_detect_what_one_detects(tiny_data, tmp_path, network, detector):
    """Proposals, fine-tuned layers and detections to the byte, whatever of the maps is cached."""
    data = shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")
    unreadable = load_voc(data, "test").image_path(load_voc(data, "test").ids[3])
    unreadable.write_bytes(b"")
    script = tmp_path / "work.py"
    script.write_text(DETECTION)
    for name, processes in (("one", 1), ("two", 2)):
        done = start(script, data, network, detector, tmp_path / name, processes=processes)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f"warning: no proposals: {unreadable}") == 1
        assert done.stderr.count(f"warning: skipped: {unreadable}") == 3
        assert done.stderr.count("1 of 5 images were skipped") == 3
    one, two = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for folder in (tmp_path / name).iterdir()
            if not folder.name.startswith("cache")
            for path in folder.rglob("*")
            if path.is_file() and path.name != "manifest.json"
        }
        for name in ("one", "two")
    )
    assert one == two
    assert sum(name.endswith(".npy") for name in one) == 10
    for file in (
        "head-{}/head.safetensors",
        "detections-{}/detections.csv",
        "detections-{}/skipped.csv",
        "detector-{}/svm.safetensors",
        "detector-bb-{}/bbox.safetensors",
    ):
        assert one[file.format("all")] == one[file.format("some")] == one[file.format("none")]
    assert len(one["detections-all/detections.csv"].splitlines()) > 20
    for name in ("one", "two"):
        cached = [list((tmp_path / name).glob(f"cache-{kind}/**/*.npy")) for kind in ("all", "some", "none")]
        assert len(cached[0]) == 5 * 2 * 2 + 4 * 2  # trainval and its mirror images at two scales; test
        assert 0 < len(cached[1]) < len(cached[0])
        assert not cached[2]


def test_a_process_that_dies_ends_the_others(tmp_path):
    script = tmp_path / "death.py"
    script.write_text(DEATH)
    begin = time.monotonic()
    done = start(script, processes=2)
    assert done.returncode != 0
    assert time.monotonic() - begin < 120


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world() == World(0, 1)
    assert world().first
    assert gather("x") == ["x"]
    assert from_first(3) == 3
    barrier()
    assert local_device("cuda") == "cuda"


def test_every_process_has_its_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert world() == World(3, 4)
    assert not world().first
    assert local_device("cuda") == "cuda:1"
    assert local_device("cuda:0") == "cuda:0"
    assert local_device("cpu") == "cpu"


def test_workers_are_shared(monkeypatch):
    assert [local_share(count) for count in (0, 1, 8)] == [0, 1, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [local_share(count) for count in (0, 1, 8, 9)] == [0, 1, 2, 2]


def test_broken_variables(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="start the processes with torchrun"):
        world()
