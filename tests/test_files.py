"""Which files count, how text is decoded, and which ids may become paths."""

import os
from pathlib import Path

import pytest

from sppnet_cli.errors import DataError
from sppnet_cli.files import is_hidden, path_text, read_bytes, read_text, safe_id, stem_for, visible

SOURCE = Path("test.txt")


@pytest.mark.parametrize("name", ["._000004.xml", ".DS_Store", ".git", "__MACOSX", "@eaDir", "Thumbs.db"])
def test_files_of_systems_are_hidden(tmp_path, name):
    (tmp_path / name).touch()
    (tmp_path / "000004.xml").touch()
    assert is_hidden(name)
    assert visible(tmp_path) == [tmp_path / "000004.xml"]


def test_visible_files_match_the_pattern_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "._a.txt", "c.xml"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path, "*.txt")] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_text(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes("000004\ncafé\n".encode(encoding))
    assert read_text(path, "list") == "000004\ncafé\n"


@pytest.mark.parametrize("content", [b"caf\xe9", b"\xff\xfe\x00", b"\x80"])
def test_what_is_no_text_is_named_with_the_remedy(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt: cannot be read as text .*; save it as UTF-8"):
        read_text(path, "list")


def test_only_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "link", "list") == b"x"
    for name, message in {
        "pipe": "is a named pipe, not a regular list file",
        ".": "is a folder, not a regular list file",
        "dangling": "links to .*/gone, which is not there; restore it",
        "loop": "cannot be read .*symbolic links",
        "none": "no such list file; check the path",
        "x" * 300: "cannot be read .*too long",
    }.items():
        with pytest.raises(DataError, match=message):
            read_bytes(tmp_path / name, "list")
    with pytest.raises(DataError, match="is a device, not a regular list file"):
        read_bytes(Path("/dev/zero"), "list")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (b"caf\xe9.png", "caf_"),
        (b"\xff\xfe.jpg", "__"),
        (b"y" * 251 + b".jpg", "y" * 240),
        ("é".encode() * 125 + b".jpg", "é" * 120),
        (b"a b.c.jpg", "a b.c"),
        (b".jpg", ".jpg"),
    ],
)
def test_a_file_named_for_another_has_a_name_that_is_text_and_fits(tmp_path, name, stem):
    path = tmp_path / os.fsdecode(name)
    assert stem_for(path) == stem
    (tmp_path / f"10-{stem_for(path)}.safetensors").touch()
    assert path_text(str(path)).encode().decode("ascii" if b"\xff" in name else "utf-8")


@pytest.mark.parametrize(
    "text", ["000004", "2008/000004", "a b", "café", "图", "a..b", "~", "~root", "-x", "..."]
)
def test_ids_that_name_a_file_in_a_folder(text):
    assert safe_id(text, SOURCE) == text
    assert Path("folder", text).resolve().is_relative_to(Path("folder").resolve())


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "../evil", "../../../evil", "a/../../evil", "/etc/passwd", "a//b", "a/", "./a",
        "..\\evil", "\\\\host\\x", "C:\\x", "C:x", "a\0b", "a\nb", "\x1b[31m", "\udce9", "x" * 241, "a/" + "é" * 130,
        " ", "a/ /b", ".. ",
    ],
)  # fmt: skip
def test_ids_that_lead_elsewhere_are_refused(text):
    with pytest.raises(DataError, match=r"^test\.txt: .* is no id of an image") as caught:
        safe_id(text, SOURCE)
    assert str(caught.value).isprintable()
