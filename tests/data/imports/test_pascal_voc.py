"""Faults of VOC XML, and the conventions of its corners."""

import exporters
import pytest
from exporters import Photo, edges, one_based, put, write, xml, zero_based
from PIL import Image

from sppnet_cli.data.imports.importing import import_export
from sppnet_cli.data.voc import load_voc

BOX = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"


@pytest.fixture
def root(tmp_path):
    """An export with one image, 60x40, without its XML."""
    (tmp_path / "export").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "export/1.jpg")
    return tmp_path / "export"


def sheet(*objects, size="<size><width>60</width><height>40</height></size>", filename="1.jpg"):
    inside = "".join(f"<object><name>{name}</name>{rest}</object>" for name, rest in objects)
    return f"<annotation><filename>{filename}</filename>{size}{inside}</annotation>"


def corners(*values):
    tags = ("xmin", "ymin", "xmax", "ymax")
    inside = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, values, strict=True))
    return f"<bndbox>{inside}</bndbox>"


def imported(root, tmp_path, **options):
    report = import_export(root, tmp_path / "mine", test=0, **options)
    return report, load_voc(tmp_path / "mine", "trainval")


@pytest.mark.parametrize("content", [
    sheet(("cat", BOX)),
    "\ufeff" + sheet(("cat", BOX)),
    '<?xml version="1.0" encoding="utf-8"?>\n' + sheet(("cat", BOX)),
    sheet(("cat", f"<difficult></difficult>{BOX}")),
    sheet(("cat", f"<truncated>Unspecified</truncated><pose/>{BOX}")),
    sheet(("cat", f"<part><name>head</name>{corners(1, 1, 2, 2)}</part>{BOX}")),
    sheet(("cat", corners("3.0", " 4 ", "20.0", "30.0"))),
])  # fmt: skip
def test_what_every_reader_takes(content, root, tmp_path):
    write(root / "1.xml", content)
    report, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[2, 3, 19, 29]]
    assert dataset.annotation("1").difficult.tolist() == [False]
    assert (report.mended, report.left_out) == ({}, {})


def test_a_polygon_without_a_box(root, tmp_path):
    points = "<x1>3</x1><y1>9</y1><x2>20</x2><y2>4</y2><x3>9</x3><y3>30</y3>"
    write(root / "1.xml", sheet(("cat", f"<polygon>{points}</polygon>")))
    _, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[2, 3, 19, 29]]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [("gbk", "GBK"), ("latin-1", "ISO-8859-1"), ("latin-1", None), ("utf-16", "UTF-16"), ("cp1252", "utf-8")],
)
def test_encodings(encoding, declared, root, tmp_path):
    name = "猫" if encoding == "gbk" else "Köter"
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    (root / "1.xml").write_bytes((head + sheet((name, BOX))).encode(encoding))
    report, _ = imported(root, tmp_path)
    assert report.classes == {name: 1}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (sheet(("cat", BOX))[:60], "annotations_unreadable"),
        ("<annotation", "annotations_unreadable"),
        ("<other/>", "annotations_unreadable"),
        ('<?xml version="1.0" encoding="klingon"?>' + sheet(("cat", BOX)), "annotations_unreadable"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + sheet(("&x;", BOX)), "annotations_unreadable"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + sheet(("&x;", BOX)),
            "annotations_unreadable",
        ),
        (sheet(("", BOX)), "objects_without_class"),
        (sheet(("cat", "")), "boxes_unreadable"),
        (sheet(("cat", corners(3, 4, "", 30))), "boxes_unreadable"),
        (sheet(("cat", corners(3, 4, "nan", 30))), "boxes_unreadable"),
        (sheet(("cat", corners(3, 4, "inf", 30))), "boxes_unreadable"),
        (sheet(("cat", corners(3, 4, 3, 30))), "boxes_empty"),
        (sheet(("cat", corners(3, 30, 20, 30))), "boxes_empty"),
        (sheet(("cat", corners(70, 4, 90, 30))), "boxes_outside"),
        (
            sheet(("cat", BOX), size="<size><width>50</width><height>40</height></size>"),
            "images_of_another_size",
        ),
    ],
)
def test_what_cannot_be_used_is_counted(content, kind, root, tmp_path):
    write(root / "1.xml", content)
    Image.new("RGB", (60, 40)).save(root / "2.jpg")
    write(root / "2.xml", sheet(("dog", BOX), filename="2.jpg"))
    report, dataset = imported(root, tmp_path)
    assert report.left_out[kind] == 1
    assert report.classes == {"dog": 1}
    assert "1." in report.examples[kind]
    # The picture stays where only an object of it is lost.
    assert dataset.ids == (
        ("2",) if kind in ("annotations_unreadable", "images_of_another_size") else ("1", "2")
    )


