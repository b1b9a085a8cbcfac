"""Faults of YOLO labels, names and splits, and hostile paths in a YAML."""

import pytest
from PIL import Image

from sppnet_cli.data.imports.importing import import_export
from sppnet_cli.data.voc import load_voc

CAT = "0 0.35 0.5 0.3 0.5\n"  # x 12..29, y 10..29 of 60x40


@pytest.fixture
def root(tmp_path):
    for name in ("1", "2", "3", "4"):
        put(tmp_path / f"export/images/{name}.jpg")
    return tmp_path / "export"


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)


def write(root, **texts):
    for name, text in texts.items():
        path = root / "labels" / f"{name.removeprefix('_')}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def imported(root, tmp_path, **options):
    report = import_export(root, tmp_path / "mine", test=0, **options)
    return report, load_voc(tmp_path / "mine", "trainval")


@pytest.mark.parametrize(
    "line",
    [
        CAT,
        "0.0 .35 .5 .3 .5 0.98",  # with a score
        "0 0.2 0.25 0.5 0.25 0.5 0.75 0.2 0.75",  # a polygon
        "\ufeff0\t0.35   0.5 0.3 0.5\r\n\r\n",
    ],
)
def test_one_box_by_hand(line, root, tmp_path):
    write(root, _1=line, _2="", _3="", _4="")
    (root / "classes.txt").write_text("cat\ndog\n\n")
    report, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[12, 10, 29, 29]]
    assert dataset.ids == ("1", "2", "3", "4")
    assert report.as_dict() == {
        "format": "yolo",
        "images": 4,
        "objects": 1,
        "classes": {"cat": 1},
        "splits": {"trainval": 4, "test": 0},
        "mended": {},
        "left_out": {"classes_without_objects": 1},
    }


def test_keypoints_are_not_polygons(root, tmp_path):
    write(root, _1="0 0.35 0.5 0.3 0.5 0.9 0.9 2 0.1 0.1 2")
    (root / "data.yaml").write_text("kpt_shape: [2, 3]\nnames: {0: cat}\n")
    assert imported(root, tmp_path)[1].annotation("1").boxes.tolist() == [[12, 10, 29, 29]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("9 0.5 0.5 0.2 0.2", "objects_of_unknown_classes"),
        ("-1 0.5 0.5 0.2 0.2", "label_lines_unreadable"),
        ("0.5 0.5 0.5 0.2 0.2", "label_lines_unreadable"),
        ("cat 0.5 0.5 0.2 0.2", "label_lines_unreadable"),
        ("0 0.5 0.5 0.2", "label_lines_unreadable"),
        ("0 0.5 0.5 0.2 0.2 0.3 0.3 0.1", "label_lines_unreadable"),
        ("0 nan 0.5 0.2 0.2", "label_lines_unreadable"),
        ("0 0.5 inf 0.2 0.2", "label_lines_unreadable"),
        ("1e400 0.5 0.5 0.2 0.2", "label_lines_unreadable"),
        ("0 350 120 40 40", "label_lines_unreadable"),  # pixels
        ("0 0.5 0.5 0 0.2", "boxes_empty"),
        ("0 0.5 0.5 -0.1 0.2", "boxes_empty"),
        ("0 1.3 0.5 0.2 0.2", "boxes_outside"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(line, kind, root, tmp_path):
    write(root, _1=f"{CAT}{line}\n", _2="", _3="", _4="")
    (root / "classes.txt").write_text("cat")
    report, dataset = imported(root, tmp_path)
    assert report.left_out == {kind: 1}
    assert dataset.annotation("1").boxes.tolist() == [[12, 10, 29, 29]]


def test_a_file_without_one_label_costs_its_image_alone(root, tmp_path):
    write(root, _1=CAT, _2="<html>404</html>", _3="\0\1\2", _4=CAT)
    (root / "classes.txt").write_text("cat")
    report, dataset = imported(root, tmp_path)
    assert report.left_out == {"label_lines_unreadable": 2, "annotations_unreadable": 2}
    assert dataset.ids == ("1", "4")


def test_images_without_labels_and_labels_without_images(root, tmp_path):
    write(root, _1=CAT, gone=CAT, README="Exported by hand, in May.")
    (root / "classes.txt").write_text("cat")
    report, dataset = imported(root, tmp_path)
    assert report.mended == {"images_without_label_file": 3}
    assert report.left_out == {"images_missing": 1}
    assert len(dataset.annotation("2").boxes) == 0
    assert dataset.ids == ("1", "2", "3", "4")


def test_a_box_over_the_edge_is_clipped(root, tmp_path):
    write(root, _1="0 0.9 0.5 0.4 1.0", _2=CAT, _3=CAT, _4=CAT)
    (root / "classes.txt").write_text("cat")
    report, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[42, 0, 59, 39]]
    assert report.mended == {"boxes_clipped": 1}


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("names: [cat, dog]", {"cat", "dog"}),
        ("names: {0: cat, 1: dog}", {"cat", "dog"}),
        ("names:\n  1: dog\n  0: cat\n", {"cat", "dog"}),
        ("names: ['no', null]", {"no", "null"}),
        ("names: [no, 1.10]", {"no", "1.10"}),
        ("nc: 2", {"class_0", "class_1"}),
        ("nc: 2\nnames: [cat, '']", {"cat", "class_1"}),
        ("names: [cat, [a, b]]", {"cat", "class_1"}),
        ("names: [cat, cat]", {"cat"}),
        ("\ufeffnames: [\u00e9cole, dog]", {"école", "dog"}),
        ("names: ../../nowhere.names\nnc: 2", {"class_0", "class_1"}),
    ],
)
def test_names_of_a_yaml(yaml, names, root, tmp_path):
    write(root, _1=CAT, _2="1 0.5 0.5 0.2 0.2")
    (root / "data.yaml").write_text(yaml)
    assert set(imported(root, tmp_path)[0].classes) == names


