"""Detections for labelling tools: by hand, and back through the import."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.imports.importing import import_export
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.label_files import write_voc_annotations, write_yolo_labels

COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]
FRAME = pd.DataFrame(
    [("a", "w/o <helmet>", 0.5, 15.0, 10.0, 29.0, 29.0), ("a", "cat", -1.25, 0.0, 0.0, 59.0, 39.0)],
    columns=COLUMNS,
)
SIZES = {"a": (40, 60), "b": (30, 20)}


def test_yolo_by_hand(tmp_path):
    write_yolo_labels(tmp_path, FRAME, SIZES, ("cat", "w/o <helmet>"))
    assert (tmp_path / "classes.txt").read_text() == "cat\nw/o <helmet>\n"
    assert (tmp_path / "labels/a.txt").read_text() == (
        "1 0.375000 0.500000 0.250000 0.500000 0.5\n0 0.500000 0.500000 1.000000 1.000000 -1.25\n"
    )
    assert (tmp_path / "labels/b.txt").read_text() == ""


def test_voc_by_hand(tmp_path):
    write_voc_annotations(tmp_path, FRAME.iloc[:1], SIZES, {"a": "a & b.jpg", "b": "b.jpg"})
    text = (tmp_path / "Annotations/a.xml").read_text()
    assert "<filename>a &amp; b.jpg</filename>" in text
    assert "<name>w/o &lt;helmet&gt;</name>" in text
    assert "<confidence>0.5</confidence>" in text
    assert "".join(text.split()).count("<xmin>16</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>") == 1
    assert "<object>" not in (tmp_path / "Annotations/b.xml").read_text()


@pytest.mark.parametrize("layout", ["yolo", "voc"])
def test_back_through_the_import(layout, tmp_path):
    rng = np.random.default_rng(3)
    rows, sizes = [], {}
    for number in range(8):
        image = f"{number:02d}"
        height, width = (int(side) for side in rng.integers(50, 300, 2))
        sizes[image] = (height, width)
        (tmp_path / "export/images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(tmp_path / f"export/images/{image}.jpg")
        for _ in range(3):
            x1, y1 = (rng.uniform(0, side - 20) for side in (width, height))
            x2, y2 = (rng.uniform(low + 5, side - 1) for low, side in ((x1, width), (y1, height)))
            rows.append((image, rng.choice(["cat", "dog"]), rng.normal(), x1, y1, x2, y2))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if layout == "yolo":
        write_yolo_labels(tmp_path / "export", frame, sizes, ("cat", "dog"))
    else:
        write_voc_annotations(tmp_path / "export", frame, sizes, {image: f"{image}.jpg" for image in sizes})
    report = import_export(tmp_path / "export", tmp_path / "mine", test=0)
    assert (report.format, report.left_out) == (layout, {})
    dataset = load_voc(tmp_path / "mine", "trainval")
    for image in sizes:
        own = frame[frame["image"] == image]
        annotation = dataset.annotation(image)
        assert [dataset.class_names[label] for label in annotation.labels] == own["class"].tolist()
        np.testing.assert_allclose(annotation.boxes, own[["x1", "y1", "x2", "y2"]], atol=0.501)


@pytest.mark.parametrize("image", ["../evil", "/tmp/evil", "a/../../evil"])
def test_names_that_lead_outside_are_refused(image, tmp_path):
    with pytest.raises(DataError, match="names a file outside"):
        write_yolo_labels(tmp_path / "out", FRAME, {image: (1, 1)}, ("cat",))
    with pytest.raises(DataError, match="names a file outside"):
        write_voc_annotations(tmp_path / "out", FRAME, {image: (1, 1)}, {image: "x"})
    assert not list(tmp_path.rglob("evil*"))


def test_images_in_folders(tmp_path):
    frame = FRAME.assign(image="monday/a")
    write_yolo_labels(tmp_path, frame, {"monday/a": (40, 60)}, ("cat", "w/o <helmet>"))
    assert len((tmp_path / "labels/monday/a.txt").read_text().splitlines()) == 2
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["classes.txt", "labels"]'