@pytest.mark.parametrize(
    ("values", "size", "kind", "box"),
    [
        ((1, 1, 61, 40), (60, 40), "boxes_clipped", [0, 0, 59, 39]),
        ((-5, 4, 20, 30), (60, 40), "boxes_clipped", [0, 3, 19, 29]),
        ((20, 30, 3, 4), (60, 40), "corners_swapped", [2, 3, 19, 29]),
        ((3, 30, 20, 4), (60, 40), "corners_swapped", [2, 3, 19, 29]),
        ((3, 4, 20, 30), (0, 0), "sizes_filled", [2, 3, 19, 29]),
        ((3, 4, 20, 30), None, "sizes_filled", [2, 3, 19, 29]),
        ((5, 7, 40, 60), (120, 80), "images_of_another_scale", [2, 3, 19, 29]),
    ],
)
def test_what_is_wrong_but_clear_is_mended_and_counted(values, size, kind, box, root, tmp_path):
    sized = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    write(root / "1.xml", sheet(("cat", corners(*values)), size=sized))
    report, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [box]
    assert (report.mended, report.left_out) == ({kind: 1}, {})


@pytest.mark.parametrize("convention", [one_based, zero_based, edges])
def test_borders_tell_the_convention(convention, tmp_path):
    """Of the boxes at a border most say where it is; one that lies a pixel over it does not change that."""
    boxes = [(0, 0, 59, 39), (0, 5, 30, 39), (10, 0, 59, 20), (1, 1, 58, 38), (7, 8, 20, 21)]
    for number, box in enumerate(boxes):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{number}.jpg")
        photo = Photo(tmp_path / f"{number}.jpg", (60, 40), (("cat", *box),))
        put(photo, tmp_path / "export")
        write(tmp_path / f"export/{number}.xml", xml(photo, f"{number}.jpg", convention))
    stray = {
        one_based: (0, 9, 21, 22),
        zero_based: (7, 8, 60, 21),
        edges: ("-1.00", "8.00", "21.00", "22.00"),
    }
    write(tmp_path / "export/4.xml", sheet(("cat", corners(*stray[convention])), filename="4.jpg"))
    report = import_export(tmp_path / "export", tmp_path / "mine", test=0)
    dataset = load_voc(tmp_path / "mine", "trainval")
    found = [dataset.annotation(str(number)).boxes[0].tolist() for number in range(5)]
    assert found[:4] == [list(box) for box in boxes[:4]]
    assert report.mended.get("boxes_zero_based", 0) == (0 if convention is one_based else 5)
    clipped = {one_based: [0, 8, 20, 21], zero_based: [7, 8, 59, 21], edges: [0, 8, 20, 21]}
    assert found[4] == clipped[convention]
    assert report.mended["boxes_clipped"] == 1


def test_fractions_that_touch_no_border_are_edges(root, tmp_path):
    write(root / "1.xml", sheet(("cat", corners("10.25", "12.5", "20.75", "30.0"))))
    _, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").boxes.tolist() == [[10, 13, 20, 29]]


def test_difficult_and_truncated_are_kept(root, tmp_path):
    write(
        root / "1.xml",
        sheet(
            ("cat", f"<truncated>1</truncated><difficult>1</difficult>{BOX}"),
            ("dog", f"<difficult>0</difficult>{BOX}"),
        ),
    )
    _, dataset = imported(root, tmp_path)
    assert dataset.annotation("1").difficult.tolist() == [True, False]
    text = (tmp_path / "mine/VOC2007/Annotations/1.xml").read_text()
    assert text.count("<truncated>1</truncated>") == 1
    assert (tmp_path / "mine/VOC2007/ImageSets/Main/cat_trainval.txt").read_text() == "1  0\n"
    assert (tmp_path / "mine/VOC2007/ImageSets/Main/dog_trainval.txt").read_text() == "1  1\n"


def test_the_image_is_found_by_the_text_where_the_xml_has_another_name(root, tmp_path):
    write(root / "labels/annotation_77.xml", sheet(("cat", BOX), filename="C:\\photos\\1.jpg"))
    report, dataset = imported(root, tmp_path)
    assert dataset.ids == ("1",)
    assert report.left_out == {}


def test_the_image_beside_the_xml_wins_over_its_text(root, tmp_path):
    Image.new("RGB", (60, 40)).save(root / "2.jpg")
    write(root / "1.xml", sheet(("cat", BOX), filename="2.jpg"))
    write(root / "2.xml", sheet(("dog", BOX), filename="untitled"))
    _, dataset = imported(root, tmp_path)
    assert [dataset.annotation(i).labels.tolist() for i in ("1", "2")] == [[0], [1]]


