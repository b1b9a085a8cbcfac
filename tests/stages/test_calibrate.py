"""Folds of the training images, and the calibration that comes from detections in them."""

import re
import shutil
from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.errors import DataError
from sppnet_cli.learning.calibration import CalibrationRules
from sppnet_cli.stages.calibrate import CalibrateConfig, calibrate
from sppnet_cli.stages.detect import DetectConfig, detect
from sppnet_cli.stages.detection_rows import CALIBRATED_COLUMNS, COLUMNS
from sppnet_cli.stages.folds import FoldsConfig, deal_folds, fold_name, rest_name
from sppnet_cli.stages.profiles import find_profile
from sppnet_cli.stages.score_detections import evaluate_detections, read_detections
from sppnet_cli.stages.workspace import Workspace

FOLDS = FoldsConfig("trainval", 3, 0)


@pytest.fixture
def folds(make, data):
    return lambda config=FOLDS: make(deal_folds, config, {"data": data}, "folds")


def lists(folder, name, count=3):
    return [(folder / f"{name(k)}.txt").read_text().split() for k in range(1, count + 1)]


def test_folds_part_the_images(folds, data):
    folder = folds()
    ids = load_voc(data, "trainval").ids
    held = lists(folder, fold_name)
    assert sorted(chain(*held)) == sorted(ids)
    assert min(map(len, held)) >= 4  # 20 images of 20 classes
    for inside, outside in zip(held, lists(folder, rest_name), strict=True):
        assert outside == [image_id for image_id in ids if image_id not in inside]
        assert inside == [image_id for image_id in ids if image_id in inside]
    assert load_voc(data, fold_name(2), lists=folder).ids == tuple(held[1])


def test_folds_of_the_first_images(folds, data):
    held = lists(folds(replace(FOLDS, limit=5)), fold_name)
    assert sorted(chain(*held)) == sorted(load_voc(data, "trainval", 5).ids)


def test_frames_of_a_video_stay_together(make, data):
    root = next(data.iterdir())
    names = {old: f"clip{'ab'[k % 2]}_{k:04d}" for k, old in enumerate(load_voc(data, "trainval").ids)}
    for old, new in names.items():
        xml = (root / "Annotations" / f"{old}.xml").read_text()
        (root / "Annotations" / f"{new}.xml").write_text(re.sub("(?<=<name>).*?<", "thing<", xml))
    shutil.rmtree(root / "ImageSets/Main")
    (root / "ImageSets/Main").mkdir()
    for path in (root / "Annotations").glob("0*.xml"):
        path.unlink()
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(names.values()))
    folder = make(deal_folds, replace(FOLDS, count=2), {"data": data}, "folds")
    for held in lists(folder, fold_name, 2):
        assert len({name[:5] for name in held}) == 1


def test_too_few_images_for_the_folds(folds, data):
    (next(data.iterdir()) / "ImageSets/Main/trainval.txt").write_text(
        "\n".join(load_voc(data, "trainval").ids[:2])
    )
    with pytest.raises(DataError, match="2 images of trainval have objects, fewer than 3 folds"):
        folds()


@pytest.fixture
def calibrated(make, folds, data, random_detector, tmp_path):
    """Calibrates the detector that has learnt nothing on detections of which the given chance is right."""

    def run(chance, name="calibrated"):
        folder = folds()
        inputs = {"detector": random_detector, "data": data, "lists": folder}
        rng = np.random.default_rng(0)
        for k in range(1, 4):
            dataset = load_voc(data, fold_name(k), lists=folder)
            rows = []
            for image_id in dataset.ids:
                truth = dataset.annotation(image_id)
                for box, label in zip(truth.boxes.tolist(), truth.labels, strict=True):
                    score = rng.normal(-1, 0.5)
                    if rng.random() > chance(score):
                        box = [0.0, 0.0, 1.0, 1.0]
                    rows.append((image_id, dataset.class_names[label], score, *box))
            inputs[f"fold {k}"] = tmp_path / f"fold{k}.csv"
            pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(inputs[f"fold {k}"], index=False)
        config = CalibrateConfig(CalibrationRules(folds=3, slope_spread=0.3, offset_spread=2.0))
        return make(calibrate, config, inputs, name)

    return run


