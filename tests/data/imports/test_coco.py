"""Faults of COCO JSON, its crowds and segments, and hostile file names."""

import json

import pytest
from PIL import Image

from sppnet_cli.data.imports.importing import import_export
from sppnet_cli.data.voc import load_voc

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
IMAGE = {"id": 1, "file_name": "1.jpg", "width": 60, "height": 40}
CAT = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 3, 18, 27]}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "export/images").mkdir(parents=True)
    for name in ("1", "2"):
        Image.new("RGB", (60, 40)).save(tmp_path / f"export/images/{name}.jpg")
    return tmp_path / "export"


def write(root, images, annotations, categories=CATEGORIES, name="instances.json"):
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))


def imported(root, tmp_path, **options):
    report = import_export(root, tmp_path / "mine", test=0, **options)
    return report, load_voc(tmp_path / "mine", "trainval")


def test_one_box_by_hand(root, tmp_path):
    write(root, [IMAGE], [CAT])
    report, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[2, 3, 19, 29]]
    assert dataset.annotation("1").size == (40, 60)
    assert report.as_dict() == {
        "format": "coco",
        "images": 1,
        "objects": 1,
        "classes": {"cat": 1},
        "splits": {"trainval": 1, "test": 0},
        "mended": {},
        "left_out": {"images_without_annotation": 1, "classes_without_objects": 1},
    }
    record = json.loads((tmp_path / "mine/import.json").read_text())
    assert record["image_ids"] == {"1": 1}
    assert record["category_ids"] == {"cat": 3, "dog": 7}


def test_images_without_objects_stay(root, tmp_path):
    write(root, [IMAGE, IMAGE | {"id": 2, "file_name": "2.jpg"}], [CAT])
    report, dataset = imported(root, tmp_path)
    assert dataset.ids == ("1", "2")
    assert len(dataset.annotation("2").boxes) == 0
    assert (report.mended, report.left_out) == ({}, {"classes_without_objects": 1})


def test_crowds_are_difficult_and_segments_boxes(root, tmp_path):
    segments = [[10, 5, 20, 5, 20, 15], [30.5, 8, 35, 12, 33, 20]]
    annotations = [
        CAT | {"iscrowd": 1, "segmentation": {"counts": [1], "size": [40, 60]}},
        CAT | {"id": 2, "bbox": None, "segmentation": segments, "category_id": 7},
    ]
    write(root, [IMAGE], annotations)
    report, dataset = imported(root, tmp_path)
    found = dataset.annotation("1")
    assert found.boxes.tolist() == [[2, 3, 19, 29], [10, 5, 34, 19]]
    assert found.difficult.tolist() == [True, False]
    assert report.mended == {"crowds_as_difficult": 1}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"category_id": 99}, "objects_of_unknown_classes"),
        ({"category_id": None}, "objects_of_unknown_classes"),
        ({"category_id": [3]}, "objects_of_unknown_classes"),
        ({"image_id": 99}, "objects_of_unknown_images"),
        ({"image_id": {"a": 1}}, "objects_of_unknown_images"),
        ({"bbox": [2, 3, 18]}, "boxes_unreadable"),
        ({"bbox": [2, 3, "x", 1]}, "boxes_unreadable"),
        ({"bbox": [2, 3, None, 1]}, "boxes_unreadable"),
        ({"bbox": [2, 3, float("nan"), 1]}, "boxes_unreadable"),
        ({"bbox": [2, 3, 10**400, 1]}, "boxes_unreadable"),
        ({"bbox": []}, "boxes_unreadable"),
        ({"bbox": None, "segmentation": [[1, 2, "a"]]}, "boxes_unreadable"),
        ({"bbox": None, "segmentation": [7]}, "boxes_unreadable"),
        ({"bbox": None, "segmentation": [[]]}, "boxes_unreadable"),
        ({"bbox": [2, 3, 0, 5]}, "boxes_empty"),
        ({"bbox": [2, 3, 4, -5]}, "boxes_empty"),
        ({"bbox": [60, 3, 4, 5]}, "boxes_outside"),
    ],
)
def test_objects_that_cannot_be_used_are_counted(fault, kind, root, tmp_path):
    write(root, [IMAGE], [CAT, CAT | {"id": 2} | fault])
    report, dataset = imported(root, tmp_path)
    assert report.left_out[kind] == 1
    assert dataset.annotation("1").boxes.tolist() == [[2, 3, 19, 29]]


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ({"file_name": "gone.jpg"}, "images_missing"),
        ({"file_name": None}, "images_unreadable"),
        ({"file_name": ["2.jpg"]}, "images_unreadable"),
        ({"file_name": ""}, "images_missing"),
        ({"id": None}, "images_unreadable"),
        ({"id": [2]}, "images_unreadable"),
        ({"width": 30, "height": 40}, "images_of_another_size"),
        ({"file_name": "1.jpg"}, "annotations_repeated"),
        ({"file_name": "../../../etc/passwd"}, "images_missing"),
        ({"file_name": "/etc/hostname"}, "images_missing"),
        ({"file_name": "..\\..\\secret.jpg"}, "images_missing"),
        ({"file_name": "secret.jpg\0"}, "images_missing"),
        ({"file_name": "x" * 10_000}, "images_missing"),
        ({"file_name": "file:///etc/passwd"}, "images_missing"),
    ],
)
def test_images_that_cannot_be_used_are_counted(image, kind, root, tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "secret.jpg")
    before = set(tmp_path.rglob("*"))
    write(root, [IMAGE, IMAGE | {"id": 2, "file_name": "2.jpg"} | image], [CAT])
    report, dataset = imported(root, tmp_path)
    assert report.left_out[kind] == 1
    assert dataset.ids == ("1",)
    assert {p for p in tmp_path.rglob("*") if "mine" not in p.parts} == before | {root / "instances.json"}


