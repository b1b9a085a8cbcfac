import errno
import os
import stat
from pathlib import Path

import pytest

from sppnet_cli.atomic import atomic_path, require_place, write_text
from sppnet_cli.errors import SppnetError


def test_the_file_appears_when_done(tmp_path):
    target = tmp_path / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")

    def cut_off():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_where_nothing_can_be_written_the_error_names_the_file(tmp_path):
    target = tmp_path / "no such folder" / "out.txt"
    with pytest.raises(SppnetError, match=r"out\.txt: cannot be written"), atomic_path(target) as temporary:
        temporary.write_text("x")


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, problem in {
        "no/x": "there is no such folder", "file/x": "there is no such folder|Not a directory", "pipe": "it is no regular file",
        ".": "it is no regular file|no name", "x" * 300: "File name too long",
    }.items():  # fmt: skip
        with pytest.raises(SppnetError, match=problem):
            require_place(tmp_path / name)
        worked = []
        with pytest.raises(SppnetError, match=problem), atomic_path(tmp_path / name):
            worked.append(1)
        assert not worked
    for name in ("file", "new", "~"):
        require_place(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_name_of_254_bytes(tmp_path):
    for name in ("x" * 254, "é" * 127, "y" * 251 + ".jpg"):
        write_text(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_device_is_not_replaced(tmp_path):
    with pytest.raises(SppnetError, match=r"/dev/null: cannot be written \(it is no regular file\)"):
        write_text(Path("/dev/null"), "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SppnetError, match="no regular file"):
        write_text(tmp_path / "pipe", "x")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_what_is_no_name_of_a_file(name):
    with pytest.raises(SppnetError, match=r"is no name for a file|is no regular file"):
        write_text(Path(name), "x")


def test_a_full_disk_is_said_with_the_files_name(tmp_path):
    with (
        pytest.raises(SppnetError, match=r"x\.txt: cannot be written \(No space left on device\)"),
        atomic_path(tmp_path / "x.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` does, without a name


def test_the_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), atomic_path(tmp_path / "x.txt"):
        (tmp_path / "other.txt").read_text()


def test_a_tilde_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_text(Path("~"), "x")
    assert (tmp_path / "~").read_text() == "x"


def test_bytes_of_a_name_that_are_no_text_can_be_written(tmp_path):
    write_text(tmp_path / "x.csv", os.fsdecode(b"caf\xe9.jpg,1\n"))
    assert (tmp_path / "x.csv").read_text() == "caf\\udce9.jpg,1\n"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "x", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask
