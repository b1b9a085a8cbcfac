"""Detections of a split as a run directory."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector, detect_together
from sppnet_cli.detection.fast import FastOptions
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.spp import FeatureMaps
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.network.sppnet import Head
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages import detect as stage
from sppnet_cli.stages.detect import DetectConfig, as_frame, lacks_images, skipped_images
from sppnet_cli.stages.score_detections import read_detections

CONFIG = DetectConfig("test", 1000, 6)
FILES = ["comp4", "detections.csv", "manifest.json", "proposal_recall.csv"]


@pytest.fixture
def detect(make, random_detector, data, proposals):
    def run(name="run", gigabytes=1.0, config=CONFIG, workers=1, detectors=(random_detector,)):
        inputs = {f"detector {k}" if k > 1 else "detector": path for k, path in enumerate(detectors, 1)}
        inputs |= {"data": data, "proposals": proposals}
        how = {"cache_gb": gigabytes, "workers": workers}
        return make(stage.detect, config, inputs, name, unfinished=lacks_images, **how)

    run.data, run.proposals = data, proposals
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
        pooled = detector.extractor.pool_distinct(maps, boxes)
        found = detect_together([detector], [pooled], boxes, prepared.size)
        frames.append(as_frame(image_id, found, detector.class_names))
    expected = pd.concat(frames, ignore_index=True)
    assert len(expected) > 100
    rows, _missing = read_detections(run, dataset)
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


@pytest.mark.parametrize("broken", ["image", "proposals"])
def test_what_was_skipped_is_tried_again_once_it_is_repaired(detect, data, proposals, seen, broken, tmp_path):
    whole = detect("whole")
    shutil.rmtree(tmp_path / "cache")
    dataset = load_voc(data, "test", 6)
    files = [
        dataset.image_path(i) if broken == "image" else proposals / "boxes" / f"{i}.npy" for i in dataset.ids
    ]
    contents = [file.read_bytes() for file in files]
    for k in (2, 4):
        files[k].write_bytes(contents[k][:100])
    run = detect()
    assert list(skipped_images(run)) == [dataset.ids[2], dataset.ids[4]]
    assert str(files[2]) in skipped_images(run)[dataset.ids[2]]

    files[4].write_bytes(contents[4])
    seen.clear()
    assert detect() == run
    assert len(seen) == 1
    assert list(skipped_images(run)) == [dataset.ids[2]]
    seen.clear()
    assert detect() == run
    assert not seen  # tried, and still broken
    assert list(skipped_images(run)) == [dataset.ids[2]]

    files[2].write_bytes(contents[2])
    assert detect() == run
    assert len(seen) == 1
    assert skipped_images(run) == {}
    assert sorted(path.name for path in run.iterdir()) == FILES
    for name in ("detections.csv", "proposal_recall.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    seen.clear()
    assert detect() == run
    assert not seen


def test_a_run_with_skipped_images_is_still_only_of_its_settings(detect, data):
    dataset = load_voc(data, "test", 6)
    dataset.image_path(dataset.ids[2]).write_bytes(b"")
    run = detect()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = replace(CONFIG, max_windows=7)
    with pytest.raises(UsageError, match="max_windows was 1000, not 7"):
        detect(config=other)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("workers", [0, 3])
def test_any_number_of_workers_gives_the_same_bytes(detect, data, workers):
    dataset = load_voc(data, "test", 6)
    dataset.image_path(dataset.ids[3]).write_bytes(b"")
    one, several = detect("one"), detect("several", workers=workers)
    for name in ("detections.csv", "skipped.csv", "proposal_recall.csv"):
        assert (one / name).read_bytes() == (several / name).read_bytes()


@pytest.fixture
def fc_detector(random_detector, tmp_path):
    """A detector on fc7 that has learnt nothing, with shortcuts that have not either."""
    base = Detector.load(random_detector)
    torch.manual_seed(0)
    head = Head(base.extractor.network.pooled_size, 32, 2).eval()
    rng = np.random.default_rng(0)
    classes = len(base.class_names)
    svms = Svms(rng.normal(size=(classes, 32)).astype(np.float32), np.full(classes, 0.0, np.float32), 1.0)
    folder = tmp_path / "fc_detector"
    folder.mkdir()
    axes = {name: principal_axes(torch.randn(40, 32)) for name in ("fc6", "fc7")}
    shortcuts = Shortcuts(base.svms, axes)
    Detector(base.extractor, "fc7", base.class_names, svms, head=head, shortcuts=shortcuts).save(folder)
    return folder


def test_fast_runs_are_runs_of_other_settings(detect, fc_detector):
    def run(name, fast):
        return detect(name, config=replace(CONFIG, fast=fast), detectors=[fc_detector])

    whole, fast = run("whole", None), run("fast", FastOptions((8, 4), 0.3))
    assert read_manifest(fast)["config"]["fast"] == {"fc_rank": [8, 4], "cascade": 0.3}
    rows = [len(pd.read_csv(made / "detections.csv")) for made in (whole, fast)]
    assert 0 < rows[1] < rows[0]
    assert run("fast", FastOptions((8, 4), 0.3)) == fast
    with pytest.raises(UsageError, match=r"made with other settings: fast.cascade was 0.3, not 0.4"):
        run("fast", FastOptions((8, 4), 0.4))
    with pytest.raises(UsageError, match="made with other settings: fast was"):
        run("fast", None)


def test_other_scales_than_the_detectors(detect, random_detector):
    """They are the first detector's; one that is combined with it keeps its own."""
    own, small = detect(), detect("small", config=replace(CONFIG, scales=(100,)))
    detector = Detector.load(random_detector, scales=(100,))
    dataset = load_voc(detect.data, "test", 6)
    image, boxes = (
        dataset.image(dataset.ids[0]),
        np.load(detect.proposals / "boxes" / f"{dataset.ids[0]}.npy"),
    )
    expected = as_frame(dataset.ids[0], detector.set_image(image).detect(boxes), detector.class_names)
    rows = pd.read_csv(small / "detections.csv", dtype={"image": str})
    rows = rows[rows["image"] == dataset.ids[0]]
    np.testing.assert_allclose(rows["score"], expected["score"], atol=0.02)  # maps are kept in 16 bits
    assert (own / "detections.csv").read_bytes() != (small / "detections.csv").read_bytes()


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


