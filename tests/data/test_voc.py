import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet_cli import console
from sppnet_cli.data.voc import (
    CLIPPED,
    RENAMED,
    SUFFIXED,
    UNSIZED,
    UNTURNED,
    has_splits,
    image_labels,
    load_voc,
)
from sppnet_cli.errors import DataError, UsageError

OBJECT = """
    <object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
      <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
      <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
    </object>"""


def annotation_xml(*objects):
    """XML of an image 60 wide and 40 high; an object is (class, difficult, 1-based box)."""
    inside = "".join(
        OBJECT.format(name=name, difficult=difficult, box=box) for name, difficult, box in objects
    )
    return (
        f"<annotation><size><width>60</width><height>40</height><depth>3</depth></size>{inside}</annotation>"
    )


@pytest.fixture
def devkit(tmp_path):
    """Two trainval images and one test image of the classes bird, train and cat."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    xml = {
        "000002": annotation_xml(("cat", 0, (1, 1, 60, 40)), ("bird", 1, (11, 6, 20, 35))),
        "000001": annotation_xml(("train", 0, (5, 5, 5, 5))),
        "000009": annotation_xml(),
    }
    for image_id, text in xml.items():
        (root / "Annotations" / f"{image_id}.xml").write_text(text)
        Image.new("RGB", (60, 40)).save(root / "JPEGImages" / f"{image_id}.jpg")
    main = root / "ImageSets" / "Main"
    (main / "trainval.txt").write_text("000002\n000001\n")
    (main / "train.txt").write_text("000002\n")
    (main / "test.txt").write_text("000009\n")
    labels = {"bird": (0, -1), "cat": (1, -1), "train": (-1, 1)}
    for name, (second, first) in labels.items():
        (main / f"{name}_trainval.txt").write_text(f"000002 {second:2d}\n000001 {first:2d}\n")
        (main / f"{name}_train.txt").write_text(f"000002 {second:2d}\n")
        (main / f"{name}_test.txt").write_text("000009 -1\n")
    return tmp_path / "VOCdevkit"


def rewrite(devkit, image_id, old, new):
    path = devkit / "VOC2007" / "Annotations" / f"{image_id}.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_split_in_the_order_of_its_list(devkit):
    for data in (devkit, devkit / "VOC2007"):
        dataset = load_voc(data, "trainval")
        assert dataset.ids == ("000002", "000001")
        assert dataset.class_names == ("bird", "cat", "train")
        assert dataset.root == devkit / "VOC2007"
        assert len(dataset) == 2
        assert dataset.image_path("000002") == devkit / "VOC2007" / "JPEGImages" / "000002.jpg"
    assert load_voc(devkit, "test").class_names == ("bird", "cat", "train")


def test_limit_takes_the_first_ids(devkit):
    dataset = load_voc(devkit, "trainval", limit=1)
    assert dataset.ids == ("000002",)
    assert dataset.class_names == ("bird", "cat", "train")
    assert image_labels(dataset, "cat")[1].tolist() == [1]


def test_a_list_from_another_folder(devkit, tmp_path):
    (tmp_path / "part.txt").write_text("000001\n")
    dataset = load_voc(devkit, "part", lists=tmp_path)
    assert dataset.ids == ("000001",)
    assert dataset.class_names == ("bird", "cat", "train")
    with pytest.raises(DataError, match=r"test\.txt: no such split list"):
        load_voc(devkit, "test", lists=tmp_path)


def test_which_folders_have_splits(devkit, tmp_path):
    assert has_splits(devkit, "trainval", "test")
    assert has_splits(devkit / "VOC2007", "train")
    assert not has_splits(devkit, "trainval", "val")
    assert not has_splits(devkit / "VOC2007" / "JPEGImages", "test")
    assert not has_splits(tmp_path / "nowhere", "test")


def test_boxes_become_0_based_and_parts_are_no_objects(devkit):
    dataset = load_voc(devkit, "trainval")
    found = dataset.annotation("000002")
    assert found.boxes.tolist() == [[0, 0, 59, 39], [10, 5, 19, 34]]
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [1, 0]
    assert found.labels.dtype == np.int64
    assert found.difficult.tolist() == [False, True]
    assert found.difficult.dtype == bool
    assert found.size == (40, 60)
    assert dataset.annotation("000001").boxes.tolist() == [[4, 4, 4, 4]]


def test_an_image_without_objects(devkit):
    found = load_voc(devkit, "test").annotation("000009")
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == found.difficult.shape == (0,)


def test_image_labels(devkit):
    dataset = load_voc(devkit, "trainval")
    ids, labels = image_labels(dataset, "bird")
    assert ids == ("000002", "000001")
    assert labels.tolist() == [0, -1]
    assert labels.dtype == np.int64
    assert image_labels(dataset, "train")[1].tolist() == [-1, 1]


def test_classes_come_from_the_annotations_when_there_are_no_class_lists(devkit):
    for path in (devkit / "VOC2007" / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    dataset = load_voc(devkit, "trainval", limit=1)
    assert dataset.class_names == ("bird", "cat", "train")
    with pytest.raises(DataError, match=r"bird_trainval\.txt: no such per-class list"):
        image_labels(dataset, "bird")


def test_a_split_of_ones_own_is_not_a_class(devkit):
    (devkit / "VOC2007" / "ImageSets" / "Main" / "my_train.txt").write_text("000001\n")
    dataset = load_voc(devkit, "my_train")
    assert dataset.ids == ("000001",)
    assert dataset.class_names == ("bird", "cat", "train")


def test_the_image_must_have_the_annotated_size(devkit):
    dataset = load_voc(devkit, "trainval")
    assert dataset.image("000001").shape == (40, 60, 3)
    Image.new("RGB", (40, 60)).save(dataset.image_path("000001"))
    with pytest.raises(DataError, match=r"000001\.jpg: 40x60 pixels, but its annotation says 60x40"):
        dataset.image("000001")


def test_a_missing_or_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder; a devkit has VOC2007/ImageSets.*--data"):
        load_voc(tmp_path / "nowhere", "test")
    with pytest.raises(DataError, match="not a VOC devkit; a devkit has"):
        load_voc(tmp_path, "test")


def test_a_devkit_of_two_years_needs_a_choice(devkit):
    shutil.copytree(devkit / "VOC2007", devkit / "VOC2012")
    with pytest.raises(DataError, match="holds VOC2007, VOC2012; name one"):
        load_voc(devkit, "test")
    assert load_voc(devkit / "VOC2012", "test").ids == ("000009",)


def test_broken_split_lists(devkit):
    with pytest.raises(DataError, match=r"val\.txt: no such split list.*: test, train, trainval"):
        load_voc(devkit, "val")
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: lists no image"):
        load_voc(devkit, "val")
    (main / "val.txt").write_text("000001\n000002\n000001\n")
    with pytest.raises(DataError, match=r"val\.txt: 1 ids are listed twice"):
        load_voc(devkit, "val")
    (main / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read"):
        load_voc(devkit, "val")


def test_broken_class_lists(devkit):
    dataset = load_voc(devkit, "trainval")
    class_list = devkit / "VOC2007" / "ImageSets" / "Main" / "cat_trainval.txt"
    class_list.write_text("000002 1\n")
    with pytest.raises(DataError, match=r"cat_trainval\.txt: lacks image 000001"):
        image_labels(dataset, "cat")
    class_list.write_text("000002 1\n000001 2\n")
    with pytest.raises(DataError, match=r"cat_trainval\.txt: '000001 2' is not an id and"):
        image_labels(dataset, "cat")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "<name>cat</name>",
            "<name>cow</name>",
            "unknown class 'cow'; the set's classes are bird, cat, train",
        ),
        ("<name>cat</name>", "", "<object> has no <name>"),
        ("<ymax>40</ymax>", "", "<object> has no <bndbox><ymax>"),
        ("<ymax>40</ymax>", "<ymax>many</ymax>", "<bndbox><ymax> is 'many', not a number"),
        ("<ymax>40</ymax>", "<ymax>nan</ymax>", "<bndbox><ymax> is 'nan', not a number"),
        ("<width>60</width>", "<width>-60</width>", "<size> is -60x40 pixels"),
        ("<width>60</width>", "<width>1e9</width>", "<size> is 1000000000x40 pixels"),
        ("<width>60</width>", "<width>nan</width>", "<size><width> is 'nan', not a number"),
        ("<xmin>1</xmin>", "<xmin>-1</xmin>", "outside the 60x40 image"),
        ("<xmax>60</xmax>", "<xmax>62</xmax>", "outside the 60x40 image"),
        ("<ymin>1</ymin>", "<ymin>-3</ymin>", "outside the 60x40 image"),
        ("<ymax>40</ymax>", "<ymax>41.5</ymax>", "outside the 60x40 image"),
        ("<xmin>11</xmin>", "<xmin>21</xmin>", "inverted box of a bird"),
        ("</annotation>", "", "not readable as XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "not readable as XML"),
    ],
)
def test_broken_annotations(devkit, old, new, message):
    rewrite(devkit, "000002", old, new)
    dataset = load_voc(devkit, "trainval")
    with pytest.raises(DataError) as caught:
        dataset.annotation("000002")
    assert str(caught.value).startswith(str(devkit / "VOC2007" / "Annotations" / "000002.xml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_annotation(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    dataset = load_voc(devkit, "trainval")
    path.write_text("<html></html>")
    with pytest.raises(DataError, match="not a VOC annotation"):
        dataset.annotation("000002")
    path.write_text("")
    with pytest.raises(DataError, match="not readable as XML"):
        dataset.annotation("000002")
    path.unlink()
    with pytest.raises(DataError, match=r"000002\.xml: no such annotation file"):
        dataset.annotation("000002")


@pytest.mark.data
@pytest.mark.skipif("SPPNET_TEST_SHARED" not in os.environ, reason="needs real images")
def test_every_real_annotation_loads_and_agrees_with_the_class_lists():
    data = Path(os.environ["SPPNET_TEST_SHARED"]) / "data" / "VOCdevkit"
    for split in ("trainval", "test"):
        dataset = load_voc(data, split)
        assert len(dataset) == 600
        assert dataset.class_names[0] == "aeroplane"
        assert dataset.class_names[19] == "tvmonitor"
        found = [dataset.annotation(image_id) for image_id in dataset.ids]
        for label, name in enumerate(dataset.class_names):
            expected = []
            for annotation in found:
                of_class = annotation.difficult[annotation.labels == label]
                expected.append(-1 if len(of_class) == 0 else int(not of_class.all()))
            assert image_labels(dataset, name)[1].tolist() == expected


@pytest.mark.parametrize(
    "text", ["", "<difficult/>", "<difficult> </difficult>", "<difficult>Unspecified</difficult>"]
)
def test_difficult_is_0_unless_it_says_1(devkit, text):
    rewrite(devkit, "000002", "<difficult>1</difficult>", text)
    assert load_voc(devkit, "trainval").annotation("000002").difficult.tolist() == [False, False]


def test_other_fields_that_readers_of_the_format_do_not_need(devkit):
    rewrite(devkit, "000002", "<pose>Left</pose><truncated>0</truncated>", "")
    rewrite(devkit, "000002", "<depth>3</depth>", "")
    rewrite(devkit, "000002", "<difficult>1</difficult>", "<difficult> 1.0\n</difficult>")
    assert load_voc(devkit, "trainval").annotation("000002").difficult.tolist() == [False, True]
    class_list = devkit / "VOC2007" / "ImageSets" / "Main" / "cat_trainval.txt"
    class_list.write_text("000002 +1\r\n000001  0\r\n")
    assert image_labels(load_voc(devkit, "trainval"), "cat")[1].tolist() == [1, 0]


def test_hidden_files_beside_the_real_ones(devkit):
    root = devkit / "VOC2007"
    for name in ("ImageSets/Main/._cat_test.txt", "ImageSets/Main/._test.txt", "Annotations/._000002.xml"):
        (root / name).write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (devkit / "._VOC2007").write_bytes(b"\x00\x05")
    assert load_voc(devkit, "trainval").class_names == ("bird", "cat", "train")
    for path in (root / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    (root / "ImageSets" / "Main" / "._cat_test.txt").write_bytes(b"\x00\x05\x16")
    assert load_voc(devkit, "trainval").class_names == ("bird", "cat", "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_with_a_byte_order_mark(devkit, encoding):
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "trainval.txt").write_text("000002\n000001\n", encoding=encoding)
    (main / "cat_trainval.txt").write_text("000002 1\n000001 -1\n", encoding=encoding)
    dataset = load_voc(devkit, "trainval")
    assert dataset.ids == ("000002", "000001")
    assert image_labels(dataset, "cat")[1].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("gbk", "GBK"),
        ("gb18030", "gb18030"),
        ("shift_jis", "Shift_JIS"),
        ("big5", "Big5"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-8", "utf-16"),  # as .NET writes what it holds as UTF-16
        ("utf-8", None),
    ],
)
def test_xml_in_other_encodings(devkit, encoding, declared):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    start = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    text = start + annotation_xml(("山", 0, (1, 1, 60, 40))).replace("<size>", "<owner>中</owner><size>")
    path.write_bytes(text.encode(encoding))
    dataset = replace(load_voc(devkit, "trainval"), class_names=("山",))
    assert dataset.annotation("000002").labels.tolist() == [0]


@pytest.mark.parametrize("around", ["\n", "  \r\n\t", "\ufeff\n"])
def test_blank_lines_before_the_declaration(devkit, around):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    path.write_text(f'{around}<?xml version="1.0"?>{path.read_text()}\n\n', "utf-8")
    assert load_voc(devkit, "trainval").annotation("000002").labels.tolist() == [1, 0]


def test_a_path_of_the_annotators_machine_in_its_own_encoding(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    path.write_bytes(path.read_bytes().replace(b"<size>", b"<path>C:\\\xd5\xd5\xc6\xac</path><size>"))
    assert load_voc(devkit, "trainval").annotation("000002").labels.tolist() == [1, 0]


@pytest.mark.parametrize("declared", ["klingon", "hex", "zlib", "idna", "utf-7", "unicode_escape", "ascii"])
def test_an_encoding_that_is_unknown_or_wrong(devkit, declared):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?><annotation>é'.encode())
    with pytest.raises(DataError, match=r"000002\.xml: not readable as XML \(.*\); restore"):
        load_voc(devkit, "trainval").annotation("000002")


@pytest.mark.parametrize("image_id", ["../../../evil", "/etc/passwd", "a/../b", "x" * 300, "a\0b"])
def test_an_id_that_leads_out_of_the_folder(devkit, image_id):
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "trainval.txt").write_text(f"000002\n{image_id}\n")
    with pytest.raises(DataError, match=r"trainval\.txt: .* is no id of an image"):
        load_voc(devkit, "trainval")


def test_ids_in_subfolders_and_links_to_files(devkit):
    root = devkit / "VOC2007"
    for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (root / folder / "2008").mkdir()
        (root / folder / "2008" / f"000002.{suffix}").symlink_to(root / folder / f"000002.{suffix}")
    (root / "ImageSets" / "Main" / "sub.txt").write_text("2008/000002\n")
    dataset = load_voc(devkit, "sub")
    assert dataset.annotation("2008/000002").labels.tolist() == [1, 0]
    assert dataset.image("2008/000002").shape == (40, 60, 3)


@pytest.mark.parametrize("split", ["../test", "/etc/passwd", "", "a\0"])
def test_a_split_that_leads_elsewhere(devkit, split):
    with pytest.raises(UsageError, match=r"--split .*: a split is named as its list"):
        load_voc(devkit, split)


MENDED = [
    ("<xmin>1</xmin><ymin>1</ymin><xmax>60</xmax>", "<xmin>0</xmin><ymin>0</ymin><xmax>61</xmax>", CLIPPED),
    ("<xmax>60</xmax><ymax>40</ymax>", "<xmax>60.4</xmax><ymax>41</ymax>", CLIPPED),
    ("<width>60</width><height>40</height>", "<width>0</width><height>0</height>", UNSIZED),
    ("<size><width>60</width><height>40</height><depth>3</depth></size>", "", UNSIZED),
    ("<height>40</height>", "<height/>", UNSIZED),
]


@pytest.mark.parametrize(("old", "new", "kind"), MENDED)
def test_almost_right_annotations_are_mended_and_counted(devkit, capsys, old, new, kind):
    rewrite(devkit, "000002", old, new)
    dataset = load_voc(devkit, "trainval")
    for _ in range(2):
        found = dataset.annotation("000002")
        assert found.boxes.tolist() == [[0, 0, 59, 39], [10, 5, 19, 34]]
        assert found.size == (40, 60)
    dataset.annotation("000001")
    assert dataset.mended == {kind: {"000002"}}
    console.report_tallies()
    assert capsys.readouterr().err == f"warning: {devkit}/VOC2007: mended in 1 image (000002): {kind}\n"
    console.report_tallies()
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match=r"000002\.xml: .*; correct it, or leave out --strict"):
        load_voc(devkit, "trainval", strict=True).annotation("000002")


def test_a_size_that_only_a_lost_image_knows(devkit):
    rewrite(devkit, "000002", "<width>60</width>", "<width>0</width>")
    (devkit / "VOC2007" / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"000002\.jpg: no such image file"):
        load_voc(devkit, "trainval").annotation("000002")


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp", ".jpeg", ".PNG", ".bmp"])
def test_images_of_another_suffix(devkit, suffix):
    folder = devkit / "VOC2007" / "JPEGImages"
    (folder / "000002.jpg").unlink()
    Image.new("RGB", (60, 40)).save(folder / f"000002{suffix}")
    dataset = load_voc(devkit, "trainval")
    assert dataset.image_path("000002") == folder / f"000002{suffix}"
    assert dataset.image("000002").shape == (40, 60, 3)
    assert dataset.mended == {RENAMED: {"000002"}}
    dataset.image("000001")
    assert dataset.mended == {RENAMED: {"000002"}}
    with pytest.raises(DataError, match=r"is no \.jpg file; correct it"):
        load_voc(devkit, "trainval", strict=True).image_path("000002")


def test_lists_that_name_the_image_files(devkit):
    main = devkit / "VOC2007" / "ImageSets" / "Main"
    (main / "trainval.txt").write_text("000002.jpg\n000001\n")
    (main / "cat_trainval.txt").write_text("000002.jpg 1\n000001 -1\n")
    dataset = load_voc(devkit, "trainval")
    assert dataset.ids == ("000002", "000001")
    assert dataset.mended == {SUFFIXED: {"000002"}}
    assert image_labels(dataset, "cat")[1].tolist() == [1, -1]
    with pytest.raises(DataError, match=r"trainval\.txt: the list names the image's file; correct it"):
        load_voc(devkit, "trainval", strict=True)


def test_an_id_that_looks_like_a_file(devkit):
    folder = devkit / "VOC2007"
    (folder / "Annotations/000002.xml").rename(folder / "Annotations/000002.jpg.xml")
    (folder / "JPEGImages/000002.jpg").rename(folder / "JPEGImages/000002.jpg.jpg")
    (folder / "ImageSets/Main/trainval.txt").write_text("000002.jpg\n000001\n")
    dataset = load_voc(devkit, "trainval")
    assert dataset.ids == ("000002.jpg", "000001")
    assert dataset.mended == {}
    assert dataset.image("000002.jpg").shape == (40, 60, 3)


def photograph(devkit, width, height, orientation):
    """A photograph with a red left edge, as stored, in place of the image 000002."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.new("RGB", (width, height))
    stored.paste((255, 0, 0), (0, 0, 5, height))
    stored.save(devkit / "VOC2007" / "JPEGImages" / "000002.jpg", exif=exif, quality=95)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_annotated_before_the_exif_rotation(devkit, orientation):
    photograph(devkit, 60, 40, orientation)
    dataset = load_voc(devkit, "trainval")
    image = dataset.image("000002")
    assert image.shape == (40, 60, 3)
    assert image[20, 2, 0] > 200
    assert dataset.mended == {UNTURNED: {"000002"}}
    with pytest.raises(DataError, match=r"000002\.jpg: annotated before the EXIF rotation"):
        load_voc(devkit, "trainval", strict=True).image("000002")


def test_boxes_annotated_on_the_upright_photograph(devkit):
    photograph(devkit, 40, 60, 6)
    dataset = load_voc(devkit, "trainval")
    image = dataset.image("000002")
    assert image.shape == (40, 60, 3)
    assert image[2, 30, 0] > 200
    assert dataset.mended == {}


def test_a_named_pipe_among_the_annotations(devkit):
    path = devkit / "VOC2007" / "Annotations" / "000002.xml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"000002\.xml: is a named pipe, not a regular annotation file"):
        load_voc(devkit, "trainval").annotation("000002")
