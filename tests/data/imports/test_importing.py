"""An import gives the boxes that every tool's layout was written from; nothing else is touched."""

import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import exporters
import numpy as np
import pytest
from exporters import FORMATS, WITH_PARTS, Photo, names_of, one_based, parts, put, write, xml
from PIL import Image

from sppnet_cli.data.imports.importing import import_export, recognise
from sppnet_cli.data.voc import image_labels, load_voc
from sppnet_cli.errors import DataError, UsageError

SHARED = Path(os.environ.get("SPPNET_TEST_SHARED", "/nowhere"))


def read_back(out):
    """By stem of the source's name: the set of (class, box) and the size, of all parts; and the parts by stem."""
    sources = json.loads((out / "import.json").read_text())["sources"]
    objects, sizes, split_of = {}, {}, {}
    for split in ("trainval", "test"):
        try:
            dataset = load_voc(out, split)
        except DataError:
            continue
        for image_id in dataset.ids:
            stem = Path(sources[image_id]).name.split("_jpg.rf.")[0].removesuffix(".jpg")
            annotation = dataset.annotation(image_id)
            names = [dataset.class_names[label] for label in annotation.labels]
            assert stem not in objects
            objects[stem] = sorted(zip(names, annotation.boxes.tolist(), strict=True))
            sizes[stem] = annotation.size[::-1]
            split_of[stem] = split
    return objects, sizes, split_of


def assert_same_boxes(out, photos):
    objects, sizes, _ = read_back(out)
    assert set(objects) == {photo.path.stem for photo in photos}
    for photo in photos:
        found = objects[photo.path.stem]
        wanted = sorted((name, list(map(float, box))) for name, *box in photo.objects)
        assert [name for name, _ in found] == [name for name, _ in wanted]
        np.testing.assert_allclose([box for _, box in found], [box for _, box in wanted], atol=0.5)
        assert sizes[photo.path.stem] == photo.size


@pytest.mark.parametrize("exporter", FORMATS, ids=lambda exporter: exporter.__name__)
def test_every_layout_gives_the_same_boxes(exporter, photos, tmp_path):
    exporter(photos, tmp_path / "export")
    report = import_export(tmp_path / "export", tmp_path / "mine")
    assert_same_boxes(tmp_path / "mine", photos)
    assert report.format == FORMATS[exporter]
    assert report.images == len(photos)
    assert report.classes == Counter(item[0] for photo in photos for item in photo.objects)
    assert report.objects == sum(report.classes.values())
    assert sum(report.splits.values()) == len(photos)
    zero_based = exporter.__name__ in ("apart", "cvat")
    assert report.mended == ({"boxes_zero_based": report.objects} if zero_based else {})
    unused = exporter.__name__ in ("roboflow_coco", "labelimg_yolo")
    assert report.left_out == ({"classes_without_objects": 1} if unused else {})


@pytest.mark.parametrize("exporter", FORMATS, ids=lambda exporter: exporter.__name__)
def test_parts_are_kept_or_drawn(exporter, photos, tmp_path):
    exporter(photos, tmp_path / "export")
    import_export(tmp_path / "export", tmp_path / "mine", test=0.25)
    _, _, split_of = read_back(tmp_path / "mine")
    held = {stem for stem, split in split_of.items() if split == "test"}
    if exporter in WITH_PARTS:
        assert held == {photo.path.stem for photo in parts(photos)["test"]}
        lists = tmp_path / "mine/VOC2007/ImageSets/Main"
        assert len((lists / "val.txt").read_text().split()) == len(parts(photos)["valid"])
    else:
        assert len(held) == 10


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="SPPNET_TEST_SHARED names no folder")
@pytest.mark.parametrize("exporter", FORMATS, ids=lambda exporter: exporter.__name__)
def test_real_photographs_in_every_layout(exporter, tmp_path):
    """200 images of VOC as somebody's own, with four classes by other names."""
    renamed = {"person": "Fußgänger", "car": "delivery van", "dog": "dog", "chair": "seat"}
    dataset = load_voc(SHARED / "data/VOCdevkit", "trainval")
    photos = []
    for image_id in dataset.ids:
        annotation = dataset.annotation(image_id)
        objects = tuple(
            (renamed[dataset.class_names[label]], *(int(corner) for corner in box))
            for box, label in zip(annotation.boxes, annotation.labels, strict=True)
            if dataset.class_names[label] in renamed
        )
        if objects:
            photos.append(Photo(dataset.image_path(image_id), annotation.size[::-1], objects))
    photos = photos[:200]
    exporter(photos, tmp_path / "export")
    report = import_export(tmp_path / "export", tmp_path / "mine")
    assert_same_boxes(tmp_path / "mine", photos)
    assert (report.images, set(report.classes)) == (200, set(renamed.values()))


