"""Detectors as run directories: training that is cut off, and the bound on memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sppnet_cli.stages.train import BboxConfig, SvmConfig, bbox_stage, svm_stage

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
from sppnet_cli.protocols import PAPER
from sppnet_cli.runs import CHECKPOINT
from sppnet_cli.stages.windows import WindowConfig, WindowInputs, window_source

WINDOWS = WindowConfig("trainval", "spp", (120, 240), "paper", 1000, 8)


@pytest.fixture
def train(window_network, tiny_data, random_proposals, tmp_path):
    inputs = WindowInputs(tiny_data / "VOCdevkit", random_proposals, tmp_path / "cache", 1.0)

    def run(name="run", max_gib=0.05):
        config = SvmConfig(WINDOWS, "pool5", 0)
        return svm_stage(config, window_network, None, inputs, tmp_path / name, device="cpu", max_gib=max_gib)

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


def test_box_regression_takes_turns_in_little_memory(train, tiny_data, random_proposals, tmp_path):
    detector = train()
    inputs = WindowInputs(tiny_data / "VOCdevkit", random_proposals, tmp_path / "cache", 1.0)

    def regressors(name, max_gib):
        config = BboxConfig(WINDOWS, 0)
        run = bbox_stage(config, detector, inputs, tmp_path / name, device="cpu", max_gib=max_gib)
        return Detector.load(run).bbox

    plenty, little = regressors("plenty", 1.0), regressors("little", 5e-5)
    np.testing.assert_array_equal(little.weights, plenty.weights)
    assert np.abs(plenty.weights).max() > 0
    with pytest.raises(SppnetError, match="allow more with --max-memory"):
        regressors("none", 1e-5)


@pytest.fixture
def few_windows(tiny_data, random_proposals, tmp_path):
    """Settings of a detector of four images and up to 20 proposals in each, and the inputs that it takes."""
    inputs = WindowInputs(tiny_data / "VOCdevkit", random_proposals, tmp_path / "cache", 1.0)
    return replace(WINDOWS, max_windows=20, limit=4), inputs


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_svms_of_a_fine_tuned_head_are_trained_on_its_features(few_windows, tiny_network, tmp_path, layer):
    windows, inputs = few_windows
    network = load_network(tiny_network)
    torch.manual_seed(1)
    tuned = Head(network.pooled_size, 24, 21)
    (tmp_path / "head").mkdir()
    save_head(tuned, tmp_path / "head")
    out = svm_stage(
        SvmConfig(windows, layer, 0),
        tiny_network,
        tmp_path / "head",
        inputs,
        tmp_path / "run",
        device="cpu",
        max_gib=0.05,
    )
    detector = Detector.load(out)
    source = window_source(windows, inputs, network, "other", device="cpu", truth=True)
    svms = [
        train_svms(source, Layer(layer, head), PAPER, seed=0, max_gib=0.05, folder=tmp_path / "none")
        for head in (tuned, network.head)
    ]
    np.testing.assert_array_equal(detector.svms.weights, svms[0].weights)
    assert detector.svms.scale == svms[0].scale != svms[1].scale
    assert torch.equal(detector.head.fc7.weight, tuned.fc7.weight)


def test_box_regression_takes_pooled_features_scaled_to_a_mean_norm_of_20(
    few_windows, tiny_network, tmp_path
):
    windows, inputs = few_windows
    config = SvmConfig(windows, "fc6", 0)
    run = svm_stage(config, tiny_network, None, inputs, tmp_path / "fc6", device="cpu", max_gib=0.05)
    config = BboxConfig(windows, 0)
    bbox = bbox_stage(config, run, inputs, tmp_path / "bb", device="cpu", max_gib=1.0)
    detector = Detector.load(bbox)
    dataset = load_voc(inputs.data, "trainval", 4)
    norms = []
    for image_id in dataset.ids:  # so few that all of their windows are taken
        boxes = np.load(inputs.proposals / "boxes" / f"{image_id}.npy")[:20]
        boxes = np.concatenate([dataset.annotation(image_id).boxes, boxes])
        pooled = detector.extractor.pool(detector.extractor.prepare(dataset.image(image_id)), boxes)
        norms.extend(pooled.norm(dim=1).tolist())
    assert detector.bbox.scale == pytest.approx(20 / np.mean(norms), rel=1e-3)
    assert detector.bbox.scale != pytest.approx(detector.svms.scale, rel=0.1)


def test_detectors_on_fc_layers_have_shortcuts_which_regressors_leave_as_they_are(
    tiny_network, tiny_data, random_proposals, tmp_path
):
    inputs = WindowInputs(tiny_data / "VOCdevkit", random_proposals, tmp_path / "cache", 1.0)

    def train(name, layer, method="spp"):
        windows = WindowConfig("trainval", method, (120, 240) if method == "spp" else (), "paper", 20, 4)
        config = SvmConfig(windows, layer, 0)
        out = tmp_path / name
        return svm_stage(config, tiny_network, None, inputs, out, device="cpu", max_gib=0.05)

    fc6 = train("fc6", "fc6")
    assert files(train("again", "fc6")) == files(fc6)
    assert (fc6 / "shortcuts.safetensors").is_file()

    def regress(name, detector):
        config = BboxConfig(replace(WINDOWS, max_windows=20, limit=4), 0)
        return bbox_stage(config, detector, inputs, tmp_path / name, device="cpu", max_gib=1.0)

    regressed = regress("bb", fc6)
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