def test_two_annotations_of_one_image(root, tmp_path):
    write(root / "1.xml", sheet(("cat", BOX)))
    write(root / "old/1.xml", sheet(("dog", BOX)))
    report, _ = imported(root, tmp_path)
    assert (report.classes, report.left_out) == ({"cat": 1}, {"annotations_repeated": 1})


def test_an_xml_of_a_part_does_not_take_the_image_of_another(tmp_path):
    """valid/1.xml, whose image is lost, is not about train/1.jpg."""
    root = tmp_path / "export"
    for part in ("train", "valid"):
        for name in ("1", "2"):
            (root / part).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40)).save(root / part / f"{name}.jpg")
            write(root / part / f"{name}.xml", sheet((part, BOX), filename=f"{name}.jpg"))
    (root / "valid/1.jpg").unlink()
    (root / "train/1.xml").unlink()
    report = import_export(root, tmp_path / "mine")
    assert report.left_out == {"images_missing": 1, "images_without_annotation": 1}
    assert report.classes == {"train": 1, "valid": 1}


@pytest.mark.parametrize(
    ("lists", "trainval", "test"),
    [
        ({"train": "0 1 2", "val": "3", "test": "4 5"}, "0 1 2 3", "4 5"),
        ({"trainval": "0 1 2 3", "test": "4 5"}, "0 1 2 3", "4 5"),
        ({"train": "0 1 2 3", "val": "4 5"}, "0 1 2 3", "4 5"),
        ({"trainval": "0 1 2 3 4 5", "train": "0 1 2 3", "val": "4 5"}, "0 1 2 3", "4 5"),
        ({"trainval": "0 1 2 3 4 5", "val": "4 5"}, "0 1 2 3", "4 5"),
        ({"my_training_list": "0.jpg 1.jpg 2 3", "Validation": "img/4.jpg 5"}, "0 1 2 3", "4 5"),
        ({"train": "0 1 2 3", "test": "3 4"}, "0 1 2 3", "4"),
        ({"train": "0 1 2", "test": "4 ../../etc/passwd /etc/passwd"}, "0 1 2", "4"),
    ],
)
def test_lists_by_any_name(lists, trainval, test, tmp_path):
    root = tmp_path / "export"
    for number in range(6):
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(root / f"JPEGImages/{number}.jpg")
        write(root / f"Annotations/{number}.xml", sheet(("cat", BOX), filename=f"{number}.jpg"))
    for name, ids in lists.items():
        write(root / f"ImageSets/Main/{name}.txt", "\ufeff" + "\r\n".join(ids.split()) + "\r\n")
        write(root / f"ImageSets/Main/cat_{name}.txt", "".join(f"{i}  1\n" for i in ids.split()))
    write(root / "ImageSets/Segmentation/test.txt", "0\n1\n")
    report = import_export(root, tmp_path / "mine")
    assert load_voc(tmp_path / "mine", "trainval").ids == tuple(trainval.split())
    assert load_voc(tmp_path / "mine", "test").ids == tuple(test.split())
    left = 6 - len(trainval.split()) - len(test.split())
    assert report.left_out == ({"images_in_no_part": left} if left else {})
    shared = set(lists.get("train", "").split()) & set(lists.get("test", "").split())
    assert report.mended == ({"images_in_two_parts": len(shared)} if shared else {})


def test_a_voc_devkit_comes_back_with_its_lists(tiny_data, tmp_path):
    import_export(tiny_data / "VOCdevkit", tmp_path / "mine")
    ours, theirs = tmp_path / "mine/VOC2007/ImageSets/Main", tiny_data / "VOCdevkit/VOC2007/ImageSets/Main"
    assert sorted(path.name for path in ours.iterdir()) == sorted(path.name for path in theirs.iterdir())
    for path in theirs.iterdir():
        assert (ours / path.name).read_text() == path.read_text()
    for split in ("trainval", "test"):
        here, there = load_voc(tmp_path / "mine", split), load_voc(tiny_data / "VOCdevkit", split)
        for image_id in there.ids:
            found, wanted = here.annotation(image_id), there.annotation(image_id)
            for field in ("boxes", "labels", "difficult", "size"):
                assert (getattr(found, field) == getattr(wanted, field)) is True or (
                    getattr(found, field).tolist() == getattr(wanted, field).tolist()
                )


def test_an_export_from_windows_with_other_case(tmp_path):
    photos = [Photo(tmp_path / "1.jpg", (60, 40), (("cat", 2, 3, 19, 29),))]
    Image.new("RGB", (60, 40)).save(tmp_path / "1.jpg")
    exporters.apart(photos, tmp_path / "export")
    (tmp_path / "export/images/1.jpg").rename(tmp_path / "export/images/IMG_1.JPG")
    (tmp_path / "export/annotations/1.xml").rename(tmp_path / "export/annotations/img_1.XML")
    assert import_export(tmp_path / "export", tmp_path / "mine").images == 1
