"""What `--dry-run` promises is what the commands do: folders, windows, lists of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sppnet_cli.stages.columns import Column
from sppnet_cli.stages.extract import ExtractConfig

from sppnet_cli.data.voc import load_voc
from sppnet_cli.evaluation.timing import FeatureTime
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.stages import estimates, plan
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import NeedsData, Workspace


@pytest.fixture
def ws(tmp_path):
    return Workspace(PROFILES["tiny"], root=tmp_path / "runs")


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Networks are not timed: a batch takes 1 s, an image 1 s of conv, 2 of fc; returns the numbers of windows."""
    windows = []

    def time_image(_extractor, _head, _image, boxes):
        windows.append(len(boxes))
        return FeatureTime(conv=1.0, pool=1.0, layers=1.0, preparation=0.0)

    estimates.feature_seconds.cache_clear()
    monkeypatch.setattr(estimates, "time_image", time_image)
    monkeypatch.setattr(plan, "batch_seconds", lambda *_: 1.0)
    yield windows
    estimates.feature_seconds.cache_clear()


def by_name(steps):
    return {step.name: step for step in steps}


def test_the_windows_are_those_that_the_stages_take(ws, timed, tiny_data):
    plan.detection_steps(ws, "spp", (480,), "pool5", "detect")
    assert set(timed) == {2, 60}
    # The user's data get up to as many windows as are timed: see Workspace.windows.
    timed.clear()
    own = replace(ws, data=tiny_data / "VOCdevkit")
    plan.detection_steps(own, "spp", (480,), "pool5", "detect")
    assert set(timed) == {2, own.windows("test", "spp", (480,)).max_windows} == {2, 100}


def test_the_folders_are_those_of_the_workspace(ws):
    spp = ("spp", (480,), "ftfc7 bb")
    steps = plan.detection_steps(ws, *spp, "detect")
    assert [(step.name, step.out) for step in steps] == [
        ("data", ws.mini_folder()),
        ("pretrain", ws.network_folder("spp6", (224,))),
        ("propose", ws.proposals_folder("trainval")),
        ("finetune", ws.head_folder("spp", (480,))),
        ("train-svm", ws.detector_folder("spp", (480,), "ftfc7")),
        ("train-bbox", ws.detector_folder(*spp)),
        ("propose", ws.proposals_folder("test")),
        ("detect", ws.detections_folder(*spp)),
    ]


def test_detectors_that_are_there_are_not_made(ws, random_detector, tmp_path):
    given = (random_detector, random_detector)
    one, both = (
        plan.detection_steps(ws, "spp", (480,), "pool5", "detect", tmp_path / "out", detectors, "trainval")
        for detectors in (given[:1], given)
    )
    assert [step.name for step in both] == ["data", "propose", "detect"]
    assert [both[1].out, both[2].out] == [ws.proposals_folder("trainval"), tmp_path / "out"]
    assert both[2].seconds == 2 * one[2].seconds
    steps = plan.detection_steps(ws, "spp", (480,), "pool5 bb", "train-bbox", tmp_path / "bb", given[:1])
    assert [step.name for step in steps] == ["data", "propose", "train-bbox"]
    assert {"svm.safetensors", "detector.json", "bbox.safetensors"} <= set(steps[-1].files)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("row", ["pool5", "fc6", "ftfc7"])
def test_the_shortcuts_are_of_the_size_that_is_told(ws, method, row, tmp_path):
    scales = (480,) if method == "spp" else ()
    told = by_name(plan.detection_steps(ws, method, scales, row, "train-svm"))["train-svm"].files
    if row == "pool5":
        assert "shortcuts.safetensors" not in told
        return
    fc, pooled_size = ws.profile.fc, plan._walk(ws, method, scales, "trainval").pooled_size
    axes = {name: principal_axes(torch.zeros(2, fc)) for name in ("fc6", "fc7")[: 1 + (row == "ftfc7")]}
    state = {f"{name}.axes": each.axes for name, each in axes.items()}
    if method == "spp":
        state["cascade.weights"] = torch.zeros(20, pooled_size)
    save_file(state, tmp_path / "shortcuts.safetensors")
    size = (tmp_path / "shortcuts.safetensors").stat().st_size
    assert told["shortcuts.safetensors"] <= size <= told["shortcuts.safetensors"] + 500  # and a header


