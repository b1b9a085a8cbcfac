import pytest
import torch
from torchvision import models


@pytest.fixture(scope="session")
def squeezenet_file(tmp_path_factory):
    """Random weights of the features of squeezenet1_1."""
    torch.manual_seed(0)
    state = models.squeezenet1_1(weights=None).features.state_dict()
    path = tmp_path_factory.mktemp("weights") / "squeezenet1_1.pth"
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    return path
