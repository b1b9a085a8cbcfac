"""What runs on a GPU, compared with the CPU.  `make check-gpu` runs these tests there.

The other tests run them on the stand-in (`stand_in.py`), for which `SPPNET_STAND_IN` is set.  They read no annotation, propose
no window and need no file, so that they need neither defusedxml nor OpenCV.
"""

import os

import numpy as np
import pytest
import torch

from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.data.images import write_image
from sppnet_cli.data.voc import Annotation
from sppnet_cli.features.cache import FeatureCache
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, MappingRules, take

NAMES = ("cat", "dog", "emu")
SCALES = (160, 224)
STAND_IN = "SPPNET_STAND_IN" in os.environ

if STAND_IN:
    from stand_in import install

    install()


@pytest.fixture
def device():
    """The device to be tested."""
    return "standin" if STAND_IN else "cuda"


@pytest.fixture
def cuda():
    """The device of tests that the stand-in cannot stand in for."""
    if STAND_IN:
        pytest.skip("needs a CUDA device, not its stand-in")
    return "cuda"


@pytest.fixture
def make_network():
    """Makes narrow ZF-5 nets, always the same for the same arguments."""
    return _network


def _network(fc=24, levels=(1, 2, 3, 6), width=0.0625):
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", width, levels, fc, 5 if fc else 0))
    network.initialise("he")
    return network.eval()


@pytest.fixture
def image():
    return _image(0)


def _image(seed):
    """RGB (150, 200, 3) uint8, of blocks of colour."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (19, 25, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:150])


@pytest.fixture
def boxes():
    return _boxes(0)


def _boxes(seed, count=24):
    """Windows (24, 4) of the image, the first of them all of it."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, (170, 120), (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(20, (180, 130), (count, 2))], axis=1)
    boxes[0] = 0, 0, 199, 149
    return np.minimum(boxes, (199, 149, 199, 149)).astype(np.float32)


@pytest.fixture
def make_source(tmp_path, make_network):
    """Makes sources of the windows of three images with one object each."""

    def make(device, method="spp", network=None, cache="none", gigabytes=0.0):
        network = network or make_network(fc=0)
        mapping = take(MappingRules, PAPER)
        extractor = (
            SppWindows(network, mapping, SCALES, device)
            if method == "spp"
            else RcnnWindows(network, mapping, (), device)
        )
        windows = tmp_path / "proposals" / "boxes"
        windows.mkdir(parents=True, exist_ok=True)
        truths = {}
        for k in range(3):
            truth = _boxes(10 + k, 2)[1:]
            near = np.clip(truth + np.random.default_rng(k).integers(-4, 5, (9, 4)), 0, 140)
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            np.save(windows / f"{k}.npy", np.concatenate([near.astype(np.float32), _boxes(k, 20)]))
            truths[str(k)] = Annotation(truth, np.array([k]), np.array([False]), (150, 200))
        dataset = _Dataset(tmp_path, truths)
        kept = FeatureCache(tmp_path / "caches" / cache, gigabytes, weighed=False)
        return WindowSource(dataset, tmp_path / "proposals", extractor, kept, None, with_truth=True)

    return make


@pytest.fixture
def toy(image, tmp_path):
    """Eight images of two classes."""
    for k in range(8):
        path = tmp_path / "toy" / f"class{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.roll(image, 8 * k, axis=1) // (1 + k % 2))
    return load_image_folder(tmp_path / "toy")


class _Dataset:
    """The part of `VocDetection` that a source asks for."""

    def __init__(self, root, truths):
        self.root = root
        self.ids = tuple(truths)
        self.class_names = NAMES
        self.annotation = truths.get

    def __len__(self):
        return len(self.ids)

    def image(self, image_id):
        return _image(int(image_id))
