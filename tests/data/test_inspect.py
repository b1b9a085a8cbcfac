"""What a folder is said to hold: counts by hand, and each kind of damage by name."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet_cli.data import inspect
from sppnet_cli.data.imports.importing import import_export
from sppnet_cli.data.inspect import PUBLISHED, SplitCounts, inspect_data
from sppnet_cli.data.voc import CLIPPED, RENAMED, UNSIZED
from sppnet_cli.errors import DataError


def draw(path, size=(40, 30)):
    """A noisy picture, of some kilobytes as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def imagenet(root, **splits):
    """`imagenet(root, train={"cat": 2})` makes two images of the class cat in root/train."""
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                draw(root / split / name / f"{name}_{number}.JPEG")
    return root


@pytest.fixture
def copy(tiny_data, tmp_path):
    """A copy of the tiny embedded data, to be damaged."""
    return shutil.copytree(tiny_data, tmp_path / "copy")


@pytest.fixture
def voc(copy):
    return copy / "VOCdevkit" / "VOC2007"


def ids_of(voc, split):
    return (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def only(report):
    (found,) = report.data_sets
    return found


def test_the_embedded_data_are_three_sets(tiny_data):
    report = inspect_data(tiny_data)
    assert report.mini
    by_layout = {found.layout: found for found in report.data_sets}
    assert set(by_layout) == {"ImageNet", "VOC", "Caltech101"}
    assert by_layout["ImageNet"].root == tiny_data / "imagenet"
    assert by_layout["ImageNet"].splits == (
        SplitCounts("train", 40, 1_281_167, classes=20, per_class=(2, 2)),
        SplitCounts("val", 20, 50_000, classes=20, per_class=(1, 1)),
    )
    assert by_layout["ImageNet"].tables == (1, 2)
    trainval, test = by_layout["VOC"].splits
    assert (trainval.name, trainval.images, trainval.published, trainval.classes) == (
        "trainval",
        20,
        5011,
        20,
    )
    assert (test.name, test.images, test.published, test.classes) == ("test", 20, 4952, 20)
    assert by_layout["VOC"].tables == (3, 5, 6, 7, 8, 9)
    assert by_layout["Caltech101"].splits == (SplitCounts("all", 48, 9144, classes=12, per_class=(4, 4)),)
    assert by_layout["Caltech101"].tables == (4, 5)
    assert not any(found.full for found in report.data_sets)
    # 4 images a category are too few for Table 4; nothing else is wrong.
    assert len(report.all_problems) == 12
    assert all(
        "4 of the 31 images that Table 4 takes, 30 to train and one to test" in line
        for line in report.all_problems
    )


@pytest.mark.parametrize(
    ("place", "layout"),
    [
        ("imagenet", "ImageNet"),
        ("VOCdevkit", "VOC"),
        ("VOCdevkit/VOC2007", "VOC"),
        ("caltech101", "Caltech101"),
        ("caltech101/101_ObjectCategories", "Caltech101"),
    ],
)
def test_a_set_and_the_folder_around_it(tiny_data, place, layout):
    assert only(inspect_data(tiny_data / place)).layout == layout


def test_the_folder_one_stands_in(tiny_data, monkeypatch):
    monkeypatch.chdir(tiny_data / "caltech101" / "101_ObjectCategories")
    assert only(inspect_data(Path())).layout == "Caltech101"


def test_objects_and_images_per_class_of_voc(voc):
    """Counted by hand from the annotations' text."""
    texts = {
        split: [(voc / f"Annotations/{i}.xml").read_text() for i in ids_of(voc, split)]
        for split in PUBLISHED["VOC"]
    }
    for split in only(inspect_data(voc)).splits:
        assert split.objects == sum(text.count("<object>") for text in texts[split.name])
        names = {name.split("</name>")[0] for text in texts[split.name] for name in text.split("<name>")[1:]}
        counts = [sum(f"<name>{name}</name>" in text for text in texts[split.name]) for name in names]
        assert split.per_class == (min(counts), max(counts))


def test_the_full_set_has_the_published_counts(tmp_path, monkeypatch):
    root = imagenet(tmp_path, train={"n01": 2, "n02": 1}, val={"n01": 1, "n02": 1})
    assert not only(inspect_data(root)).full
    monkeypatch.setitem(PUBLISHED, "ImageNet", {"train": 3, "val": 2})
    assert only(inspect_data(root)).full
    shutil.rmtree(root / "train")
    assert not only(inspect_data(root)).full


@pytest.mark.parametrize(
    ("splits", "tables", "use"),
    [
        (("train", "val"), (1, 2), "Tables 1 and 2"),
        (("train",), (), "pre-training without validation"),
        (("val",), (), "evaluation of a trained network"),
    ],
)
def test_what_imagenet_is_good_for(tmp_path, splits, tables, use):
    found = only(inspect_data(imagenet(tmp_path, **{split: {"n01": 1} for split in splits})))
    assert (found.tables, found.problems) == (tables, ())
    assert found.use.startswith(use)


@pytest.mark.parametrize(("name", "published"), [("val", 50_000), ("train", 1_281_167), ("pets", None)])
def test_a_bare_folder_of_class_folders(tmp_path, name, published):
    imagenet(tmp_path, **{name: {"cat": 2, "dog": 1}})
    (split,) = only(inspect_data(tmp_path / name)).splits
    assert split == SplitCounts("images" if published is None else name, 3, published, 2, (1, 2))


def test_classes_that_differ(tmp_path):
    root = imagenet(tmp_path, train={"a": 1, "b": 1}, val=dict.fromkeys("acdefg", 1))
    assert only(inspect_data(root)).problems == (
        f"{root}/val: b in train alone; give train and val the same class folders",
        f"{root}/val: c, d, e and 2 more in val alone; give train and val the same class folders",
    )


def test_an_empty_class_folder(tmp_path):
    found = only(inspect_data(imagenet(tmp_path, val={"a": 2, "b": 0})))
    assert found.problems == (f"{tmp_path}/val/b: class folder without images; fill or remove it",)
    assert found.splits[0].per_class == (0, 2)


def test_a_class_folder_that_cannot_be_read(tmp_path, monkeypatch):
    imagenet(tmp_path, val={"a": 1, "b": 1})
    readable = inspect.image_files

    def image_files(folder):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")
        return readable(folder)

    monkeypatch.setattr(inspect, "image_files", image_files)
    assert only(inspect_data(tmp_path)).problems == (
        f"{tmp_path}/val/b: cannot be read (Permission denied); allow it",
    )


@pytest.mark.parametrize("full", [False, True])
def test_broken_images_are_named(tmp_path, full):
    folder = imagenet(tmp_path, val={"a": 8}) / "val" / "a"
    whole = (folder / "a_0.JPEG").read_bytes()
    (folder / "a_1.JPEG").write_bytes(b"")
    (folder / "a_2.JPEG").write_bytes(whole[: len(whole) // 2])
    (folder / "a_3.JPEG").write_bytes(b"<html>not found</html>")
    (folder / "a_4.JPEG").write_bytes(whole + b"\0\0\0")  # sound all the same
    (folder / "a_5.JPEG").unlink()
    (folder / "a_5.JPEG").symlink_to(folder / "a_6.JPEG")
    draw(folder / "a_7.png")
    problems = only(inspect_data(tmp_path, full)).problems
    assert [line.split(": ")[0] for line in problems] == [f"{folder}/a_{k}.JPEG" for k in (1, 2, 3)]
    assert "is empty" in problems[0]
    assert "cannot be decoded" in problems[1]
    assert "is not an image" in problems[2]


def test_only_full_decodes_what_looks_whole(tmp_path):
    path = imagenet(tmp_path, val={"a": 1}) / "val" / "a" / "a_0.png"
    draw(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert only(inspect_data(tmp_path)).problems == ()
    (problem,) = only(inspect_data(tmp_path, full=True)).problems
    assert problem.startswith(f"{path}: cannot be decoded")


@pytest.mark.parametrize("full", [False, True])
def test_what_voc_misses_is_named(voc, full):
    image, annotation, small = ids_of(voc, "test")[:3]
    (voc / f"JPEGImages/{image}.jpg").unlink()
    (voc / f"Annotations/{annotation}.xml").unlink()
    draw(voc / f"JPEGImages/{small}.jpg")
    (voc / "ImageSets/Main" / f"{inspect.load_voc(voc, 'test').class_names[0]}_test.txt").unlink()
    found = only(inspect_data(voc, full))
    assert len(found.problems) == 4
    assert "no such per-class list" in found.problems[0]
    assert found.problems[1] == f"{voc}/JPEGImages/{image}.jpg: no such image file; check the path"
    assert f"{annotation}.xml: no such annotation file" in found.problems[2]
    assert f"{small}.jpg: 40x30 pixels, but its annotation says" in found.problems[3]
    assert found.splits[1].images == 20


def test_voc_without_test_images(voc):
    (voc / "ImageSets/Main/test.txt").unlink()
    found = only(inspect_data(voc))
    assert found.tables == ()
    assert found.use.startswith("training; Tables 3 and 5 to 9 need test")
    (problem,) = found.problems
    assert "test.txt: no such split list" in problem


def test_images_to_train_and_test_on(voc):
    lists = voc / "ImageSets" / "Main"
    for path in lists.glob("*trainval.txt"):
        shutil.copy(path, path.with_name(path.name.replace("trainval", "test")))
    problems = only(inspect_data(voc)).problems
    assert problems[-1].endswith("and 17 more in both trainval and test; keep training and test apart")


def test_31_images_a_category_are_enough(tmp_path):
    for name, count in {"ant": 31, "beaver": 30}.items():
        for number in range(count):
            draw(tmp_path / "101_ObjectCategories" / name / f"image_{number:04d}.jpg", (5, 5))
    (problem,) = only(inspect_data(tmp_path)).problems
    assert problem.startswith(
        f"{tmp_path}/101_ObjectCategories/beaver: 30 of the 31 images that Table 4 takes, 30 to train"
    )


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_imagenet_that_is_not_unpacked(tmp_path, name):
    (tmp_path / name).touch()
    found = only(inspect_data(tmp_path))
    assert found.problems == (f"{tmp_path / name}: not unpacked; `sppnet data fetch imagenet` says how",)
    assert (found.splits, found.use) == ((), "nothing yet")


def test_imagenet_that_is_half_unpacked(tmp_path):
    imagenet(tmp_path, train={"n01": 1})
    (tmp_path / "train" / "n02.tar").touch()
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    problems = only(inspect_data(tmp_path)).problems
    assert problems == (f"{tmp_path}/train: 1 archives not unpacked; `sppnet data fetch imagenet` says how",)


@pytest.mark.parametrize("place", ["val", "."])
def test_validation_images_without_class_folders(tmp_path, place):
    for number in (1, 2):
        draw(tmp_path / place / f"ILSVRC2012_val_0000000{number}.JPEG")
    (problem,) = only(inspect_data(tmp_path)).problems
    assert "2 images outside class folders" in problem
    assert "`sppnet data fetch imagenet` says" in problem


def test_downloads_cut_off_or_not_unpacked(tmp_path):
    for name in ("VOCtest_06-Nov-2007.tar", "VOCtrainval_06-Nov-2007.tar.part", "caltech-101.zip"):
        (tmp_path / name).touch()
    report = inspect_data(tmp_path)
    assert report.data_sets == ()
    unfinished = "an unfinished download; repeat the command that made it, which continues it"
    again = f"`sppnet data fetch {{}} --out {tmp_path}` continues from it"
    assert report.problems == (
        f"{tmp_path}/VOCtrainval_06-Nov-2007.tar.part: {unfinished}",
        f"{tmp_path}/VOCtest_06-Nov-2007.tar: not unpacked; {again.format('voc2007')}",
        f"{tmp_path}/caltech-101.zip: not unpacked; {again.format('caltech101')}",
    )


def test_a_folder_of_nothing_known(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        inspect_data(tmp_path / "nowhere")
    (tmp_path / "notes" / "old").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"holds no train or val folder.*`sppnet data fetch voc2007` gets one"
    ):
        inspect_data(tmp_path)


@pytest.fixture
def own(voc, tmp_path):
    """The tiny VOC as an import makes it."""
    import_export(voc.parent, tmp_path / "mine")
    return tmp_path / "mine"


def test_an_imported_set_is_spoken_of_in_its_own_terms(own):
    found = only(inspect_data(own))
    assert [(split.name, split.images, split.published) for split in found.splits] == [
        ("trainval", 20, None),
        ("test", 20, None),
    ]
    assert (found.own, found.full, found.tables, found.problems) == (True, False, (), ())
    assert found.use == "training and testing detectors of its classes"


def test_of_an_imported_set_only_what_detection_needs_is_asked_for(own):
    lists = own / "VOC2007/ImageSets/Main"
    for path in [*lists.glob("*_*.txt"), lists / "test.txt", lists / "train.txt", lists / "val.txt"]:
        path.unlink()
    found = only(inspect_data(own / "VOC2007"))
    assert found.problems == ()
    assert found.use.startswith("training detectors of its classes; without a test part")
    (own / "VOC2007/JPEGImages/000001.jpg").unlink()
    (lists / "trainval.txt").unlink()
    assert len(only(inspect_data(own)).problems) == 1


def test_a_voc_set_without_any_class_list_is_ones_own(voc):
    for path in (voc / "ImageSets/Main").glob("*_*.txt"):
        path.unlink()
    found = only(inspect_data(voc))
    assert (found.own, found.problems) == (True, ())


def test_the_published_layout_is_not_ones_own(voc):
    assert not only(inspect_data(voc)).own
    (voc / "ImageSets/Main/test.txt").unlink()
    assert [problem for problem in only(inspect_data(voc)).problems if "no such split list" in problem]


def labelled(root, places, suffix, text):
    """Images at `places`, and beside or apart from each, by its name, a file of labels."""
    for place in places:
        draw(root / place)
        path = root / place.replace("images/", "labels/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(suffix).write_text(text)
    return root


@pytest.mark.parametrize(
    ("places", "suffix", "text"),
    [
        (["train/1.jpg", "valid/2.jpg"], ".xml", "<annotation><filename>1.jpg</filename></annotation>"),
        (["1.jpg", "2.jpg"], ".xml", "<annotation/>".replace("/>", "></annotation>")),
        (["images/train/1.jpg", "images/val/2.jpg"], ".txt", "0 .5 .5 .1 .1\n"),
        (["train/images/1.jpg", "val/images/2.jpg"], ".txt", "0 .5 .5 .1 .1\n"),
        (["photos/1.jpg"], ".txt", "0 .5 .5 .1 .1\n"),
    ],
)
def test_exports_are_pointed_to_the_import(places, suffix, text, tmp_path):
    report = inspect_data(labelled(tmp_path / "my export", places, suffix, text))
    assert report.data_sets == ()
    (problem,) = report.problems
    assert f"{tmp_path}/my export: an export of a labelling tool" in problem
    assert f"`sppnet data import '{tmp_path}/my export' --out mine`" in problem


def test_a_coco_export_is_pointed_to_the_import(tmp_path):
    for place in ("train2017/1.jpg", "val2017/2.jpg"):
        draw(tmp_path / place)
    (tmp_path / "annotations").mkdir()
    text = '{"info": {}, "images": [], "annotations": [], "categories": []}'
    (tmp_path / "annotations/instances_val2017.json").write_text(text)
    report = inspect_data(tmp_path)
    assert (len(report.problems), report.data_sets) == (1, ())
    assert "annotations/instances_val2017.json" in report.problems[0]


def test_annotations_beside_imagenet_make_it_no_export(tmp_path):
    """ILSVRC comes with boxes in VOC's XML in a folder of their own."""
    imagenet(tmp_path / "ILSVRC", train={"n01": 2}, val={"n01": 1})
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/1.xml").write_text("<annotation></annotation>")
    assert only(inspect_data(tmp_path)).layout == "ImageNet"


def test_links_to_nothing_are_named_and_counted(tmp_path):
    folder = imagenet(tmp_path, val={"a": 4}) / "val" / "a"
    for number in (1, 3):
        (folder / f"a_{number}.JPEG").unlink()
        (folder / f"a_{number}.JPEG").symlink_to(tmp_path / "gone.JPEG")
    found = only(inspect_data(tmp_path))
    assert found.splits[0].images == 4
    assert [line.partition(" ")[0] for line in found.problems] == [f"{folder}/a_{k}.JPEG:" for k in (1, 3)]
    assert all("links to" in line for line in found.problems)


def test_class_folders_that_link_to_nothing_are_named(tmp_path):
    folder = imagenet(tmp_path, train={"a": 2}) / "train"
    (folder / "b").symlink_to(tmp_path / "gone")
    (folder / ".c").symlink_to(tmp_path / "gone")
    assert only(inspect_data(tmp_path)).problems == (
        f"{folder}/b: links to {tmp_path}/gone, which is not there; restore it",
    )


@pytest.mark.parametrize("full", [False, True])
def test_a_named_pipe_among_the_images(tmp_path, full):
    folder = imagenet(tmp_path, val={"a": 1}) / "val" / "a"
    os.mkfifo(folder / "pipe.jpg")
    (problem,) = only(inspect_data(tmp_path, full)).problems
    assert problem.startswith(f"{folder}/pipe.jpg: is a named pipe")


def test_folders_and_files_of_systems(tmp_path):
    imagenet(tmp_path, val={"a": 1})
    (tmp_path / "val" / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "._a_0.JPEG").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._VOCtest.tar.part").touch()
    report = inspect_data(tmp_path)
    assert report.all_problems == ()
    assert only(report).splits[0] == SplitCounts("val", 1, 50_000, 1, (1, 1))


def test_what_is_mended_is_counted_and_no_problem_unless_strict(voc, tmp_path):
    ids = ids_of(voc, "test")[:4]
    for image_id in ids[:2]:
        path = voc / f"Annotations/{image_id}.xml"
        path.write_text(re.sub("<xmin>[0-9.]+</xmin>", "<xmin>0</xmin>", path.read_text()))
    path = voc / f"Annotations/{ids[2]}.xml"
    path.write_text(re.sub("<width>.*</width>", "<width>0</width>", path.read_text()))
    image = voc / f"JPEGImages/{ids[3]}.jpg"
    with Image.open(image) as picture:
        picture.save(image.with_suffix(".png"))
    image.unlink()
    found = only(inspect_data(voc))
    assert found.problems == ()
    assert found.mended == {CLIPPED: 2, UNSIZED: 1, RENAMED: 1}
    strict = only(inspect_data(voc, strict=True))
    assert len(strict.problems) == 4
    assert strict.mended == {}
