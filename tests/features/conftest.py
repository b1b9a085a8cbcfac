import numpy as np
import pytest
import torch

from sppnet_cli.data.voc import load_voc
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.precision import DTYPES
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet


@pytest.fixture(scope="module")
def network():
    """A narrow ZF-5 of random weights, without fc layers."""
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    net.initialise("he")
    return net


@pytest.fixture
def bf16_anywhere(monkeypatch):
    """Lets networks compute in bf16 on machines that are slow at it."""
    monkeypatch.setattr("sppnet_cli.features.method.require", lambda precision, _: DTYPES[precision])


@pytest.fixture
def dataset(tiny_data):
    return load_voc(tiny_data / "VOCdevkit", "trainval", limit=2)


@pytest.fixture
def proposals(tmp_path, dataset):
    """Nine random windows for each of two images."""
    rng = np.random.default_rng(0)
    (tmp_path / "proposals" / "boxes").mkdir(parents=True)
    for image_id in dataset.ids:
        height, width = dataset.annotation(image_id).size
        corners = rng.integers(0, (width // 2, height // 2), (9, 2))
        sides = rng.integers(20, (width // 2, height // 2), (9, 2))
        boxes = np.concatenate([corners, corners + sides - 1], axis=1).astype(np.float32)
        np.save(tmp_path / "proposals" / "boxes" / f"{image_id}.npy", boxes)
    return tmp_path / "proposals"
