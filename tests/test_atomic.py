import pytest

from sppnet_cli.atomic import atomic_path
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