def test_features_are_computed_once(ws):
    spp = ("spp", (480,), "ftfc7", "detect")
    first, later = (by_name(plan.detection_steps(ws, *spp, cached=cached)) for cached in (False, True))
    # 20 images, of which 3 s is the whole and 2 s what follows the maps; mirrored too for fine-tuning.
    assert first["finetune"].seconds == pytest.approx(2 * 60, rel=0.01)
    assert later["finetune"].seconds == pytest.approx(2 * 40, rel=0.01)
    assert first["train-svm"].seconds == later["train-svm"].seconds == 80
    assert (first["detect"].seconds, later["detect"].seconds) == (60, 40)


def test_a_network_that_is_given_is_not_trained(ws, tiny_network):
    (network,) = (
        step
        for step in plan.detection_steps(
            replace(ws, network_run=tiny_network), "spp", (480,), "fc6", "train-svm"
        )
        if step.name in ("network", "pretrain")
    )
    assert (network.name, network.out, network.seconds) == ("network", tiny_network, 0)
    extract = ExtractConfig(("fc7",), "full", 224)
    real = Workspace(PROFILES["paper"], network_run=tiny_network, data=Path("VOCdevkit"))
    assert real.imagenet is None
    assert by_name(plan.network_steps(real, "spp6", (224,), None)).keys() == {"network"}
    assert plan.extract_steps(replace(ws, network_run=tiny_network), extract, "VOC", "test", (), None)


@pytest.mark.parametrize("lists", [("trainval", "test"), ("train", "val")])
def test_the_lists_of_transfer_are_those_that_are_used(ws, tiny_data, lists):
    steps = plan.transfer_steps(
        ws, "VOC", Column("spp6", "full", 224), ("fc6", "fc7"), train=lists[0], test=lists[1]
    )
    names = [step.out.name for step in steps if step.name == "extract-features"]
    assert names == [f"features-spp6-224-180-full-224-{name}-fc6+fc7" for name in lists]
    svms = [step.out.name for step in steps if step.name == "train-svm"]
    assert svms == [f"classifier-spp6-224-180-full-224-{lists[0]}-{layer}" for layer in ("fc6", "fc7")]
    for name, step in zip(lists, steps[2:], strict=False):
        count = len(load_voc(tiny_data / "VOCdevkit", name))
        assert step.files["fc6.npy"] == 4 * 32 * count


def test_errors_of_a_network(ws, tmp_path):
    steps = plan.errors_steps(ws, "plain", (224,), "8+2full")
    assert [step.name for step in steps] == ["data", "pretrain", "errors"]
    assert steps[-1].out == tmp_path / "runs/tiny/seed0/errors-plain-224-8+2full"


def test_data_that_are_missing_are_told():
    ws = Workspace(PROFILES["paper"])
    with pytest.raises(NeedsData, match="VOC 2007: give --data DIR") as error:
        plan.voc_steps(ws)
    assert error.value.what == "VOC 2007"
    with pytest.raises(NeedsData, match="give --network RUN"):
        plan.imagenet_steps(ws)
    assert plan.imagenet_steps(replace(ws, imagenet=Path("ILSVRC2012"))) == []


def test_a_photograph_is_looked_at_with_its_own_windows(ws, timed, random_detector, tmp_path):
    step = plan.photo_step(ws, random_detector, (480,), [Path("street.jpg")], tmp_path, 123)
    assert set(timed) == {2, 123}
    assert step.out == tmp_path
    assert np.isfinite(step.seconds)
