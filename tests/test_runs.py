import json

import pytest
from small_runs import INPUTS, Config, cut_off, make

from sppnet_cli.digests import file_digest
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.runs import (
    content,
    fingerprint,
    identity,
    read_manifest,
    require_intact,
    require_same,
)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "a"


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"name": "my app"}', "{", ""])
def test_a_manifest_of_others_is_no_run(out, text):
    out.mkdir(parents=True)
    (out / "manifest.json").write_text(text)
    for call in (lambda: make(out), lambda: read_manifest(out), lambda: fingerprint(out)):
        with pytest.raises(DataError, match="not a complete run directory") as caught:
            call()
        assert str(out) in str(caught.value)


def test_the_fingerprint_of_a_file_is_its_contents(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"one")
    first = fingerprint(path)
    assert fingerprint(path) == first
    path.write_bytes(b"two")
    assert fingerprint(path) != first
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(b"one")
    assert fingerprint(moved) == first


def tree(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_fingerprint_of_a_data_folder_is_its_names_and_sizes(tmp_path):
    files = {"b/2.jpg": "22", "a.txt": "1"}
    first = fingerprint(tree(tmp_path / "first", files))
    assert fingerprint(tree(tmp_path / "same", dict(reversed(files.items())))) == first
    others = [
        {"b/2.jpg": "22"},
        {"b/3.jpg": "22", "a.txt": "1"},
        {"c/2.jpg": "22", "a.txt": "1"},
        {"b/2.jpg": "222", "a.txt": "1"},
        files | {"c.txt": ""},
    ]
    found = {fingerprint(tree(tmp_path / f"other{k}", other)) for k, other in enumerate(others)}
    assert len(found) == len(others)
    assert first not in found


def test_the_fingerprint_of_a_run_is_what_it_was_made_from(tmp_path):
    first = fingerprint(make(tmp_path / "a"))
    assert first == read_manifest(tmp_path / "a")["fingerprint"]
    assert fingerprint(make(tmp_path / "elsewhere" / "b")) == first
    assert fingerprint(make(tmp_path / "c", config=Config(rate=0.2))) != first
    assert fingerprint(make(tmp_path / "d", inputs={"data": "x"})) != first
    assert fingerprint(make(tmp_path / "e", stage="detect")) != first


def test_nothing_has_no_fingerprint(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        fingerprint(tmp_path / "none")


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(DataError, match="not a complete run directory"):
        read_manifest(tmp_path)


def test_a_partial_run_is_not_taken_for_one(out):
    with pytest.raises(KeyboardInterrupt):
        make(out, cut_off)
    partial = out.with_name("a.partial")
    assert json.loads((partial / "started.json").read_text())["stage"] == "train"
    with pytest.raises(DataError, match="not a complete run directory"):
        read_manifest(partial)


def test_what_differs_from_a_run_is_said_without_making_anything(out):
    make(out)
    require_same(out, identity("train", Config(), INPUTS))
    with pytest.raises(UsageError, match=r"rate was 0\.1, not 0\.2"):
        require_same(out, identity("train", Config(rate=0.2), INPUTS))


def several(folder):
    for name in ("weights.safetensors", "about.json", "table.csv", "picture.jpg"):
        (folder / name).write_text(name)
    (folder / "boxes").mkdir()
    (folder / "boxes" / "1.npy").write_text("1")


def test_the_content_of_a_run(out):
    make(out, several)
    recorded = read_manifest(out)["content"]
    assert list(recorded) == ["about.json", "boxes", "picture.jpg", "table.csv", "weights.safetensors"]
    assert recorded["about.json"] == file_digest(out / "about.json")
    assert recorded["boxes"] == fingerprint(out / "boxes")  # names and sizes
    assert content(out) == recorded
    require_intact(out)


@pytest.mark.parametrize("name", ["weights.safetensors", "about.json", "table.csv"])
def test_a_changed_file_is_named(out, name):
    make(out, several)
    (out / name).write_text(name[::-1])
    with pytest.raises(DataError, match=rf"{name}: was changed after sppnet wrote it; .*remove {out}"):
        require_intact(out)


@pytest.mark.parametrize("name", ["weights.safetensors", "picture.jpg"])
def test_a_missing_file_is_named(out, name):
    make(out, several)
    (out / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: is missing; remove {out} and repeat the command"):
        require_intact(out)


def test_a_missing_folder_is_named(out):
    make(out, several)
    (out / "boxes" / "1.npy").unlink()
    (out / "boxes").rmdir()
    with pytest.raises(DataError, match="boxes: is missing"):
        require_intact(out)


def test_what_is_added_to_a_run_does_not_matter(out):
    make(out, several)
    (out / "notes.txt").write_text("mine")
    (out / "picture.jpg").write_text("cropped by hand")  # nothing is computed from it
    require_intact(out)


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": 3},
        {"fingerprint": None},
        {"config": []},
        {"inputs": {"data": 1}},
        {"seconds": "long"},
        {"stage": ["train"]},
        {"content": {"a": None}},
        {"code": 1},
    ],
    ids=str,
)
def test_a_manifest_of_wrong_types_is_no_run(out, change):
    make(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | change))
    for call in (lambda: read_manifest(out), lambda: fingerprint(out), lambda: make(out)):
        with pytest.raises(DataError, match=r"manifest\.json: .*not a complete run directory") as caught:
            call()
        assert str(out) in str(caught.value)


def test_what_systems_hide_in_a_folder_changes_no_fingerprint(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name / "JPEGImages").mkdir(parents=True)
        (tmp_path / name / "JPEGImages" / "1.jpg").write_bytes(b"12")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "b" / "JPEGImages" / "._1.jpg").write_bytes(b"x")
    (tmp_path / "b" / "__MACOSX" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "b" / "__MACOSX" / "JPEGImages" / "1.jpg").write_bytes(b"x")
    (tmp_path / "c" / "JPEGImages" / "2.jpg").symlink_to("nothing")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


def test_weights_exchanged_under_a_manifest_are_noticed(out):
    make(out, several)
    (out / "weights.safetensors").write_text("weights.safetensorz")  # as long as before
    with pytest.raises(DataError, match=r"weights\.safetensors: was changed after sppnet wrote it"):
        fingerprint(out)
