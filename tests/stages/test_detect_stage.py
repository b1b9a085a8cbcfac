"""Detections of a split as a run directory."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.spp import FeatureMaps
from sppnet_cli.stages import detect as stage
from sppnet_cli.stages.detect import DetectConfig, as_frame, detect_stage
from sppnet_cli.stages.windows import WindowConfig, WindowInputs

SCALES = (120, 240)
CONFIG = DetectConfig(WindowConfig("test", "spp", SCALES, "paper", 1000, 6))
FILES = ["comp4", "detections.csv", "manifest.json", "proposal_recall.csv"]


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the tiny VOC, to be spoilt."""
    return shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")


@pytest.fixture
def proposals(random_proposals, tmp_path):
    return shutil.copytree(random_proposals, tmp_path / "proposals")


@pytest.fixture
def detect(random_detector, data, proposals, tmp_path):
    def run(name="run", gigabytes=1.0, config=CONFIG):
        inputs = WindowInputs(data, proposals, tmp_path / "cache", gigabytes)
        return detect_stage(config, (random_detector,), inputs, tmp_path / name, device="cpu")

    return run


@pytest.fixture
def seen(monkeypatch):
    """Sizes of the images in which was detected, in order; `seen.stop_at` ends the run there."""

    class Seen(list):
        stop_at = None

    seen = Seen()
    original = stage.detect_together

    def spy(detectors, pooled, boxes, size):
        if len(seen) == seen.stop_at:
            raise KeyboardInterrupt
        seen.append(size)
        return original(detectors, pooled, boxes, size)

    monkeypatch.setattr(stage, "detect_together", spy)
    return seen


def test_rows_are_those_of_the_detector_in_the_lists_order(detect, random_detector, data, proposals):
    run = detect()
    assert sorted(path.name for path in run.iterdir()) == FILES
    dataset = load_voc(data, "test", 6)
    detector = Detector.load(random_detector)
    frames = []
    for image_id in dataset.ids:
        boxes = np.load(proposals / "boxes" / f"{image_id}.npy")
        prepared = detector.extractor.prepare(dataset.image(image_id))
        maps = FeatureMaps(prepared.size, tuple(one.half().float() for one in prepared.maps))
        found = detector.detect_pooled(detector.extractor.pool(maps, boxes), boxes, prepared.size)
        frames.append(as_frame(image_id, found, detector.class_names))
    expected = pd.concat(frames, ignore_index=True)
    assert len(expected) > 100
    rows = pd.read_csv(run / "detections.csv", dtype={"image": str})
    pd.testing.assert_frame_equal(rows, expected, check_exact=True, check_dtype=False)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_run_that_was_cut_off_goes_on_with_the_image_in_hand(detect, seen, stop):
    whole = detect("whole")
    assert len(seen) == 6
    seen.clear()
    seen.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        detect()
    seen.stop_at = None
    run = detect()
    assert len(seen) == 6  # none twice
    assert (run / "detections.csv").read_bytes() == (whole / "detections.csv").read_bytes()
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert detect() == run
    assert len(seen) == 6


def test_any_cache_gives_the_same_bytes(detect, tmp_path):
    runs = []
    for name, gigabytes in (("none", 0.0), ("little", 1e-4), ("all", 1.0), ("read", 1.0)):
        runs.append(detect(name, gigabytes))
    assert len({(run / "detections.csv").read_bytes() for run in runs}) == 1
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 12


def test_an_image_that_cannot_be_read_is_left_out(detect, data, capsys):
    dataset = load_voc(data, "test", 6)
    whole = detect("whole")
    shutil.rmtree(whole.parent / "cache")
    dataset.image_path(dataset.ids[2]).write_bytes(b"")
    run = detect()
    rows = pd.read_csv(run / "detections.csv", dtype={"image": str})
    expected = pd.read_csv(whole / "detections.csv", dtype={"image": str})
    expected = expected[expected["image"] != dataset.ids[2]].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected)
    skipped = pd.read_csv(run / "skipped.csv", dtype=str)
    assert skipped["image"].tolist() == [dataset.ids[2]]
    assert str(dataset.image_path(dataset.ids[2])) in skipped["reason"][0]
    told = capsys.readouterr().err
    assert f"warning: skipped: {dataset.image_path(dataset.ids[2])}" in told
    assert "1 of 6 images were skipped" in told


def test_no_image_can_be_used(detect, data):
    dataset = load_voc(data, "test", 6)
    for image_id in dataset.ids:
        dataset.image_path(image_id).write_bytes(b"")
    with pytest.raises(DataError, match=rf"none of its 6 images could be used: .*{dataset.ids[0]}"):
        detect()


def test_an_image_without_proposals_has_no_detections(detect, data, proposals):
    ids = load_voc(data, "test", 6).ids
    np.save(proposals / "boxes" / f"{ids[0]}.npy", np.empty((0, 4), np.float32))
    rows = pd.read_csv(detect() / "detections.csv", dtype={"image": str})
    assert rows["image"].unique().tolist() == list(ids[1:])


def test_a_detector_of_other_classes(detect, data):
    for path in (data / "VOC2007" / "ImageSets" / "Main").glob("*_*.txt"):
        if path.name.startswith("a"):
            path.unlink()
    with pytest.raises(UsageError, match="which are not the classes of"):
        detect()


def test_a_detector_combined_with_itself_changes_nothing(detect, random_detector, data, proposals, tmp_path):
    alone = detect()
    inputs = WindowInputs(data, proposals, tmp_path / "cache", 1.0)
    twice = detect_stage(CONFIG, (random_detector, random_detector), inputs, tmp_path / "twice", device="cpu")
    assert (twice / "detections.csv").read_bytes() == (alone / "detections.csv").read_bytes()


def test_detectors_of_different_classes_are_not_combined(random_detector, data, proposals, tmp_path):
    other = shutil.copytree(random_detector, tmp_path / "other")
    about = (other / "detector.json").read_text().replace("disk", "disc")
    (other / "detector.json").write_text(about)
    inputs = WindowInputs(data, proposals, tmp_path / "cache", 1.0)
    with pytest.raises(UsageError, match="other: is of other classes or another protocol"):
        detect_stage(CONFIG, (random_detector, other), inputs, tmp_path / "run", device="cpu")