@pytest.mark.parametrize(
    "name", ["images/1.jpg", "./images/1.jpg", "/home/me/images/1.jpg", "..\\images\\1.jpg", "1"]
)
def test_paths_of_another_machine_are_matched_by_their_end(name, root, tmp_path):
    write(root, [IMAGE | {"file_name": name}], [CAT])
    report, dataset = imported(root, tmp_path)
    assert dataset.ids == ("1",)
    assert "images_missing" not in report.left_out


def test_a_name_that_several_files_have_is_not_guessed(root, tmp_path):
    for folder in ("monday", "tuesday"):
        (root / folder).mkdir()
        Image.new("RGB", (60, 40)).save(root / folder / "1.jpg")
    (root / "images/1.jpg").unlink()
    write(root, [IMAGE, IMAGE | {"id": 2, "file_name": "2.jpg"}], [CAT, CAT | {"image_id": 2}])
    report, dataset = imported(root, tmp_path)
    assert report.left_out["images_ambiguous"] == 1
    assert dataset.ids == ("2",)


def test_equal_file_names_in_the_folders_of_parts(tmp_path):
    root = tmp_path / "export"
    for part, corner in (("train", 2), ("val", 5)):
        (root / f"{part}2017").mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(root / f"{part}2017/1.jpg")
        box = CAT | {"bbox": [corner, corner, 10, 10]}
        write(root, [IMAGE], [box], name=f"annotations/instances_{part}2017.json")
    import_export(root, tmp_path / "mine")
    for split, image_id, corner in (("trainval", "train2017_1", 2), ("test", "val2017_1", 5)):
        dataset = load_voc(tmp_path / "mine", split)
        assert dataset.ids == (image_id,)
        assert dataset.annotation(image_id).boxes.tolist() == [[corner, corner, corner + 9, corner + 9]]


def test_captions_and_keypoints_beside_the_instances_are_not_read(root, tmp_path):
    write(root, [IMAGE], [CAT], name="annotations/instances_val2017.json")
    write(root, [IMAGE], [CAT | {"category_id": 7}], name="annotations/person_keypoints_val2017.json")
    (root / "annotations/captions_val2017.json").write_text(
        json.dumps({"images": [IMAGE], "annotations": [{}]})
    )
    report, _ = imported(root, tmp_path)
    assert report.classes == {"cat": 1}
    assert "annotations_repeated" not in report.left_out


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 3, "name": "cat"}, {"id": 3, "name": "cat"}],
        [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}],
        [{"id": 3, "name": " cat\n"}],
        [{"id": 3, "name": "cat"}, {"id": "x", "name": 5}, {"name": "dog"}, 7, None],
    ],
)
def test_odd_categories(categories, root, tmp_path):
    write(root, [IMAGE], [CAT], categories)
    assert imported(root, tmp_path)[0].classes == {"cat": 1}


def test_a_class_without_a_name_gets_one(root, tmp_path):
    write(root, [IMAGE], [CAT], [{"id": 3, "name": ""}])
    assert imported(root, tmp_path)[0].classes == {"class_3": 1}


@pytest.mark.parametrize("name", ["a\ud800b", "\0", "../../evil", "/etc/passwd", "con\nfused", "é" * 300])
def test_hostile_class_names_write_nowhere_else(name, root, tmp_path):
    write(root, [IMAGE], [CAT], [{"id": 3, "name": name}])
    before = set(tmp_path.rglob("*"))
    report, dataset = imported(root, tmp_path)
    (found,) = report.classes
    assert dataset.class_names == (found,)
    assert {path for path in tmp_path.rglob("*") if "mine" not in path.parts} == before


def test_fractions_go_to_the_nearest_pixels(root, tmp_path):
    write(root, [IMAGE], [CAT | {"bbox": [2.4, 3.6, 10.2, 0.3]}, CAT | {"bbox": [59.7, 39.8, 3, 3]}])
    _, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[2, 3, 12, 3], [59, 39, 59, 39]]


def test_json_that_is_nested_without_end_is_one_line(root, tmp_path):
    (root / "deep.json").write_text('{"images": 1, "annotations": 1, "categories": ' + "[" * 100_000)
    with pytest.raises(Exception, match=r"deep\.json: cannot be read as JSON"):
        import_export(root, tmp_path / "mine")


@pytest.mark.parametrize("name", ["1.png", "1.jpg", "1.JPEG"])
def test_of_one_stem_the_suffix_tells(name, root, tmp_path):
    for suffix in ("png", "JPEG"):
        Image.new("RGB", (60, 40)).save(root / f"images/1.{suffix}")
    write(root, [IMAGE | {"file_name": name}], [CAT])
    imported(root, tmp_path)
    assert json.loads((tmp_path / "mine/import.json").read_text())["sources"] == {"1": f"images/{name}"}
