"""mini: the same seed gives the same bytes, the layouts are the official ones, the labels agree."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from defusedxml import ElementTree

from sppnet_cli.data import mini_drawing, mini_shapes, mini_voc
from sppnet_cli.data.mini import TINY, make_mini
from sppnet_cli.data.mini_drawing import Pose
from sppnet_cli.data.mini_shapes import CLASSES
from sppnet_cli.data.mini_voc import VocObject

SMALL = replace(TINY, imagenet_train=20, voc_trainval=3, voc_test=2, imagenet_val=2, caltech_per_category=1)
NAMES = [kind.name for kind in CLASSES]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "mini"
    make_mini(root, seed=0, size=TINY)
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_list(root: Path, name: str) -> dict[str, str]:
    lines = (root / "VOCdevkit/VOC2007/ImageSets/Main" / f"{name}.txt").read_text().splitlines()
    return {line[:6]: line[6:] for line in lines}


def objects(root: Path, image_id: str) -> list[tuple[str, bool, bool, tuple[int, ...]]]:
    """Name, difficult, truncated and the file's 1-based box of every object."""
    tree = ElementTree.parse(root / f"VOCdevkit/VOC2007/Annotations/{image_id}.xml")
    found = []
    for node in tree.iter("object"):
        box = tuple(int(node.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
        flags = node.findtext("difficult"), node.findtext("truncated")
        assert set(flags) <= {"0", "1"}
        assert node.findtext("pose") == "Unspecified"
        found.append((node.findtext("name"), flags[0] == "1", flags[1] == "1", box))
    return found


def test_same_seed_same_bytes(tiny: Path, tmp_path: Path) -> None:
    make_mini(tmp_path / "again", seed=0, size=SMALL)
    make_mini(tmp_path / "twice", seed=0, size=SMALL)
    make_mini(tmp_path / "other", seed=1, size=SMALL)
    again, other, larger = digests(tmp_path / "again"), digests(tmp_path / "other"), digests(tiny)
    assert again == digests(tmp_path / "twice")
    images = [name for name in again if name.endswith((".jpg", ".JPEG"))]
    assert all(again[name] != other[name] for name in images)
    # An image depends on its own number alone, not on how many there are.
    train = [name for name in images if name.startswith("imagenet/train")]
    assert len(train) == 20
    assert all(again[name] == larger[name] for name in train)


def test_thread_count_does_not_matter(tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    try:
        for count in (1, 4):
            cv2.setNumThreads(count)
            make_mini(tmp_path / str(count), size=SMALL)
    finally:
        cv2.setNumThreads(threads)
    assert digests(tmp_path / "1") == digests(tmp_path / "4")


def test_imagenet_layout(tiny: Path) -> None:
    rows = list(csv.DictReader((tiny / "imagenet/classes.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == NAMES
    assert rows[0] == {"wnid": "n90000001", "name": "zero"}
    for split, per_class in (("train", 2), ("val", 1)):
        folders = sorted((tiny / "imagenet" / split).iterdir())
        assert [folder.name for folder in folders] == [row["wnid"] for row in rows]
        for folder in folders:
            expected = [f"{folder.name}_{n + 1}.JPEG" for n in range(per_class)]
            assert sorted(path.name for path in folder.iterdir()) == expected


def test_image_sizes_vary(tiny: Path) -> None:
    shapes = [cv2.imread(str(path)).shape for path in (tiny / "imagenet").rglob("*.JPEG")]
    aspects = [width / height for height, width, _ in shapes]
    assert all(256 <= min(height, width) <= 320 for height, width, _ in shapes)
    assert len(set(shapes)) > 50
    assert 0.49 < min(aspects) < 0.65
    assert 1.5 < max(aspects) < 2.01
    shapes = [cv2.imread(str(path)).shape for path in (tiny / "VOCdevkit").rglob("*.jpg")]
    assert all(240 <= min(shape[:2]) <= 300 for shape in shapes)


def test_voc_layout_and_lists(tiny: Path) -> None:
    trainval, test = set(read_list(tiny, "trainval")), set(read_list(tiny, "test"))
    train, val = set(read_list(tiny, "train")), set(read_list(tiny, "val"))
    assert (len(train), len(val), len(test)) == (10, 10, 20)
    assert train | val == trainval
    assert not train & val
    assert trainval | test == {f"{n:06d}" for n in range(1, 41)}
    assert not trainval & test
    voc = tiny / "VOCdevkit/VOC2007"
    assert {path.stem for path in (voc / "JPEGImages").iterdir()} == trainval | test
    assert {path.stem for path in (voc / "Annotations").iterdir()} == trainval | test
    expected = {f"{name}_{split}.txt" for name in NAMES for split in ("train", "val", "trainval", "test")}
    expected |= {"train.txt", "val.txt", "trainval.txt", "test.txt"}
    assert {path.name for path in (voc / "ImageSets/Main").iterdir()} == expected
    assert sorted(read_list(tiny, "test")) == list(read_list(tiny, "test"))


def test_voc_boxes_lie_inside_their_images(tiny: Path) -> None:
    for path in (tiny / "VOCdevkit/VOC2007/Annotations").iterdir():
        tree = ElementTree.parse(path)
        assert tree.findtext("folder") == "VOC2007"
        image = cv2.imread(str(path.parents[1] / "JPEGImages" / tree.findtext("filename")))
        size = [int(tree.findtext(f"size/{key}")) for key in ("height", "width", "depth")]
        assert size == list(image.shape)
        found = objects(tiny, path.stem)
        assert 1 <= len(found) <= 7
        assert not found[0][1]  # the first object is never difficult
        for name, _, _, (x1, y1, x2, y2) in found:
            assert name in NAMES
            assert 1 <= x1 < x2 <= size[1]
            assert 1 <= y1 < y2 <= size[0]


def test_class_lists_follow_the_annotations(tiny: Path) -> None:
    for split in ("train", "val", "trainval", "test"):
        for name in NAMES:
            for image_id, text in read_list(tiny, f"{name}_{split}").items():
                difficult = [flag for kind, flag, _, _ in objects(tiny, image_id) if kind == name]
                expected = "  0" if difficult and all(difficult) else "  1" if difficult else " -1"
                assert text == expected


def test_every_class_is_there_to_train_and_to_test(tiny: Path) -> None:
    for split in ("trainval", "test"):
        assert all("  1" in read_list(tiny, f"{name}_{split}").values() for name in NAMES)


def test_difficult_only_is_labelled_zero(tmp_path: Path) -> None:
    box = (0, 0, 9, 9)
    easy, hard = VocObject("ring", box, False, False), VocObject("ring", box, False, True)
    other = VocObject("star", box, False, False)
    annotations = {"000003": [hard, easy], "000001": [hard, hard, other], "000002": [other]}
    mini_voc._write_lists(tmp_path, "val", ["000003", "000001", "000002"], annotations)
    assert (tmp_path / "ring_val.txt").read_text() == "000001  0\n000002 -1\n000003  1\n"
    assert (tmp_path / "star_val.txt").read_text() == "000001  1\n000002  1\n000003 -1\n"
    assert (tmp_path / "val.txt").read_text() == "000001\n000002\n000003\n"


def test_boxes_are_written_one_based() -> None:
    xml = mini_voc._annotation_xml("000007", (30, 40, 3), [VocObject("ring", (0, 2, 39, 29), True, False)])
    box = ElementTree.fromstring(xml).find("object/bndbox")
    assert [(node.tag, node.text) for node in box] == [
        ("xmin", "1"),
        ("ymin", "3"),
        ("xmax", "40"),
        ("ymax", "30"),
    ]


def test_annotation_of_what_is_visible() -> None:
    visible = np.zeros((40, 60), np.bool_)
    visible[5:15, 7:27] = True  # 200 pixels: x 7..26, y 5..14
    box = (7, 5, 26, 14)
    assert mini_voc._annotate("ring", visible, 200, False) == VocObject("ring", box, False, False)
    assert mini_voc._annotate("ring", visible, 400, False) == VocObject("ring", box, True, False)
    assert mini_voc._annotate("ring", visible, 500, False) == VocObject("ring", box, True, True)
    assert mini_voc._annotate("ring", visible, 5000, False) is None
    assert mini_voc._annotate("ring", visible, 200, True) == VocObject("ring", box, False, True)


def test_poses_have_the_sides_of_vocs_objects() -> None:
    rng = np.random.default_rng(0)
    sides = [mini_voc._pose(rng, (300, 400)).side / 300 for _ in range(4000)]
    low, median, high = np.percentile(sides, (5, 50, 95))
    # Drawn larger than VOC's: large ones are cut by the border or find no room.
    assert (low, median, high) == pytest.approx((0.13, 0.67, 1.5), abs=0.03)
    hard = [mini_voc._pose(rng, (300, 400), hard=True) for _ in range(200)]
    tiny, faint = (
        [test(pose) for pose in hard] for test in (lambda p: p.side < 27, lambda p: p.opacity < 0.4)
    )
    assert all(np.logical_or(tiny, faint))
    assert 60 < sum(faint) < 140


def test_an_object_keeps_clear_of_others() -> None:
    rng = np.random.default_rng(0)
    near, far, same = (Pose((x, 50.0), 40.0) for x in (75.0, 91.0, 50.0))
    other = [Pose((50.0, 50.0), 40.0)]
    answers = {pose: [mini_voc._is_free(rng, pose, other) for _ in range(50)] for pose in (near, far, same)}
    assert all(answers[far])
    assert not any(answers[same])
    assert len(set(answers[near])) == 2  # some may hide another in part
    assert mini_voc._is_free(rng, same, [])


def test_drawn_pixels_are_where_the_mask_says() -> None:
    for kind in CLASSES:
        rng = np.random.default_rng(3)
        image = np.full((200, 200, 3), 128, np.uint8)
        covered, area = mini_drawing.draw_object(rng, image, kind, Pose((190.0, 90.0), 60.0), held_out=False)
        changed = np.abs(image.astype(int) - 128).sum(2) > 90
        assert covered.sum() < area  # part of it lies beyond the border
        assert (changed & ~covered).sum() < 0.25 * covered.sum()  # soft edges
        assert (changed & covered).sum() > 0.4 * covered.sum()
        assert changed[:, :130].sum() == 0


def test_training_and_test_images_share_no_handwriting() -> None:
    known = {False: mini_shapes._handwriting("four", False), True: mini_shapes._handwriting("four", True)}
    assert (len(known[False]), len(known[True])) == (120, 61)  # of 181 fours, one in three is held out
    assert {ink.tobytes() for ink in known[False]}.isdisjoint(ink.tobytes() for ink in known[True])


def test_caltech_layout(tiny: Path) -> None:
    categories = {path.name: path for path in (tiny / "caltech101/101_ObjectCategories").iterdir()}
    assert len(categories) == 12
    assert "BACKGROUND_Google" in categories
    assert {"bolt", "gear", "house", "drop"} <= set(categories) - set(NAMES)
    assert len(set(categories) & set(NAMES)) == 7
    for path in categories.values():
        assert sorted(file.name for file in path.iterdir()) == [f"image_{n:04d}.jpg" for n in (1, 2, 3, 4)]


def test_hue_and_texture_together_tell_the_class_and_neither_alone() -> None:
    assert len({(kind.hue, kind.texture) for kind in CLASSES}) == 20
    assert set(Counter(kind.hue for kind in CLASSES).values()) == {2}
    assert set(Counter(kind.texture for kind in CLASSES).values()) == {4}


def test_record(tiny: Path) -> None:
    record = json.loads((tiny / "mini.json").read_text())
    assert record["seed"] == 0
    assert record["size"]["voc_test"] == TINY.voc_test


def test_what_an_earlier_call_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "train" / "old").mkdir(parents=True)
    make_mini(tmp_path, size=SMALL)
    assert not (tmp_path / "imagenet" / "train" / "old").exists()
