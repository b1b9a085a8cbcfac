import pytest
import torch

from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet


@pytest.fixture(scope="module")
def network():
    """A narrow ZF-5 of random weights, without fc layers."""
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    net.initialise("he")
    return net
