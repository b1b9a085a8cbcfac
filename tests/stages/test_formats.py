"""Detections written for other tools, and read back by our import and an independent COCO tool's rules."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.shown import Shown
from sppnet_cli.stages.detection_rows import CALIBRATED_COLUMNS
from sppnet_cli.stages.formats import images_of_files, images_of_set, write_formats
from sppnet_cli.stages.score_detections import evaluate_detections


@pytest.fixture
def files(tmp_path):
    """Two files of one name, one that cannot be read, and where their pictures are."""
    paths = [tmp_path / "a" / "street.png", tmp_path / "b" / "broken.jpg", tmp_path / "b" / "street.png"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 20)).save(path)
    pictures = {
        str(paths[0]): tmp_path / "out" / "street.jpg",
        str(paths[2]): tmp_path / "out" / "street-2.jpg",
    }
    rows = [
        (str(paths[0]), "dog", -0.8, 0.75, 0.0, 0.0, 19.0, 9.0),
        (str(paths[2]), "cat", -0.9, 0.5, 10.0, 5.0, 29.0, 14.0),
        (str(paths[2]), "dog", -1.2, 0.1, 0.0, 0.0, 9.0, 9.0),
    ]
    return paths, pictures, pd.DataFrame(rows, columns=list(CALIBRATED_COLUMNS))


def test_all_formats_by_hand(files, tmp_path):
    paths, pictures, frame = files
    images = images_of_files(paths, pictures, ("cat", "dog"))
    out = tmp_path / "out"
    out.mkdir()
    written = write_formats(out, frame, ("csv", "voc", "coco", "yolo"), Shown(), images, ("cat", "dog"))
    assert written == ["detections.json", "yolo/", "voc/"]
    found = json.loads((out / "detections.json").read_text())
    assert [(e["image_id"], e["category_id"], e["score"], e["confidence"]) for e in found] == [
        (1, 2, -0.8, 0.75), (3, 1, -0.9, 0.5), (3, 2, -1.2, 0.1),
    ]  # fmt: skip
    assert (out / "yolo/classes.txt").read_text() == "cat\ndog\n"
    labels = {path.stem: path.read_text().split() for path in (out / "yolo/labels").iterdir()}
    assert labels == {
        "street": ["1", "0.250000", "0.250000", "0.500000", "0.500000", "0.75"],
        "street-2": ["0", "0.500000", "0.500000", "0.500000", "0.500000", "0.5"],
    }
    xml = (out / "voc/Annotations/street-2.xml").read_text()
    assert "<filename>street.png</filename>" in xml
    assert "<confidence>0.5</confidence>" in xml
    assert "<xmin>11</xmin>" in xml


def test_labels_of_another_call_do_not_stay(files, tmp_path):
    paths, pictures, frame = files
    images = images_of_files(paths, pictures, ("cat", "dog"))
    write_formats(tmp_path, frame, ("yolo",), Shown(), images, ("cat", "dog"))
    (tmp_path / "yolo/labels/other.txt").touch()
    assert write_formats(tmp_path, frame, ("yolo",), Shown(-2.0), images, ("cat", "dog")) == ["yolo/"]
    assert sorted(path.name for path in (tmp_path / "yolo/labels").iterdir()) == [
        "street-2.txt",
        "street.txt",
    ]
    assert len((tmp_path / "yolo/labels/street-2.txt").read_text().splitlines()) == 2


def test_coco_results_of_a_set_score_as_the_csv(data, tmp_path):
    dataset = load_voc(data, "test")
    rng = np.random.default_rng(0)
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        for box, label in zip(truth.boxes, truth.labels, strict=True):
            moved = box + rng.normal(0, 4, 4)
            if (moved[2:] > moved[:2]).all():
                sure = rng.random()
                rows.append((image_id, dataset.class_names[label], sure - 1.5, sure, *moved.tolist()))
    frame = pd.DataFrame(rows, columns=list(CALIBRATED_COLUMNS))
    frame.to_csv(tmp_path / "detections.csv", index=False)
    write_formats(tmp_path, frame, ("coco",), Shown(), images_of_set(dataset), dataset.class_names)
    by_csv = evaluate_detections(tmp_path / "detections.csv", data, "test")
    by_coco = evaluate_detections(tmp_path / "detections.json", data, "test")
    assert 0.2 < by_csv.mean_ap < 1
    assert by_coco.ap == pytest.approx(by_csv.ap, nan_ok=True)
    assert by_coco.reliability.error == pytest.approx(by_csv.reliability.error)
