"""Transfer on real images with a real trunk, against another implementation's numbers; see CONTRIBUTING.md."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sppnet_cli.protocols import RELEASED
from sppnet_cli.stages.image_svm import RandomSplits
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.workspace import Column, Workspace

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(
        find_profile("pretrained"),
        root=tmp_path_factory.mktemp("runs"),
        protocol=RELEASED,  # whose loss the other implementation has
        data=SHARED / "data" / "VOCdevkit",
        caltech=SHARED / "data" / "caltech101",
        weights=str(SHARED / "weights" / "squeezenet1_1_features.pth"),
        jobs=1,
    )


def with_loss(workspace, loss, *of):
    """The score of SVMs with a loss, whatever the protocol's."""
    ws = replace(workspace, protocol=replace(workspace.protocol, whole_image_loss=loss))
    tested = ws.tested_svms(*of)
    ws.make(*tested)
    return tested.score().as_dict()


@pytest.mark.parametrize(
    ("layer", "loss", "expected"),
    [
        ("pool5", "squared-hinge", 0.601),
        ("SPP pool5", "squared-hinge", 0.630),
        ("pool5", "hinge", 0.604),
        ("SPP pool5", "hinge", 0.641),
    ],
)
def test_voc_of_whole_images(workspace, layer, loss, expected):
    found = with_loss(workspace, loss, Column("spp6", "full", 224), layer, "VOC")
    assert found["mAP"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("layer", "loss", "expected"),
    [
        ("pool5", "squared-hinge", 0.918),
        ("SPP pool5", "squared-hinge", 0.914),
        ("pool5", "hinge", 0.906),
        ("SPP pool5", "hinge", 0.906),
    ],
)
def test_caltech_of_crops(workspace, layer, loss, expected):
    ws = replace(workspace, profile=replace(workspace.profile, splits=RandomSplits(count=3)))
    found = with_loss(ws, loss, Column("spp6", "crop", 224), layer, "Caltech101")
    assert found["accuracy"] == pytest.approx(expected, abs=0.01)
    assert found["std"] < 0.01