@pytest.mark.parametrize(
    "yaml",
    [
        "names: !!python/object/apply:os.system ['touch ran']",
        "names: [!!python/name:os.system '', cat]",
        "- names",
        "names: {a: b}",
        "names: [",
        "&a [*a]",
        "[" * 100_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"b{k}: &b{k} [*a,*a,*a,*a,*a,*a,*a,*a]\n" for k in range(9))
        + "names: *b8",
        "names: [" + "a" * 2_000_000 + "]",
    ],
)
def test_a_hostile_yaml_runs_nothing_and_names_nothing(yaml, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(root, _1=CAT)
    (root / "data.yaml").write_text(yaml)
    report, _ = imported(root, tmp_path)
    assert len(report.classes) == 1
    assert not (tmp_path / "ran").exists()


def test_labels_without_names(root, tmp_path):
    write(root, _1=CAT, _2="7 0.5 0.5 0.2 0.2")
    report, _ = imported(root, tmp_path)
    assert report.classes == {"class_0": 1, "class_7": 1}


def test_names_in_latin_1(root, tmp_path):
    write(root, _1=CAT)
    (root / "classes.txt").write_bytes("école\n".encode("latin-1"))
    assert imported(root, tmp_path)[0].classes == {"école": 1}


def test_each_folder_has_its_own_list_of_names(tmp_path):
    root = tmp_path / "export"
    for folder, names in (("monday", "cat\ndog"), ("tuesday", "dog\ncat")):
        put(root / folder / f"{folder}.jpg")
        (root / folder / f"{folder}.txt").write_text(CAT)
        (root / folder / "classes.txt").write_text(names)
    report, dataset = imported(root, tmp_path)
    assert report.classes == {"cat": 1, "dog": 1}
    assert dataset.class_names[dataset.annotation("tuesday").labels[0]] == "dog"


@pytest.mark.parametrize(
    ("yaml", "trainval", "test"),
    [
        ("train: images/a\nval: images/b", "1 2", "3"),
        ("path: /nowhere/at/all\ntrain: /content/drive/images/a\nval: ..\\images\\b", "1 2", "3"),
        ("train: [images/a, images/b]\nval: images/c\n", "1 2 3", "4"),
        ("train: train.txt\nval: ./lists/val.txt", "1 3", "2"),
        ("train: images/a\nval: images/b\ntest: images/c", "1 2 3", "4"),
        ("train: images/a\nval: images/b\ntest:", "1 2", "3"),
        ("train: images/a\nval: images/b\ntest: ../../../../etc", "1 2", "3"),
        ("train: {a: b}\nval: [1, [2]]", "1 3", "2"),  # the lists that lie there
        ("train: images/a\nval: images/a", "1 2", ""),
        ("train: ''\nval: .", "1 2 3 4", ""),
    ],
)
def test_parts_of_a_yaml(yaml, trainval, test, tmp_path):
    root = tmp_path / "export"
    for place in ("a/1", "a/2", "b/3", "c/4"):
        put(root / f"images/{place}.jpg")
        (root / f"labels/{place[0]}").mkdir(parents=True, exist_ok=True)
        (root / f"labels/{place}.txt").write_text(CAT)
    (root / "lists").mkdir()
    (root / "train.txt").write_text("./images/a/1.jpg\n/home/me/images/b/3.jpg\n../../etc/passwd\n")
    (root / "lists/val.txt").write_text("images/a/2.jpg")
    (root / "data.yaml").write_text(f"names: [cat]\n{yaml}\n")
    imported(root, tmp_path)
    found = {}
    for split in ("trainval", "test"):
        path = tmp_path / f"mine/VOC2007/ImageSets/Main/{split}.txt"
        found[split] = path.read_text().split() if path.exists() else []
    assert found == {"trainval": trainval.split(), "test": test.split()}


def test_a_folder_called_train_is_no_split_alone(tmp_path):
    root = tmp_path / "export"
    for number in range(10):
        put(root / f"train/images/{number}.jpg")
        (root / "train/labels").mkdir(exist_ok=True)
        (root / f"train/labels/{number}.txt").write_text(CAT)
    (root / "data.yaml").write_text("names: [cat]\ntrain: ../train/images\nval: ../valid/images\n")
    assert import_export(root, tmp_path / "mine").splits == {"trainval": 8, "test": 2}


def test_two_images_of_one_label(root, tmp_path):
    Image.new("RGB", (60, 40)).save(root / "images/1.png")
    write(root, _1=CAT, _2=CAT, _3=CAT, _4=CAT)
    report, dataset = imported(root, tmp_path)
    assert dataset.ids == ("2", "3", "4", "images_1_jpg", "images_1_png")
    assert report.objects == 5
