"""The devkit's result files: what is written, what is read, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.evaluation.comp4 import read_comp4, write_comp4
from sppnet_cli.evaluation.voc_ap import match_detections

COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]
NAMES = ("cat", "dog", "potted plant")


def frame_of(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_lines_are_as_the_devkit_has_them(tmp_path):
    frame = frame_of(
        ("000012", "cat", 0.5, 0.0, 9.0, 99.5, 49.0),
        ("000003", "dog", -1.25, 1.0, 2.0, 3.0, 4.0),
        ("000012", "cat", 2.0, 7.0, 7.0, 7.0, 7.0),
    )
    write_comp4(tmp_path / "new" / "comp4", frame, "test", NAMES)
    written = {path.name: path.read_text() for path in (tmp_path / "new" / "comp4").iterdir()}
    assert written == {
        "comp4_det_test_cat.txt": "000012 0.5 1.0 10.0 100.5 50.0\n000012 2.0 8.0 8.0 8.0 8.0\n",
        "comp4_det_test_dog.txt": "000003 -1.25 2.0 3.0 4.0 5.0\n",
        "comp4_det_test_potted plant.txt": "",
    }


def test_what_was_written_is_read_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (500, 4)).astype(np.float32).astype(float)
    corners[:, 2:] += corners[:, :2]
    frame = pd.DataFrame(corners, columns=COLUMNS[3:])
    frame.insert(0, "score", rng.standard_normal(500).astype(np.float32).astype(float) * 1e-3)
    frame.insert(0, "class", rng.choice(NAMES[:2], 500))
    frame.insert(0, "image", rng.choice(["000001", "2008_000003", "a-b"], 500))
    write_comp4(tmp_path, frame, "val", NAMES)
    found, missing = read_comp4(tmp_path, "val", NAMES)
    assert missing == frozenset()
    expected = frame.sort_values("class", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_no_detection_at_all(tmp_path):
    write_comp4(tmp_path, frame_of(), "test", NAMES)
    found, missing = read_comp4(tmp_path, "test", NAMES)
    assert (list(found.columns), len(found), missing) == (COLUMNS, 0, frozenset())


def test_a_class_may_be_named_with_a_slash(tmp_path):
    write_comp4(tmp_path, frame_of(("1", "car/van", 1.0, 0.0, 0.0, 1.0, 1.0)), "test", ["car/van"])
    assert (tmp_path / "comp4_det_test_car_van.txt").is_file()
    assert read_comp4(tmp_path, "test", ["car/van"])[0]["class"].tolist() == ["car/van"]


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        (".", "comp4"),
        (".", "comp3"),
        (".", "comp4-44503"),
        (".", "comp4_5a1c-b2_x"),
        ("comp4", "comp4"),
        ("Main", "comp3"),
        ("VOC2007/Main", "comp4"),
        ("results/VOC2007/Main", "comp4_5a1c"),
    ],
)
def test_where_results_are_found(tmp_path, place, prefix):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}_det_test_cat.txt").write_text("000001 0.875 11 21 30 40\n\n")
    (folder / f"{prefix}_det_trainval_dog.txt").write_text("nonsense")
    (folder / f"{prefix}_cls_test_dog.txt").write_text("000001 1\n")
    found, missing = read_comp4(tmp_path, "test", NAMES)
    assert found.to_numpy().tolist() == [["000001", "cat", 0.875, 10, 20, 29, 39]]
    assert missing == {"dog", "potted plant"}


def test_two_sets_are_one_too_many(tmp_path):
    (tmp_path / "comp3_det_test_cat.txt").touch()
    (tmp_path / "comp4_det_test_cat.txt").touch()
    with pytest.raises(DataError, match=r"several sets of results \(.*comp3_\*, .*comp4_\*\); name a folder"):
        read_comp4(tmp_path, "test", NAMES)


def test_a_folder_without_results(tmp_path):
    (tmp_path / "comp4_det_val_cat.txt").touch()
    with pytest.raises(DataError, match=r"no detections of test \(comp4_det_test_<class>\.txt\)"):
        read_comp4(tmp_path, "test", NAMES)


def test_unknown_classes_are_left_out_unless_all_are_unknown(tmp_path, capsys):
    (tmp_path / "comp4_det_test_unicorn.txt").write_text("nonsense")
    with pytest.raises(DataError, match=r"comp4_det_test_unicorn\.txt: not one of the classes cat, dog"):
        read_comp4(tmp_path, "test", NAMES)
    (tmp_path / "comp4_det_test_dog.txt").touch()
    assert read_comp4(tmp_path, "test", NAMES)[1] == {"cat", "potted plant"}
    assert "left out comp4_det_test_unicorn.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000001 0.5 1 1 9", "is not <image> <score> <x1>"),
        ("000001 0.5 1 1 9 9 9", "is not <image> <score> <x1>"),
        ("000001 high 1 1 9 9", "is not <image> <score> <x1>"),
        ("000001,0.5,1,1,9,9", "is not <image> <score> <x1>"),
        ("000001 nan 1 1 9 9", "not finite"),
        ("000001 -inf 1 1 9 9", "not finite"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_text(f"000001 1 1 1 9 9\n\n{line}\n")
    with pytest.raises(DataError, match=rf"comp4_det_test_cat\.txt, line 3: .*{message}") as caught:
        read_comp4(tmp_path, "test", NAMES)
    assert "\n" not in str(caught.value)


def test_a_box_of_one_pixel_is_none_the_worse(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("000001 1 5 5 5 5\n")
    assert len(read_comp4(tmp_path, "test", NAMES)[0]) == 1


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"comp4_det_test_cat\.txt: cannot be read as text"):
        read_comp4(tmp_path, "test", NAMES)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").mkdir()
    with pytest.raises(SppnetError, match=r"comp4_det_test_cat\.txt: cannot be written"):
        write_comp4(tmp_path, frame_of(), "test", NAMES)


@pytest.mark.parametrize(
    "box", ["9 1 8.9 9", "1 9 9 8", "50 50 1 1", "1 1 inf 9", "nan nan nan nan", "-inf 1 9 9"]
)
def test_a_box_that_cannot_match_is_a_false_positive(tmp_path, box):
    (tmp_path / "comp4_det_test_cat.txt").write_text(f"000001 0.5 {box}\n000001 0.25 1 1 10 10\n")
    frame, _ = read_comp4(tmp_path, "test", NAMES)
    found = frame[["x1", "y1", "x2", "y2", "score"]].to_numpy()
    assert np.isfinite(found).all()
    truth = [np.array([[0, 0, 9, 9]], dtype=float)]
    assert match_detections([found], truth, [np.array([False])]).marks.tolist() == [0, 1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path, encoding):
    (tmp_path / "comp4_det_test_cat.txt").write_text("000004 1 5 5 5 5\n", encoding=encoding)
    assert read_comp4(tmp_path, "test", NAMES)[0]["image"].tolist() == ["000004"]


def test_hidden_files_beside_the_results(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("000004 1 5 5 5 5\n")
    (tmp_path / "._comp4_det_test_cat.txt").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / ".comp3_det_test_dog.txt").write_text("nonsense")
    assert len(read_comp4(tmp_path, "test", NAMES)[0]) == 1


@pytest.mark.parametrize("image", ["../000001", "/etc/passwd", "a/../../b", "x" * 300])
def test_an_id_that_leads_elsewhere(tmp_path, image):
    (tmp_path / "comp4_det_test_cat.txt").write_text(f"000004 1 5 5 5 5\n{image} 1 5 5 5 5\n")
    with pytest.raises(DataError, match=r"comp4_det_test_cat\.txt: .* is no id of an image"):
        read_comp4(tmp_path, "test", NAMES)
