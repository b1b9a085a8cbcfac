"""Shared by all tests: one thread a worker, GPU tests only where there is one, the tiny embedded data and a network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sppnet_cli import console


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
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
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