def test_lists_and_pictures_are_what_the_readers_take(photos, tmp_path):
    exporters.coco(photos, tmp_path / "export")
    import_export(tmp_path / "export", tmp_path / "mine")
    for split in ("train", "val", "trainval", "test"):
        dataset = load_voc(tmp_path / "mine", split)
        assert dataset.class_names == tuple(names_of(photos))
        for label, name in enumerate(dataset.class_names):
            ids, labels = image_labels(dataset, name)
            wanted = [1 if label in dataset.annotation(image_id).labels else -1 for image_id in ids]
            assert labels.tolist() == wanted
        for image_id in dataset.ids[:3]:
            assert dataset.image(image_id).shape[2] == 3
    main = tmp_path / "mine/VOC2007/ImageSets/Main"
    train, val, trainval, test = (
        set((main / f"{split}.txt").read_text().split()) for split in ("train", "val", "trainval", "test")
    )
    assert (train | val, train & val, trainval & test) == (trainval, set(), set())


def test_images_are_links_or_copies_and_keep_readable_names(photos, tmp_path):
    exporters.labelimg(photos[:4], tmp_path / "export")
    for out, copy in (("linked", False), ("copied", True)):
        import_export(tmp_path / "export", tmp_path / out, copy=copy)
        images = sorted((tmp_path / out / "VOC2007/JPEGImages").iterdir())
        assert [path.name for path in images] == [
            "DSC_02.jpg",
            "Straße_00.jpg",
            "Straße_03.jpg",
            "photo_01.jpg",
        ]
        assert all(path.is_symlink() != copy for path in images)
        assert images[0].read_bytes() == photos[2].path.read_bytes()


def test_the_export_itself_is_not_touched(photos, tmp_path):
    exporters.ultralytics(photos[:10], tmp_path / "export")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "export").rglob("*")}
    for path in (*before, tmp_path / "export"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    import_export(tmp_path / "export", tmp_path / "mine", copy=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "export").rglob("*")} == before
    for path in before:
        path.chmod(0o755)
    (tmp_path / "export").chmod(0o755)


def test_the_same_seed_draws_the_same_part(photos, tmp_path):
    exporters.labelimg(photos, tmp_path / "export")
    held = []
    for number, seed in enumerate((0, 0, 1)):
        import_export(tmp_path / "export", tmp_path / f"mine{number}", seed=seed)
        held.append(load_voc(tmp_path / f"mine{number}", "test").ids)
    assert held[0] == held[1] != held[2]


def loose(root, *photos):
    """XML files beside the images, at any place in the export: (place, photo)."""
    for place, photo in photos:
        put(photo, (root / place).parent, Path(place).name)
        write((root / place).with_suffix(".xml"), xml(photo, Path(place).name, one_based))


@pytest.fixture
def cat(tmp_path):
    return make(tmp_path / "made/cat.jpg", ("cat", 2, 3, 20, 25))


def make(path, *objects, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path)
    return Photo(path, size, objects)


