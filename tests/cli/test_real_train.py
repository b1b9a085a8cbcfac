"""`sppnet train` on two hundred real photographs with a real trunk; see CONTRIBUTING.md for where they come from."""

import json
import os
import sys
from pathlib import Path

import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.evaluation.reliability import reliability_of
from sppnet_cli.stages.score_detections import read_detections

sys.path.append(str(Path(__file__).parents[1] / "data" / "imports"))
from exporters import Photo, coco

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder"),
]

RENAMED = {"car": "van", "cat": "kitty", "dog": "hound", "person": "human"}


def photographs(count):
    """The first photographs with any of four classes, which are somebody's own."""
    dataset = load_voc(SHARED / "data" / "VOCdevkit", "trainval")
    found = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        names = [RENAMED.get(dataset.class_names[label]) for label in truth.labels]
        objects = tuple(
            (name, *map(int, box))
            for name, box, difficult in zip(names, truth.boxes, truth.difficult, strict=True)
            if name and not difficult
        )
        if objects and len(found) < count:
            found.append(Photo(dataset.image_path(image_id), truth.size[::-1], objects))
    return found


def test_from_an_export_to_a_detector_that_knows_how_sure_it_is(sppnet, tmp_path):
    coco(photographs(200), tmp_path / "export")
    weights = SHARED / "weights" / "squeezenet1_1_features.pth"
    code, out, err = sppnet("train", "export", "--weights", weights, "--out", "mine", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["images"] == 200
    assert set(result["AP"]) == {"hound", "human", "kitty", "van"}
    assert result["mAP"] > 0.25
    (data,) = (tmp_path / "runs/pretrained").glob("set-export-*/VOCdevkit")
    (detections,) = (tmp_path / "runs/pretrained").glob("detections-mine-test-*")
    dataset = load_voc(data, "test")
    found = reliability_of(read_detections(detections, dataset)[0], dataset)
    assert found.error == pytest.approx(result["calibration_error"])
    assert found.error < 0.07 + found.chance  # what .07 off would show of so few detections, at most
    assert found.brier < found.base_brier
