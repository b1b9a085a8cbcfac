"""Shared by all tests: one thread a worker, GPU tests only where there is one, the tiny embedded data, networks, detectors."""

import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet_cli import cli, console, tune_process
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import save_network
from sppnet_cli.protocols import PAPER, MappingRules, take

SCALES = (120, 240)
tune_process()


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[Callable[[int], None]]:
    """One thread, since xdist's workers fill the cores; a test may ask for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def talkative() -> None:
    """What an earlier test's `--quiet` or `--json` silenced, speaks again."""
    console.configure()


def pytest_runtest_setup(item: pytest.Item) -> None:
    stand_in = "SPPNET_STAND_IN" in os.environ  # see tests/gpu/conftest.py
    if item.get_closest_marker("gpu") and not (stand_in or torch.cuda.is_available()):
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny embedded data set: `imagenet/`, `VOCdevkit/`, `caltech101/`.  Read only."""
    from sppnet_cli.data.mini import TINY, make_mini

    folder = tmp_path_factory.mktemp("data") / "tiny"
    make_mini(folder, size=TINY)
    return folder


@pytest.fixture(scope="session")
def tiny_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a tiny network with fc layers that has learnt nothing.  Read only."""
    from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
    from sppnet_cli.network.weights import save_network

    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 24, 5))
    network.initialise("he")
    folder = tmp_path_factory.mktemp("tiny_network")
    save_network(network, folder)
    return folder


def random_network(seed=0, fc=0):
    torch.manual_seed(seed)
    net = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), fc, 5 if fc else 0))
    net.initialise("he")
    return net


@pytest.fixture(scope="session")
def window_network(tmp_path_factory):
    """Run directory of a network without fc layers."""
    folder = tmp_path_factory.mktemp("window_network")
    save_network(random_network(), folder)
    return folder


@pytest.fixture(scope="session")
def random_detector(tmp_path_factory, tiny_data):
    """Run directory of a detector on pool5 that has learnt nothing."""
    names = load_voc(tiny_data / "VOCdevkit", "test").class_names
    extractor = SppWindows(random_network(), take(MappingRules, PAPER), SCALES)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(len(names), extractor.network.pooled_size)).astype(np.float32)
    svms = Svms(weights, np.full(len(names), -1, np.float32), 0.01)
    folder = tmp_path_factory.mktemp("random_detector")
    Detector(extractor, "pool5", names, svms).save(folder)
    return folder


@pytest.fixture(scope="session")
def random_proposals(tmp_path_factory, tiny_data):
    """Proposals of all images of the tiny VOC: 30 random windows and, around each object, 5 that overlap it."""
    folder = tmp_path_factory.mktemp("random_proposals")
    (folder / "boxes").mkdir()
    for split in ("trainval", "test"):
        dataset = load_voc(tiny_data / "VOCdevkit", split)
        for image_id in dataset.ids:
            rng = np.random.default_rng(zlib.crc32(image_id.encode()))
            truth = dataset.annotation(image_id)
            height, width = truth.size
            corners = rng.integers(0, (width // 2, height // 2), (30, 2))
            sides = rng.integers(20, (width // 2, height // 2), (30, 2))
            near = np.repeat(truth.boxes, 5, axis=0)
            extent = np.tile(near[:, 2:] - near[:, :2], 2)
            near = np.round(near + rng.uniform(-0.2, 0.2, near.shape) * extent)
            boxes = np.concatenate([np.concatenate([corners, corners + sides - 1], axis=1), near])
            boxes = np.clip(boxes, 0, np.array([width, height, width, height]) - 1)
            np.save(folder / "boxes" / f"{image_id}.npy", boxes.astype(np.float32))
    return folder


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the tiny VOC, to be spoilt."""
    return shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")


@pytest.fixture
def proposals(random_proposals, tmp_path):
    """A copy of the random proposals, to be spoilt."""
    return shutil.copytree(random_proposals, tmp_path / "proposals")


@pytest.fixture
def sppnet(monkeypatch, capsys, tmp_path):
    """Call the command line as a user does, in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPPNET_JOBS", "1")  # starting processes takes longer than tiny stages

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sppnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call
