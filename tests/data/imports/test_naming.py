"""Names that lists and file names can hold, and no two of them alike."""

import os

from sppnet_cli.data.imports.naming import class_names, image_ids


def test_ids_by_hand():
    assert image_ids(["a/cat.jpg", "b/dog 1.png", "my photo\t2.JPG"]) == {
        "a/cat.jpg": "cat",
        "b/dog 1.png": "dog_1",
        "my photo\t2.JPG": "my_photo_2",
    }


def test_ids_of_equal_stems_carry_their_folders():
    assert image_ids(["a/1.jpg", "b/1.jpg", "b/1.png", "2.jpg", "a_1.jpg", "x/A_1.jpg"]) == {
        "a/1.jpg": "a_1",
        "b/1.jpg": "b_1_jpg",
        "b/1.png": "b_1_png",
        "2.jpg": "2",
        "a_1.jpg": "a_1_2",
        "x/A_1.jpg": "x_A_1",
    }


def test_ids_differ_where_case_is_not_told_apart():
    assert list(image_ids(["a/1.jpg", "b/1.jpg", "A_1.jpg"]).values()) == ["a_1", "b_1", "A_1_2"]


def test_ids_of_odd_names():
    latin = os.fsdecode("caf\xe9.jpg".encode("latin-1"))
    names = [
        latin,
        "cafe\u0301 au lait.jpg",
        "写真.jpg",
        "-.jpg",
        "a\u00a0b.jpg",
        "n\nl.jpg",
        "x" * 300 + ".jpg",
    ]
    ids = image_ids(names)
    assert [ids[name] for name in names[:6]] == ["café", "café_au_lait", "写真", "-", "a_b", "n_l"]
    assert len(ids[names[6]]) == 120
    for name in ids.values():
        assert len(name.split()) == 1
        assert "/" not in name
        name.encode()


def test_long_names_that_begin_alike_stay_apart():
    ids = image_ids([f"{'é' * 100}{k}.jpg" for k in range(3)])
    assert len(set(ids.values())) == 3


def test_class_names_by_hand():
    names = ["cat", " traffic \n light ", "a/b", "a_b", "..", "", "Cat", "cafe\u0301", "café", "a\\b"]
    assert class_names(names) == {
        "cat": "cat",
        " traffic \n light ": "traffic light",
        "a/b": "a_b_2",
        "a_b": "a_b",
        "..": "_..",
        "": "_",
        "Cat": "Cat",
        "cafe\u0301": "café",
        "café": "café",
        "a\\b": "a_b_3",
    }
