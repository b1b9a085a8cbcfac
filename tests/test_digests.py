import os

import pytest

from sppnet_cli.digests import files_digest


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


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff", "山.jpg".encode(), b"a\nb.jpg"])
def test_names_that_are_no_text_and_links_to_nothing(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"x")
    there = files_digest([path])
    path.unlink()
    path.symlink_to("nowhere")
    assert len({there, files_digest([path]), files_digest([path.with_name("other")])}) == 3
