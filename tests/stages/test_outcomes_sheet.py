"""What a detector found, found barely, missed and imagined."""

import pandas as pd
import pytest

from sppnet_cli.data.images import read_image
from sppnet_cli.data.voc import load_voc
from sppnet_cli.stages.detection_rows import CALIBRATED_COLUMNS
from sppnet_cli.stages.outcomes_sheet import draw_outcomes, outcomes


@pytest.fixture
def dataset(data):
    return load_voc(data, "test", 4)


@pytest.fixture
def found(dataset):
    """All objects of the first two images, those of the second not sure; and a wrong detection."""
    rows = []
    for image_id, sure in zip(dataset.ids, (0.9, 0.3), strict=False):
        truth = dataset.annotation(image_id)
        for k, (box, label) in enumerate(zip(truth.boxes.tolist(), truth.labels, strict=True)):
            rows.append((image_id, dataset.class_names[label], -k / 10, sure - k / 100, *box))
    rows.append((dataset.ids[3], dataset.class_names[0], -3.0, 0.8, 0.0, 0.0, 3.0, 3.0))
    return pd.DataFrame(rows, columns=list(CALIBRATED_COLUMNS))


def objects(dataset, index):
    truth = dataset.annotation(dataset.ids[index])
    return [tuple(box) for box in truth.boxes[~truth.difficult].tolist()]


def test_kinds(found, dataset):
    kinds = {kind: list(of_kind) for kind, of_kind in outcomes(found, dataset).items()}
    right = objects(dataset, 0)
    assert [(each.image, each.detection.box) for each in kinds["best"]] == [
        (dataset.ids[0], b) for b in right
    ]
    assert kinds["worst"] == kinds["best"][::-1]
    missed = [box for index in (1, 2, 3) for box in objects(dataset, index)]
    assert sorted(each.detection.box for each in kinds["missed"]) == sorted(missed)
    assert kinds["false"][0].image == dataset.ids[3]
    assert kinds["false"][0].detection.confidence == 0.8


def test_without_confidences_scores_above_0_count(found, dataset):
    frame = found.drop(columns="confidence")
    assert outcomes(frame, dataset)["best"] == []
    frame["score"] += 1
    assert len(outcomes(frame, dataset)["best"]) == len(objects(dataset, 0)) + len(objects(dataset, 1))


def test_of_two_objects_of_a_class_the_other_is_missed(dataset):
    image_id, name = dataset.ids[0], dataset.class_names[0]
    path = dataset.root / "Annotations" / f"{image_id}.xml"
    boxes = [(1, 1, 20, 20), (41, 41, 60, 60)]
    corners = [
        "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        for box in boxes
    ]
    objects = "".join(f"<object><name>{name}</name><bndbox>{c}</bndbox></object>" for c in corners)
    size = "<size><width>80</width><height>80</height></size>"
    path.write_text(f"<annotation>{size}{objects}</annotation>")
    for found, left in (((40, 40, 59, 57), (0, 0, 19, 19)), ((0, 0, 19, 19), (40, 40, 59, 59))):
        frame = pd.DataFrame(
            [(image_id, name, 0.0, 0.9, *map(float, found))], columns=list(CALIBRATED_COLUMNS)
        )
        missed = [each.detection.box for each in outcomes(frame, dataset)["missed"] if each.image == image_id]
        assert missed == [left]


def test_the_sheet(found, dataset, tmp_path):
    found.to_csv(tmp_path / "detections.csv", index=False)
    draw_outcomes(tmp_path, dataset, tmp_path / "sheet.jpg")
    height, width = read_image(tmp_path / "sheet.jpg").shape[:2]
    assert 200 < width <= 1500
    assert height > 4 * 200


def test_an_image_that_cannot_be_read_is_left_out(found, dataset, tmp_path, capsys):
    dataset.image_path(dataset.ids[0]).write_bytes(b"")
    found.to_csv(tmp_path / "detections.csv", index=False)
    draw_outcomes(tmp_path, dataset, tmp_path / "sheet.jpg")
    assert "skipped" in capsys.readouterr().err
    assert (tmp_path / "sheet.jpg").is_file()