def test_a_detector_combined_with_itself_changes_nothing(detect, random_detector):
    alone, twice = detect(), detect("twice", detectors=[random_detector] * 2)
    assert (twice / "detections.csv").read_bytes() == (alone / "detections.csv").read_bytes()


@pytest.mark.parametrize(("known", "other"), [("disk", "disc"), ('"nms_iou": 0.3', '"nms_iou": 0.4')])
def test_detectors_of_different_classes_or_rules_are_not_combined(
    detect, random_detector, tmp_path, known, other
):
    copy = shutil.copytree(random_detector, tmp_path / "other")
    about = (copy / "detector.json").read_text()
    assert known in about
    (copy / "detector.json").write_text(about.replace(known, other))
    with pytest.raises(UsageError, match="other: is of other classes or another protocol"):
        detect(detectors=[random_detector, copy])


def test_ten_detectors_keep_their_order(detect, random_detector, tmp_path, monkeypatch):
    folders = [shutil.copytree(random_detector, tmp_path / f"copy{k}") for k in range(11)]
    loaded = []
    original = Detector.load.__func__

    def spy(cls, path, *arguments, **options):
        loaded.append(path)
        return original(cls, path, *arguments, **options)

    monkeypatch.setattr(Detector, "load", classmethod(spy))
    detect(config=replace(CONFIG, limit=1), detectors=folders)
    assert loaded == folders
