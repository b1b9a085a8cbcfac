"""On real VOC images with a real trunk; see CONTRIBUTING.md for where they come from."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.data.voc import load_voc
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.weights import load_network
from sppnet_cli.protocols import PAPER, MappingRules, take
from sppnet_cli.stages.pretrain import BackboneConfig, make_backbone

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    weights = SHARED / "weights" / "squeezenet1_1_features.pth"
    folder = tmp_path_factory.mktemp("net")
    make_backbone(BackboneConfig("squeezenet1_1"), Inputs({"weights": weights}), folder, Resources())
    return load_network(folder)


@pytest.mark.parametrize(("side", "cells"), [(224, 13), (392, 24), (688, 42), (1200, 74)])
def test_map_sizes(network, side, cells):
    with torch.inference_mode():
        assert network.trunk(torch.zeros(1, 3, side, side)).shape[2:] == (cells, cells)


def test_the_trunk_sees_what_is_in_a_photograph(network):
    """Features of a window and of its mirror image in the mirrored photograph are close, of others they are not."""
    dataset = load_voc(SHARED / "data" / "VOCdevkit", "test", limit=1)
    image = dataset.image(dataset.ids[0])
    height, width = image.shape[:2]
    whole = np.array([[0, 0, width - 1, height - 1], [0, 0, width // 3, height // 3]], dtype=np.float32)
    extractor = SppWindows(network, take(MappingRules, PAPER), (688,))
    one, corner = extractor.pool(extractor.prepare(image), whole)
    mirrored = extractor.pool(extractor.prepare(np.ascontiguousarray(image[:, ::-1])), whole)[0]
    cosine = torch.nn.functional.cosine_similarity
    top = slice(0, network.channels)  # the 1x1 level does not know left from right
    assert cosine(one[top], mirrored[top], dim=0) > 0.9
    assert cosine(one, corner, dim=0) < 0.9