def test_equal_names_in_different_folders(cat, tmp_path):
    other = make(tmp_path / "made/other.jpg", ("dog", 5, 5, 50, 30))
    loose(tmp_path / "export", ("a/1.jpg", cat), ("b/1.jpg", other), ("b/2.jpg", cat), ("c/B_1.jpg", cat))
    import_export(tmp_path / "export", tmp_path / "mine", test=0)
    dataset = load_voc(tmp_path / "mine", "trainval")
    sources = json.loads((tmp_path / "mine/import.json").read_text())["sources"]
    assert sources == {"a_1": "a/1.jpg", "b_1": "b/1.jpg", "2": "b/2.jpg", "B_1_2": "c/B_1.jpg"}
    assert dataset.annotation("b_1").boxes.tolist() == [[5, 5, 50, 30]]
    assert dataset.annotation("a_1").boxes.tolist() == [[2, 3, 20, 25]]


@pytest.mark.parametrize("on_disk", [os.fsdecode(b"caf\xe9"), "cafe\u0301"], ids=["latin-1", "decomposed"])
@pytest.mark.parametrize("exporter", [exporters.labelimg, exporters.coco, exporters.ultralytics])
def test_names_in_other_encodings_than_the_labels(exporter, on_disk, photos, tmp_path):
    named = tmp_path / "café.jpg"
    shutil.copyfile(photos[0].path, named)
    exporter([*photos[1:4], replace(photos[0], path=named)], tmp_path / "export")
    (image,) = (tmp_path / "export").rglob("café.jpg")
    image.rename(image.with_stem(on_disk))
    report = import_export(tmp_path / "export", tmp_path / "mine")
    assert (report.images, report.left_out) == (4, {})
    assert (tmp_path / "mine/VOC2007/JPEGImages/café.jpg").read_bytes() == photos[0].path.read_bytes()


def test_class_names_with_spaces_slashes_and_white_space(tmp_path):
    names = ["traffic  light", "w/o helmet", "w_o helmet", " van\t", ".net", "a<b>&c", "no", "null"]
    for number, name in enumerate(names):
        escaped = name.replace("&", "&amp;").replace("<", "&lt;")
        photo = make(tmp_path / f"export/{number}.jpg", (escaped, 1, 1, 20 + number, 20))
        write(tmp_path / f"export/{number}.xml", xml(photo, f"{number}.jpg", one_based))
    report = import_export(tmp_path / "export", tmp_path / "mine", test=0)
    wanted = {"traffic light", "w_o helmet", "w_o helmet_2", "van", "_.net", "a<b>&c", "no", "null"}
    assert set(report.classes) == wanted
    assert set(load_voc(tmp_path / "mine", "trainval").class_names) == wanted
    assert report.mended == {"classes_renamed": 3}  # white space around a name is none of it


def test_classes_that_differ_in_case_stay_apart_and_are_named(tmp_path, capsys):
    for number, name in enumerate(["Cat", "cat", "dog"]):
        photo = make(tmp_path / f"made/{number}.jpg", (name, 1, 1, 20, 20))
        loose(tmp_path / "export", (f"{number}.jpg", photo))
    report = import_export(tmp_path / "export", tmp_path / "mine", test=0)
    assert report.classes == {"Cat": 1, "cat": 1, "dog": 1}
    assert "classes Cat and cat differ in case only" in capsys.readouterr().err


def test_one_image_has_nothing_to_test_on(cat, tmp_path):
    loose(tmp_path / "export", ("cat.jpg", cat))
    report = import_export(tmp_path / "export", tmp_path / "mine")
    assert report.splits == {"trainval": 1, "test": 0}
    assert load_voc(tmp_path / "mine", "trainval").ids == ("cat",)
    assert not (tmp_path / "mine/VOC2007/ImageSets/Main/test.txt").exists()


