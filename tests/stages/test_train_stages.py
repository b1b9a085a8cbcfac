"""Detectors as run directories: training that is cut off, and the bound on memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sppnet_cli.chain import Inputs, Resources
from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import SppnetError
from sppnet_cli.features.layers import Layer
from sppnet_cli.learning import svm
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.learning.svm import train_svms
from sppnet_cli.network.sppnet import Head
from sppnet_cli.network.weights import load_network, save_head
from sppnet_cli.protocols import PAPER, BboxRules, DetectRules, MappingRules, SvmRules, take
from sppnet_cli.runs import CHECKPOINT
from sppnet_cli.stages.train_bbox import BboxConfig, add_regressors
from sppnet_cli.stages.train_svm import SvmConfig, train_detector
from sppnet_cli.stages.windows import WindowConfig, window_source

WINDOWS = WindowConfig("trainval", "spp", (120, 240), take(MappingRules, PAPER), 1000, 8)
FEW = replace(WINDOWS, max_windows=20, limit=4)
SVM_RULES = take(SvmRules, PAPER)


def svm_config(windows, layer, rules=SVM_RULES):
    return SvmConfig(windows, layer, rules, take(DetectRules, PAPER), "paper", 0)


@pytest.fixture
def inputs(tiny_data, random_proposals):
    return {"data": tiny_data / "VOCdevkit", "proposals": random_proposals}


@pytest.fixture
def train(make, inputs, window_network):
    """Trains a detector on pool5; its rows may take `max_gib`."""

    def run(name="run", max_gib=0.05):
        given = inputs | {"network": window_network}
        return make(train_detector, svm_config(WINDOWS, "pool5"), given, name, max_memory=max_gib / 0.75)

    return run


@pytest.fixture
def regress(make, inputs):
    """Adds box regressors to a detector; samples and systems may take `max_gib`."""

    def run(detector, name="bb", max_gib=1.0, windows=FEW):
        config = BboxConfig(windows, take(BboxRules, PAPER), 0)
        return make(add_regressors, config, inputs | {"detector": detector}, name, max_memory=max_gib / 0.75)

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_svms_that_were_cut_off_end_with_the_same_bytes(train, monkeypatch, tmp_path):
    whole = files(train("whole"))
    assert not any(name.endswith(".pt") for name in whole)
    images = []

    def cut_off(windows, *rest):
        images.append(windows.image_id)
        if len(images) == 4:
            raise KeyboardInterrupt
        return negatives(windows, *rest)

    monkeypatch.setattr(svm, "negatives", cut_off)
    monkeypatch.setattr(svm, "SAVE_SECONDS", -1)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert (tmp_path / "run.partial" / CHECKPOINT).is_file()
    assert files(train()) == whole
    assert len(images) == 8 + 1  # the image in hand twice, no other
    assert images[3] == images[4]


def test_rows_that_outgrow_the_bound(train, tmp_path):
    with pytest.raises(SppnetError, match="allow more with --max-memory"):
        train(max_gib=1e-5)
    assert not (tmp_path / "run").exists()


def test_box_regression_takes_turns_in_little_memory(train, regress):
    detector = train()

    def regressors(name, max_gib):
        return Detector.load(regress(detector, name, max_gib, WINDOWS)).bbox

    plenty, little = regressors("plenty", 1.0), regressors("little", 5e-5)
    np.testing.assert_array_equal(little.weights, plenty.weights)
    assert np.abs(plenty.weights).max() > 0
    with pytest.raises(SppnetError, match="allow more with --max-memory"):
        regressors("none", 1e-5)


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_svms_of_a_fine_tuned_head_are_trained_on_its_features(make, inputs, tiny_network, tmp_path, layer):
    network = load_network(tiny_network)
    torch.manual_seed(1)
    tuned = Head(network.pooled_size, 24, 21)
    (tmp_path / "head").mkdir()
    save_head(tuned, tmp_path / "head")
    given = inputs | {"network": tiny_network, "head": tmp_path / "head"}
    detector = Detector.load(make(train_detector, svm_config(FEW, layer), given))
    source = window_source(FEW, Inputs(inputs), Resources(cache=tmp_path / "other"), network, "", truth=True)
    svms = [
        train_svms(source, Layer(layer, head), SVM_RULES, seed=0, max_gib=0.05, folder=tmp_path / "none")
        for head in (tuned, network.head)
    ]
    np.testing.assert_array_equal(detector.svms.weights, svms[0].weights)
    assert detector.svms.scale == svms[0].scale != svms[1].scale
    assert torch.equal(detector.head.fc7.weight, tuned.fc7.weight)


def test_the_detector_carries_the_rules_of_its_config(make, inputs, window_network):
    windows = replace(FEW, mapping=MappingRules("rounded-side", 0.125), limit=2)
    detect = DetectRules(score_threshold=-1.25, nms_iou=0.4, nms_ties="last", max_per_image=7)
    config = SvmConfig(windows, "pool5", SVM_RULES, detect, "released", 0)
    detector = Detector.load(make(train_detector, config, inputs | {"network": window_network}))
    assert (detector.rules, detector.protocol) == (detect, "released")
    assert detector.extractor.mapping == windows.mapping
    assert detector.extractor.scales == (120, 240)


def test_box_regression_takes_pooled_features_scaled_to_a_mean_norm_of_20(
    make, regress, inputs, tiny_network
):
    run = make(train_detector, svm_config(FEW, "fc6"), inputs | {"network": tiny_network}, "fc6")
    detector = Detector.load(regress(run))
    dataset = load_voc(inputs["data"], "trainval", 4)
    norms = []
    for image_id in dataset.ids:  # so few that all of their windows are taken
        boxes = np.load(inputs["proposals"] / "boxes" / f"{image_id}.npy")[:20]
        boxes = np.concatenate([dataset.annotation(image_id).boxes, boxes])
        pooled = detector.extractor.pool(detector.extractor.prepare(dataset.image(image_id)), boxes)
        norms.extend(pooled.norm(dim=1).tolist())
    assert detector.bbox.scale == pytest.approx(20 / np.mean(norms), rel=1e-3)
    assert detector.bbox.scale != pytest.approx(detector.svms.scale, rel=0.1)


def test_detectors_on_fc_layers_have_shortcuts_which_regressors_leave_as_they_are(
    make, regress, inputs, tiny_network
):
    def train(name, layer, method="spp"):
        windows = replace(FEW, method=method, scales=(120, 240) if method == "spp" else ())
        return make(train_detector, svm_config(windows, layer), inputs | {"network": tiny_network}, name)

    fc6 = train("fc6", "fc6")
    assert files(train("again", "fc6")) == files(fc6)
    assert (fc6 / "shortcuts.safetensors").is_file()

    regressed = regress(fc6)
    assert files(regressed)["shortcuts.safetensors"] == files(fc6)["shortcuts.safetensors"]
    detector = Detector.load(regressed, fast=FastOptions((6,), 0.5))
    assert detector.bbox is not None
    found = detector.shortcuts
    assert found.cascade.weights.shape == (20, detector.extractor.network.pooled_size)
    assert {name: axes.axes.shape for name, axes in found.axes.items()} == {"fc6": (24, 12)}

    rcnn = Detector.load(train("rcnn", "fc7", "rcnn"), fast=FastOptions((6, 4))).shortcuts
    assert rcnn.cascade is None
    assert {name: axes.axes.shape for name, axes in rcnn.axes.items()} == {"fc6": (24, 12), "fc7": (24, 12)}
    assert not (train("pool5", "pool5") / "shortcuts.safetensors").exists()
