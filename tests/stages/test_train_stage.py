"""Detectors as run directories: training that is cut off, and the bound on memory."""

from dataclasses import replace

import numpy as np
import pytest

from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import SppnetError
from sppnet_cli.learning import svm
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.runs import CHECKPOINT
from sppnet_cli.stages.train import BboxConfig, SvmConfig, bbox_stage, svm_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs

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
    monkeypatch.setattr(svm, "_SAVE_SECONDS", -1)
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