def test_an_image_without_xml_and_an_xml_without_image_are_left_out(cat, tmp_path):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat), ("gone.jpg", cat))
    put(cat, root, "bare.jpg")
    (root / "gone.jpg").unlink()
    report = import_export(root, tmp_path / "mine")
    assert report.left_out == {"images_missing": 1, "images_without_annotation": 1}
    assert report.examples["images_missing"] == "gone.xml is about gone.jpg"
    assert report.examples["images_without_annotation"] == "bare.jpg"
    with pytest.raises(
        DataError, match=r"1 images missing \(gone.xml .* and 1 other kinds; correct the export"
    ):
        import_export(root, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_strict_takes_what_is_right(photos, tmp_path):
    exporters.roboflow_coco(photos, tmp_path / "export")  # with a category that no object has
    assert import_export(tmp_path / "export", tmp_path / "mine", strict=True).images == len(photos)


def test_hidden_files_of_systems_are_ignored(cat, tmp_path):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat))
    for name in (
        "._cat.xml",
        "._cat.jpg",
        ".DS_Store",
        "__MACOSX/cat.xml",
        ".git/cat.jpg",
        "Thumbs.db",
        "@eaDir/cat.jpg",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"\0\5\26\7")
    report = import_export(root, tmp_path / "mine")
    assert (report.images, report.left_out) == (1, {})


def test_pipes_and_dangling_links_are_not_read(cat, tmp_path):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat), ("lost.jpg", cat))
    os.mkfifo(root / "pipe.jpg")
    os.mkfifo(root / "pipe.xml")
    (root / "lost.jpg").unlink()
    (root / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    report = import_export(root, tmp_path / "mine")
    assert (report.images, report.left_out) == (1, {"images_missing": 1})


def test_links_to_files_are_followed_and_links_to_folders_said(cat, tmp_path):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat))
    (root / "cat.jpg").unlink()
    (root / "cat.jpg").symlink_to(cat.path)
    (root / "loop").symlink_to(root)
    report = import_export(root, tmp_path / "mine")
    assert (report.images, report.left_out) == (1, {"folders_linked": 1})


def test_broken_pictures_are_left_out(cat, tmp_path):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat), ("cut.jpg", cat), ("text.png", cat), ("empty.jpg", cat))
    (root / "cut.jpg").write_bytes(cat.path.read_bytes()[:-200])
    (root / "text.png").write_text("no picture")
    (root / "empty.jpg").write_bytes(b"")
    report = import_export(root, tmp_path / "mine")
    assert (report.images, report.left_out) == (1, {"images_unreadable": 3})


def test_other_kinds_of_pictures_keep_their_suffix(tmp_path):
    root = tmp_path / "export"
    for name in ("a.JPG", "b.jpeg", "c.png", "d.webp", "e.PNG", "f.bmp"):
        photo = make(tmp_path / "made" / name, ("cat", 1, 2, 30, 20))
        loose(root, (name, photo))
    report = import_export(root, tmp_path / "mine", test=0)
    assert report.images == 6
    names = sorted(path.name for path in (tmp_path / "mine/VOC2007/JPEGImages").iterdir())
    assert names == ["a.jpg", "b.jpg", "c.png", "d.webp", "e.png", "f.bmp"]


