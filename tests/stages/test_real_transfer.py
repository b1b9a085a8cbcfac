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


@pytest.mark.parametrize(("layer", "expected"), [("pool5", 0.601), ("SPP pool5", 0.630)])
def test_voc_of_whole_images(workspace, layer, expected):
    tested = workspace.tested_svms(Column("spp6", "full", 224), layer, "VOC")
    workspace.make(*tested)
    assert tested.score().as_dict()["mAP"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("layer", "expected"), [("pool5", 0.918), ("SPP pool5", 0.914)])
def test_caltech_of_crops(workspace, layer, expected):
    ws = replace(workspace, profile=replace(workspace.profile, splits=RandomSplits(count=3)))
    tested = ws.tested_svms(Column("spp6", "crop", 224), layer, "Caltech101")
    ws.make(*tested)
    found = tested.score().as_dict()
    assert found["accuracy"] == pytest.approx(expected, abs=0.01)
    assert found["std"] < 0.01
