import pytest

from sppnet_cli.digests import files_digest
from sppnet_cli.errors import DataError


def test_a_list_of_files_is_their_names_and_sizes_in_their_order(tmp_path):
    names = ("a/one.jpg", "a/two.jpg", "b/one.jpg")
    for copy in ("here", "there"):
        for size, name in enumerate(names):
            path = tmp_path / copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
    here, there = ([tmp_path / copy / name for name in names] for copy in ("here", "there"))
    assert files_digest(here) == files_digest(there)
    assert files_digest(here) != files_digest(here[::-1])
    assert files_digest(here) != files_digest(here[:2])
    here[1].write_bytes(b"other")
    assert files_digest(here) != files_digest(there)
    here[2].unlink()
    with pytest.raises(DataError, match=r"b/one\.jpg: no such file"):
        files_digest(here)
