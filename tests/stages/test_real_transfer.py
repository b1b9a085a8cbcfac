"""Transfer on real images with a real trunk, against another implementation's numbers; see CONTRIBUTING.md."""

import os
from pathlib import Path

import pytest
from sppnet_cli.stages.classify import (
    ClassifierConfig,
    RandomSplits,
    caltech_images,
    classifier_stage,
    score_classifier,
    voc_images,
)
from sppnet_cli.stages.extract import ExtractConfig, extract_stage

from sppnet_cli.stages.pretrain import BackboneConfig, backbone_stage

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    weights = SHARED / "weights" / "squeezenet1_1_features.pth"
    return backbone_stage(
        BackboneConfig("squeezenet1_1"), str(weights), tmp_path_factory.mktemp("net") / "run"
    )


def test_voc_of_whole_images(network, tmp_path):
    config = ExtractConfig(("pool5", "SPP pool5"), "full", 224)
    images = {split: voc_images(SHARED / "data" / "VOCdevkit", split) for split in ("trainval", "test")}
    features = {
        split: extract_stage(config, network, of.paths, tmp_path / split, workers=2)
        for split, of in images.items()
    }
    for layer, expected in (("pool5", 0.601), ("SPP pool5", 0.630)):
        folder = classifier_stage(
            ClassifierConfig(layer), network, features["trainval"], images["trainval"], tmp_path / layer
        )
        found = score_classifier(folder, features["test"], images["test"]).as_dict()
        assert found["mAP"] == pytest.approx(expected, abs=0.01)


def test_caltech_of_crops(network, tmp_path):
    images = caltech_images(SHARED / "data" / "caltech101")
    config = ExtractConfig(("pool5", "SPP pool5"), "crop", 224)
    features = extract_stage(config, network, images.paths, tmp_path / "features", workers=2)
    for layer, expected in (("pool5", 0.918), ("SPP pool5", 0.914)):
        config = ClassifierConfig(layer, RandomSplits(count=3))
        folder = classifier_stage(config, network, features, images, tmp_path / layer)
        found = score_classifier(folder, features, images).as_dict()
        assert found["accuracy"] == pytest.approx(expected, abs=0.01)
        assert found["std"] < 0.01