def test_a_detector_gets_the_curve_of_its_folds(calibrated, random_detector):
    run = calibrated(lambda score: float(score > -1))
    curves = Detector.load(run).calibration
    assert len(curves.slope) == len(Detector.load(random_detector).class_names)
    low, high = np.mean([[curves(np.array([s]), k)[0] for k in range(20)] for s in (-1.3, -0.7)], axis=1)
    assert low < 0.25
    assert high > 0.6
    before = {path.name: path.read_bytes() for path in random_detector.iterdir()}
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.name != "manifest.json"}
    assert {name for name in after if after[name] != before.get(name)} == {"detector.json"}


def test_no_right_detection_gives_no_calibration(calibrated, capsys):
    run = calibrated(lambda _: 0.0)
    assert Detector.load(run).calibration is None
    assert "no right detection" in capsys.readouterr().err


def test_detections_of_a_calibrated_detector_have_confidences(
    make, calibrated, random_detector, data, proposals
):
    found = {}
    for name, detector in (("plain", random_detector), ("sure", calibrated(lambda score: float(score > -1)))):
        inputs = {"detector": detector, "data": data, "proposals": proposals}
        found[name] = make(detect, DetectConfig("test", 50, 3), inputs, name)
    plain, sure = (
        pd.read_csv(found[name] / "detections.csv", dtype={"image": str}) for name in ("plain", "sure")
    )
    assert tuple(plain.columns) == COLUMNS
    assert tuple(sure.columns) == CALIBRATED_COLUMNS
    pd.testing.assert_frame_equal(plain, sure.drop(columns="confidence"))
    assert sure["confidence"].between(0, 1).all()
    for _, rows in sure.groupby("class"):
        assert rows.sort_values("score")["confidence"].is_monotonic_increasing
    for path in (found["plain"] / "comp4").iterdir():  # ranked by the score
        assert path.read_bytes() == (found["sure"] / "comp4" / path.name).read_bytes()
    scores = [evaluate_detections(found[name], data, "test", 3) for name in ("plain", "sure")]
    assert scores[0].ap == pytest.approx(scores[1].ap, abs=0, nan_ok=True)
    frame, _ = read_detections(found["sure"], load_voc(data, "test", 3))
    assert tuple(frame.columns) == CALIBRATED_COLUMNS


def test_several_detectors_have_no_confidence_together(make, calibrated, data, proposals):
    detector = calibrated(lambda score: float(score > -1))
    inputs = {"detector": detector, "detector 2": detector, "data": data, "proposals": proposals}
    run = make(detect, DetectConfig("test", 50, 2), inputs, "both")
    assert tuple(pd.read_csv(run / "detections.csv").columns) == COLUMNS


def test_stages_of_other_detectors_are_what_they_were(data):
    """A fold changes what it learns from, and the input `lists` is there for folds alone."""
    ws = Workspace(find_profile("tiny"), data=data)
    whole, fold = (
        ws.detector("spp", (120,), "ftfc7 bb"),
        replace(ws, fold=2).detector("spp", (120,), "ftfc7 bb"),
    )
    assert whole.config.windows.split == "trainval"
    assert fold.config.windows.split == "without2"
    assert set(fold.inputs) - set(whole.inputs) == {"lists"}
    assert fold.folder != whole.folder


def test_a_fold_detects_in_what_it_did_not_learn_from(data):
    made = Workspace(find_profile("tiny"), data=data).calibrated("spp", (120,), "pool5")
    for k in range(1, 5):
        detections = made.inputs[f"fold {k}"]
        assert detections.config.split == f"fold{k}"
        assert detections.inputs["detector"].config.windows.split == f"without{k}"
        assert detections.inputs["lists"].digest == made.inputs["lists"].digest


@pytest.mark.parametrize(("least", "row"), [(1, "pool5 bb"), (200, "pool5")])
def test_few_objects_get_no_box_regression(data, monkeypatch, least, row):
    monkeypatch.setattr("sppnet_cli.stages.workspace.detectors.ENOUGH", least)
    assert Workspace(find_profile("tiny"), data=data).choose() == ((480, 576, 688, 864, 1200), row)
