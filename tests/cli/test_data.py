"""`sppnet data`: what it prints and its exit codes; the work itself is tested with `data.inspect` and `data.fetch`."""

import json
import shutil

import pytest

from sppnet_cli.data.fetch import SOURCES, Archive, Source
from sppnet_cli.data.voc import load_voc


@pytest.fixture
def val(tiny_data, tmp_path):
    """ImageNet's validation part of the tiny data: 20 classes of one image."""
    return shutil.copytree(tiny_data / "imagenet" / "val", tmp_path / "set" / "val").parent


def test_check_prints_a_table_and_what_it_is_good_for(sppnet, val):
    code, out, err = sppnet("data", "check", val)
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["layout", "split", "images", "published", "classes", "images", "a", "class", "objects"],
        ["-" * n for n in (8, 5, 6, 9, 7, 14, 7)],
        ["ImageNet", "val", "20", "50000", "20", "1..1"],
    ]
    assert f"{val}: not the full published set, good for evaluation of a trained network" in err
    assert "warning" not in err


def test_check_says_that_the_embedded_data_are(sppnet, tiny_data):
    code, out, err = sppnet("data", "check", tiny_data)
    assert "tiny, the embedded mini data" in out
    assert "good for Tables 3, 5 (its column VOC 2007) and 6 to 9" in err
    assert code == 3  # too few images for Table 4
    assert "12 problems, named above; mend them" in err


def test_check_as_json(sppnet, val):
    code, out, _ = sppnet("data", "check", val, "--json", "--full")
    assert code == 0
    assert json.loads(out) == {
        "folder": str(val),
        "mini": False,
        "data_sets": [
            {
                "layout": "ImageNet",
                "root": str(val),
                "splits": [
                    {
                        "name": "val",
                        "images": 20,
                        "published": 50000,
                        "classes": 20,
                        "per_class": [1, 1],
                        "objects": None,
                    }
                ],
                "tables": [],
                "use": "evaluation of a trained network; Tables 1 and 2 need train too",
                "problems": [],
                "mended": {},
                "full": False,
            }
        ],
        "problems": [],
    }


def test_check_shows_20_problems_and_json_all(sppnet, val):
    broken = list((val / "val").glob("*/*.JPEG"))
    for path in broken:
        path.write_bytes(b"?")
    for number in range(5):
        (val / "val" / f"empty{number}").mkdir()
    code, _, err = sppnet("data", "check", val)
    assert code == 3
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 21
    assert warnings[-1] == "warning: and 5 more; --json lists all"
    assert f"error: {val}: 25 problems, named above; mend them" in err
    code, out, _ = sppnet("data", "check", val, "--json")
    assert code == 3
    assert len(json.loads(out)["problems"]) == 25


def test_check_of_nothing(sppnet, tmp_path):
    code, out, err = sppnet("data", "check", "nowhere")
    assert (code, out) == (3, "")
    assert "nowhere: no such folder" in err


def test_fetch_when_all_is_there(sppnet, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "voc2007", Source((), "toy", "VOCdevkit/toy", (), 0))
    (tmp_path / "data" / "VOCdevkit" / "toy").mkdir(parents=True)
    code, out, err = sppnet("data", "fetch", "voc2007")
    assert (code, out, err) == (0, "", "voc2007: data/VOCdevkit/toy\nnext: sppnet data check data\n")
    code, out, _ = sppnet("data", "fetch", "voc2007", "--out", tmp_path / "data", "--json")
    assert (code, json.loads(out)) == (0, {"data": f"{tmp_path}/data/VOCdevkit/toy"})


def test_fetch_without_a_server_is_one_line(sppnet, monkeypatch):
    archive = Archive("http://127.0.0.1:9/toy.tar", md5="0")
    monkeypatch.setitem(SOURCES, "caltech101", Source((archive,), "toy", "toy", (), 0))
    code, out, err = sppnet("data", "fetch", "caltech101")
    assert (code, out) == (3, "")
    _, line = err.splitlines()
    assert line.startswith("error: http://127.0.0.1:9/toy.tar: cannot be downloaded (")


def test_fetch_imagenet_says_how(sppnet, tmp_path):
    code, out, _ = sppnet("data", "fetch", "imagenet", "--out", "big disk")
    assert code == 0
    assert "Register at https://image-net.org" in out
    assert "sppnet data check 'big disk'" in out
    code, as_json, _ = sppnet("data", "fetch", "imagenet", "--out", "big disk", "--json")
    assert (code, json.loads(as_json)["steps"]) == (0, out.splitlines())
    assert not list(tmp_path.iterdir())


def test_fetch_of_another_name_is_a_usage_error(sppnet):
    code, _, err = sppnet("data", "fetch", "coco")
    assert code == 2
    assert "'voc2007', 'caltech101', 'imagenet'" in err


def test_statistics_have_a_column_a_set(sppnet, tiny_data):
    data = tiny_data / "VOCdevkit"
    code, out, _ = sppnet("data", "statistics", data, data / "VOC2007", "--images", "0")
    assert code == 0
    assert out.splitlines()[1].split() == [str(data), str(data / "VOC2007")]
    of_all = [line.split() for line in out.splitlines() if line.startswith("objects  ")]
    objects = sum(
        len(load_voc(data, split).annotation(i).labels)
        for split in ("trainval", "test")
        for i in load_voc(data, split).ids
    )
    assert of_all == [["objects", str(objects), str(objects)]]


def test_statistics_as_json(sppnet, tiny_data):
    data = tiny_data / "VOCdevkit"
    code, out, _ = sppnet("data", "statistics", data, "--images", "0", "--json")
    assert code == 0
    found = json.loads(out)[str(data)]
    assert found["classes"] == 20
    assert found["recall_05"] is None
    assert len(found["side"]) == 3


def test_statistics_of_nothing(sppnet, tmp_path):
    code, _, err = sppnet("data", "statistics")
    assert (code, err) == (2, "error: name a VOC folder, or give --mini\n")
    code, _, err = sppnet("data", "statistics", "there")
    assert code == 3
    assert "there: no such folder" in err