def test_two_formats_in_one_folder_are_asked_about(photos, tmp_path):
    root = tmp_path / "export"
    exporters.apart(photos[:6], root)
    for photo in photos[:6]:
        text = exporters.yolo_lines(photo, names_of(photos))
        write(root / "labels" / f"{photo.path.stem}.txt", text)
    write(root / "classes.txt", "\n".join(names_of(photos)))
    first = f"annotations/{photos[2].path.stem}.xml"
    with pytest.raises(DataError, match=r"holds Pascal VOC \(.*\.xml\) and YOLO \(.*\.txt\); name one"):
        import_export(root, tmp_path / "mine")
    assert set(recognise(root)) == {"voc", "yolo"}
    for file, layout in ((first, "voc"), ("classes.txt", "yolo"), (recognise(root)["yolo"], "yolo")):
        report = import_export(root / file, tmp_path / f"mine of {Path(file).name}")
        assert report.format == layout
        assert_same_boxes(tmp_path / f"mine of {Path(file).name}", photos[:6])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no labels found among 0 files; looked for Pascal VOC .* COCO .* YOLO"),
        ({"notes.txt": "hello", "labels.csv": "a,b"}, "no labels found among 2 files"),
        ({"annotations.xml": "<annotations><version>1.1</version></annotations>"}, "no labels found"),
        ({"found.json": '[{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}]'}, "holds detections"),
        ({"a.xml": "<annotation></annotation>"}, "no image with an object: 1 images missing"),
        ({"x.json": '{"images": [], "annotations": [], "categories": []}'}, "its images have no objects"),
        ({"x.json": '{"images": 1, "annotations": [], "categories": []}'}, "not COCO annotations"),
        ({"x.json": '{"images": [], "annotations": [], "categories"'}, "cannot be read as JSON"),
        ({"data.yaml": "names: [a, b]"}, "no image with an object"),
    ],
)
def test_what_holds_nothing_gets_one_line(content, message, tmp_path):
    root = tmp_path / "export"
    root.mkdir()
    for name, text in content.items():
        write(root / name, text)
    with pytest.raises(DataError, match=message) as caught:
        import_export(root, tmp_path / "mine")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_paths_that_are_no_export(tmp_path):
    write(tmp_path / "photos.zip", "PK")
    with pytest.raises(DataError, match=r"photos\.zip: is an archive; unpack it"):
        import_export(tmp_path / "photos.zip", tmp_path / "mine")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        import_export(tmp_path / "nowhere", tmp_path / "mine")


def test_out_is_never_overwritten_nor_inside_the_export(cat, tmp_path, monkeypatch):
    root = tmp_path / "export"
    loose(root, ("cat.jpg", cat))
    write(tmp_path / "full/file", "mine")
    write(tmp_path / "file", "mine")
    for out in ("full", "file"):
        with pytest.raises(UsageError, match="is there already"):
            import_export(root, tmp_path / out)
    with pytest.raises(UsageError, match="lies in the export"):
        import_export(root, root / "mine")
    monkeypatch.chdir(root)
    for out in ("mine", "../export/mine", "."):
        with pytest.raises(UsageError, match=r"lies in the export|is there already"):
            import_export(Path(), Path(out))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert import_export(Path("export"), Path("empty")).images == 1
    assert load_voc(tmp_path / "empty", "trainval").image("cat").shape == (40, 60, 3)


def test_nothing_is_left_where_writing_fails(cat, tmp_path, monkeypatch):
    loose(tmp_path / "export", ("cat.jpg", cat))
    monkeypatch.setattr(
        "sppnet_cli.data.imports.importing.write_json",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(Exception, match=r"mine: cannot be written \(No space left on device\)"):
        import_export(tmp_path / "export", tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "made"]


def test_a_class_that_cannot_be_learnt_is_named(photos, tmp_path, capsys):
    exporters.coco_parts(photos, tmp_path / "export")
    path = tmp_path / "export/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    lost = next(entry["id"] for entry in content["categories"] if entry["name"] == "van")
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != lost]
    path.write_text(json.dumps(content))
    other = tmp_path / "export/annotations/instances_val2017.json"
    content = json.loads(other.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != lost]
    other.write_text(json.dumps(content))
    import_export(tmp_path / "export", tmp_path / "mine")
    assert "class van has no object in trainval" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("exporter", [exporters.cvat, exporters.coco, exporters.ultralytics])
def test_ten_thousand_images_take_less_than_a_minute(exporter, photos, tmp_path):
    many = []
    for number in range(10_000):
        path = tmp_path / "made" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.hardlink_to(photos[number % 40].path)
        many.append(Photo(path, photos[number % 40].size, photos[number % 40].objects))
    exporter(many, tmp_path / "export")
    begin = time.process_time()
    assert import_export(tmp_path / "export", tmp_path / "mine").images == 10_000
    assert time.process_time() - begin < 60
