"""`sppnet data import`: what it prints, its JSON and its exit codes; the work itself is tested with `data.imports`."""

import json

import pytest
from PIL import Image


@pytest.fixture
def export(tmp_path):
    """Five images of a COCO export with a cat each, one of them over the edge, and one without an entry."""
    (tmp_path / "export").mkdir()
    images, annotations = [], []
    for number in range(6):
        Image.new("RGB", (60, 40)).save(tmp_path / f"export/{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 60, "height": 40})
        box = [50, 10, 30, 10] if number == 3 else [5, 10, 30, 10]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    content = {"images": images[:5], "annotations": annotations[:5], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "export/labels.json").write_text(json.dumps(content))
    return tmp_path / "export"


def test_import_prints_what_it_read_mended_and_left_out(sppnet, export):
    code, out, err = sppnet("data", "import", "export", "--out", "mine")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["export:", "COCO,", "labels.json;", "5", "images,", "4", "in", "trainval,", "1", "in", "test"],
        [
            "class",
            "images,",
            "trainval",
            "objects",
            "images,",
            "test",
            "objects",
            "objects",
            "mended",
            "left",
            "out",
        ],
        ["-" * n for n in (5, 16, 7, 12, 7, 14, 8)],
        ["cat", "4", "4", "1", "1", "1", "0"],
        ["Mended", "and", "left", "out"],
        ["what", "count", "first", "of", "them"],
        ["-" * n for n in (8, 25, 5, 13)],
        ["mended", "boxes", "clipped", "1", "3.jpg"],
        ["left", "out", "images", "without", "annotation", "1", "5.jpg"],
    ]
    assert err == "COCO: mine\nnext: sppnet train mine --out my-detector\n"


def test_import_as_json(sppnet, export):
    code, out, _ = sppnet("data", "import", export, "--out", "mine", "--test", "0.4", "--copy", "--json")
    assert code == 0
    assert json.loads(out) == {
        "format": "coco",
        "images": 5,
        "objects": 5,
        "classes": {"cat": 5},
        "splits": {"trainval": 3, "test": 2},
        "mended": {"boxes_clipped": 1},
        "left_out": {"images_without_annotation": 1},
    }


def test_strict_refuses(sppnet, export, tmp_path):
    code, out, err = sppnet("data", "import", export, "--out", "mine", "--strict")
    assert (code, out) == (3, "")
    (line,) = err.splitlines()
    assert line == (
        f"error: {export}: 1 boxes clipped (3.jpg) and 1 other kinds; correct the export, or import it without --strict"
    )
    assert not (tmp_path / "mine").exists()


def test_what_is_imported_is_taken_by_other_commands(sppnet, export):
    assert sppnet("data", "import", export, "--out", "mine", "--quiet")[0] == 0
    code, out, err = sppnet("data", "check", "mine")
    assert code == 0
    assert out.splitlines()[3].split() == ["VOC", "trainval", "4", "1", "4..4", "4"]
    assert "mine/VOC2007: your own set, good for training and testing detectors of its classes" in err


@pytest.mark.parametrize("part", ["1", "-0.1", "nan", "x", "20%"])
def test_parts_that_are_none(part, sppnet, export):
    code, _, err = sppnet("data", "import", export, "--out", "mine", "--test", part)
    assert code == 2
    assert "--test" in err


def test_out_is_asked_for(sppnet, export):
    code, _, err = sppnet("data", "import", export)
    assert code == 2
    assert "--out" in err


def test_names_of_latin_1_are_printed(sppnet, export):
    (export / "5.jpg").rename(export / "caf\udce9.jpg")
    code, out, _ = sppnet("data", "import", export, "--out", "mine")
    assert code == 0
    assert "images without annotation" in out
