"""Downloads, from a server of this process: cut off, resumed, refused, unpacked."""

import hashlib
import inspect
import io
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from sppnet_cli.data import fetch
from sppnet_cli.data.fetch import SOURCES, Archive, Source, fetch_data, imagenet_steps
from sppnet_cli.errors import DataError

TEXT = bytes(range(256)) * 12_000  # 3 MB: three chunks of a transfer


def tar_of(files, mode="w"):
    """The bytes of a tar of {name: bytes, or a TarInfo as it is}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


class Server:
    """Serves `files`; cuts off after `cut` bytes of a body, once; knows ranges or not; keeps the requests."""

    def __init__(self):
        self.files = {}
        self.cut = None
        self.ranges = True
        self.requests = []  # (path, Range header)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, self.headers["Range"]))
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request):
        body = self.files.get(request.path)
        if body is None:
            request.send_error(404)
            return
        start = 0
        if self.ranges and request.headers["Range"]:
            start = int(re.fullmatch(r"bytes=(\d+)-", request.headers["Range"])[1])
            if start >= len(body):
                request.send_error(416)
                return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        cut, self.cut = self.cut, None
        request.wfile.write(body[start:cut])

    def stop(self):
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def publish(server, monkeypatch):
    """Put a data set `toy` of archives {name: bytes} onto the server and into the table."""

    def publish(archives, inner=None, holds=("a.txt",), space=0):
        server.files |= {f"/{name}": content for name, content in archives.items()}
        table = tuple(
            Archive(f"{server.url}/{name}", hashlib.md5(content).hexdigest(), inner)
            for name, content in archives.items()
        )
        monkeypatch.setitem(SOURCES, "toy", Source(table, "kit/toy", "Kit/toy", holds, space))

    return publish


@pytest.fixture
def toy(publish):
    """Two tars that unpack to one folder, as VOC's do."""
    publish(
        {
            "train.tar": tar_of({"kit/toy/a.txt": TEXT, "kit/toy/lists/train.txt": b"1\n"}),
            "test.tar": tar_of({"kit/toy/b.txt": b"b", "kit/toy/lists/test.txt": b"2\n"}),
        },
        holds=("a.txt", "b.txt"),
    )


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_urls_and_md5s_are_torchvisions():
    voc = pytest.importorskip("torchvision.datasets.voc")
    caltech = pytest.importorskip("torchvision.datasets.caltech")
    imagenet = pytest.importorskip("torchvision.datasets.imagenet")
    for archive, key in zip(SOURCES["voc2007"].archives, ("2007", "2007-test"), strict=True):
        known = voc.DATASET_YEAR_DICT[key]
        assert (archive.md5, archive.name) == (known["md5"], known["filename"])
        # The host changes with torchvision's versions.
        assert urlsplit(archive.url).path == urlsplit(known["url"]).path
        assert SOURCES["voc2007"].unpacked == known["base_dir"]
    source = inspect.getsource(caltech.Caltech101.download)
    (archive,) = SOURCES["caltech101"].archives
    assert f'"{archive.url}"' in source
    assert f'md5="{archive.md5}"' in source
    steps = "\n".join(imagenet_steps(Path("x")))
    for name, md5 in imagenet.ARCHIVE_META.values():
        assert re.search(rf"{re.escape(name)} .* {md5}\n", steps)


def test_both_tars_become_one_folder_and_a_second_call_asks_nothing(toy, server, tmp_path):
    folder = fetch_data("toy", tmp_path / "data")
    assert folder == tmp_path / "data" / "Kit" / "toy"
    assert tree(tmp_path) == {
        f"data/Kit/toy/{name}" for name in ("a.txt", "b.txt", "lists/train.txt", "lists/test.txt")
    }
    assert (folder / "a.txt").read_bytes() == TEXT
    assert server.requests == [("/train.tar", None), ("/test.tar", None)]
    assert fetch_data("toy", tmp_path / "data") == folder
    assert len(server.requests) == 2


def test_the_tar_in_a_zip_is_unpacked_and_nothing_else(publish, tmp_path):
    inner = tar_of({"kit/toy/a.txt": b"a"}, mode="w:gz")
    publish({"toy.zip": zip_of({"x/toy.tar.gz": inner, "x/other.tar": b"?"})}, inner="x/toy.tar.gz")
    fetch_data("toy", tmp_path)
    assert tree(tmp_path) == {"Kit/toy/a.txt"}


def test_a_download_that_was_cut_off_goes_on(toy, server, tmp_path):
    server.cut = 1_500_000
    with pytest.raises(DataError, match=r"train\.tar: cannot be downloaded \(\d+ bytes are missing\); try"):
        fetch_data("toy", tmp_path)
    assert tree(tmp_path) == {"train.tar.part"}
    assert (tmp_path / "train.tar.part").read_bytes() == server.files["/train.tar"][:1_500_000]
    fetch_data("toy", tmp_path)
    assert server.requests[1] == ("/train.tar", "bytes=1500000-")
    assert (tmp_path / "Kit/toy/a.txt").read_bytes() == TEXT


def test_a_server_without_ranges_sends_all_again(toy, server, tmp_path):
    server.ranges = False
    (tmp_path / "train.tar.part").write_bytes(server.files["/train.tar"][:1000])
    fetch_data("toy", tmp_path)
    assert [path for path, _ in server.requests] == ["/train.tar", "/test.tar"]
    assert (tmp_path / "Kit/toy/a.txt").read_bytes() == TEXT


def test_a_complete_part_is_recognised(toy, server, tmp_path):
    (tmp_path / "train.tar.part").write_bytes(server.files["/train.tar"])
    fetch_data("toy", tmp_path)
    assert [path for path, _ in server.requests] == ["/train.tar", "/test.tar"]


@pytest.mark.parametrize("length", [1000, 10_000_000])
def test_a_part_of_another_file_is_dropped(toy, server, tmp_path, length):
    (tmp_path / "train.tar.part").write_bytes(b"?" * length)
    fetch_data("toy", tmp_path)
    assert server.requests[:2] == [("/train.tar", f"bytes={length}-"), ("/train.tar", None)]
    assert (tmp_path / "Kit/toy/a.txt").read_bytes() == TEXT


def test_an_archive_that_lies_there_is_used_and_another_of_its_name_is_not(toy, server, tmp_path):
    (tmp_path / "train.tar").write_bytes(server.files["/train.tar"])
    (tmp_path / "test.tar").write_bytes(b"<html>log in</html>")
    fetch_data("toy", tmp_path)
    assert [path for path, _ in server.requests] == ["/test.tar"]


def test_a_wrong_md5_is_an_error_and_the_file_goes(toy, server, tmp_path):
    server.files["/train.tar"] = b"<html>log in</html>"
    with pytest.raises(DataError, match=r"train\.tar: what came is not the published file") as error:
        fetch_data("toy", tmp_path)
    assert "\n" not in str(error.value)
    assert tree(tmp_path) == set()


def test_a_server_that_is_down_leaves_what_was_there(toy, server, tmp_path):
    server.stop()
    (tmp_path / "train.tar.part").write_bytes(b"half")
    with pytest.raises(DataError, match=r"train\.tar: cannot be downloaded \(.*refused.*\); try later"):
        fetch_data("toy", tmp_path)
    assert (tmp_path / "train.tar.part").read_bytes() == b"half"


def test_a_file_that_the_server_does_not_have(toy, server, tmp_path):
    del server.files["/test.tar"]
    with pytest.raises(DataError, match=r"test\.tar: cannot be downloaded \(HTTP Error 404"):
        fetch_data("toy", tmp_path)
    assert tree(tmp_path) == {"train.tar"}  # kept for the next call


HOSTILE = {
    "parent": {"kit/toy/a.txt": b"a", "../outside.txt": b"!"},
    "deep parent": {"kit/toy/../../../outside.txt": b"!"},
    "link": {"kit/toy/a.txt": b"a", "kit/link": link("kit/link", "../.."), "kit/link/outside.txt": b"!"},
    "absolute link": {"kit/link": link("kit/link", "/etc")},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_tar_that_reaches_outside_leaves_nothing(publish, tmp_path, kind, zipped):
    tar = tar_of(HOSTILE[kind])
    if zipped:
        publish({"toy.zip": zip_of({"toy.tar": tar})}, inner="toy.tar")
    else:
        publish({"toy.tar": tar})
    with pytest.raises(DataError, match=r"broken or unsafe archive \(.*(outside|absolute).*\), removed"):
        fetch_data("toy", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert list((tmp_path / "out").iterdir()) == []


def test_an_absolute_name_is_unpacked_inside(publish, tmp_path):
    publish({"toy.tar": tar_of({"kit/toy/a.txt": b"a", f"{tmp_path}/outside.txt": b"!"})})
    fetch_data("toy", tmp_path / "out")
    assert tree(tmp_path) == {"out/Kit/toy/a.txt"}


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "x/../../outside.txt", "..\\outside.txt"])
def test_a_zip_that_reaches_outside_leaves_nothing(publish, tmp_path, name):
    publish({"toy.zip": zip_of({"toy.tar": tar_of({"kit/toy/a.txt": b"a"}), name: b"!"})}, inner="toy.tar")
    with pytest.raises(DataError, match=r"broken or unsafe archive .*outside the destination"):
        fetch_data("toy", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "inner"),
    [
        (b"no tar", None),
        (b"no zip", "toy.tar"),
        (zip_of({"other.tar": b""}), "toy.tar"),
        (zip_of({"toy.tar": tar_of({"kit/toy/a.txt": TEXT}, "w:gz")[:900]}), "toy.tar"),
    ],
    # The last one's bytes hold the time, which names of tests must not.
    ids=["no tar", "no zip", "without the inner archive", "cut off inside"],
)
def test_a_broken_archive_is_an_error(publish, tmp_path, content, inner):
    publish({"toy.bin": content}, inner)
    with pytest.raises(DataError, match="broken or unsafe archive"):
        fetch_data("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_something_else_is_an_error(publish, tmp_path):
    publish({"toy.tar": tar_of({"kit/toy/b.txt": b"b"})})
    with pytest.raises(DataError, match=r"what was unpacked has no a\.txt"):
        fetch_data("toy", tmp_path)
    assert not (tmp_path / "Kit").exists()


def test_what_a_killed_call_left_is_replaced(toy, tmp_path):
    (tmp_path / ".toy.unpacking" / "kit" / "toy").mkdir(parents=True)
    (tmp_path / ".toy.unpacking" / "kit" / "toy" / "stray.txt").touch()
    folder = fetch_data("toy", tmp_path)
    assert not (folder / "stray.txt").exists()
    assert not (tmp_path / ".toy.unpacking").exists()


def test_a_cut_off_while_unpacking_leaves_no_half_set(toy, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_missing", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_data("toy", tmp_path)
    assert tree(tmp_path) == {"train.tar", "test.tar"}
    assert fetch_data("toy", tmp_path).is_dir()


def test_another_folder_in_its_place_is_not_touched(toy, server, tmp_path):
    (tmp_path / "Kit" / "toy").mkdir(parents=True)
    (tmp_path / "Kit" / "toy" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match=r"Kit/toy: is there but lacks b\.txt; move it away"):
        fetch_data("toy", tmp_path)
    assert tree(tmp_path) == {"Kit/toy/a.txt"}
    assert server.requests == []


def test_a_full_disk_is_told_before_the_download(publish, server, tmp_path, monkeypatch):
    publish({"toy.tar": tar_of({"kit/toy/a.txt": b"a"})}, space=3_000_000_000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2_999_999_000))
    with pytest.raises(DataError, match=r"3\.0 GB free, but toy takes 3\.0 GB; make room"):
        fetch_data("toy", tmp_path)
    assert server.requests == []
    (tmp_path / "toy.tar.part").write_bytes(b"?" * 1000)  # what is there needs no room
    assert fetch_data("toy", tmp_path).is_dir()


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")
def test_the_steps_for_imagenet_unpack_and_sort_it(tmp_path, monkeypatch):
    """The printed command, run on three tiny archives in ImageNet's shape."""
    imagenet = pytest.importorskip("torchvision.datasets.imagenet")
    scipy_io = pytest.importorskip("scipy.io")
    root = tmp_path / "my data"
    root.mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    jpeg = picture.getvalue()
    wnids = ("n01", "n02")
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    meta = io.BytesIO()
    rows = [(k + 1, wnid, f"word {wnid}", "gloss", 0) for k, wnid in enumerate(wnids)]
    scipy_io.savemat(meta, {"synsets": np.array(rows, dtype=fields)})
    archives = {
        "train": tar_of({f"{wnid}.tar": tar_of({f"{wnid}_1.JPEG": jpeg}) for wnid in wnids}),
        "val": tar_of({f"ILSVRC2012_val_0000000{k}.JPEG": jpeg for k in (1, 2, 3)}),
        "devkit": tar_of(
            {
                "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
                "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n2\n",
            },
            "w:gz",
        ),
    }
    known = {name: imagenet.ARCHIVE_META[name][0] for name in archives}
    for name, content in archives.items():
        (root / known[name]).write_bytes(content)
        monkeypatch.setitem(imagenet.ARCHIVE_META, name, (known[name], hashlib.md5(content).hexdigest()))
    steps = imagenet_steps(root)
    (unpack,) = (line for line in steps if " -c " in line)
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {unpack}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[:2] == [sys.executable, "-c"]
    monkeypatch.setattr(sys, "argv", ["-c", *words[3:]])
    (tmp_path / "unpack.py").write_text(words[2])
    runpy.run_path(str(tmp_path / "unpack.py"))
    remove = next(line for line in steps if line.strip().startswith("rm "))
    subprocess.run(["sh", "-c", remove], check=True)
    assert tree(root) == {
        "meta.bin",
        "train/n01/n01_1.JPEG",
        "train/n02/n02_1.JPEG",
        "val/n01/ILSVRC2012_val_00000002.JPEG",
        "val/n02/ILSVRC2012_val_00000001.JPEG",
        "val/n02/ILSVRC2012_val_00000003.JPEG",
    }


def encrypted(content):
    """A zip whose members say that they are encrypted."""
    return content.replace(b"PK\x03\x04\x14\0\0", b"PK\x03\x04\x14\0\1").replace(
        b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"
    )


def of_method(content, method):
    """A zip whose members are compressed by another method."""
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = content.index(mark) + at
        content = content[:start] + method.to_bytes(2, "little") + content[start + 2 :]
    return content


TOY = zip_of({"toy.tar": tar_of({"kit/toy/a.txt": TEXT})})


@pytest.mark.parametrize(
    "content", [encrypted(TOY), of_method(TOY, 97), of_method(TOY, 14), of_method(TOY, 12), of_method(TOY, 8)]
)
def test_a_zip_that_cannot_be_opened_is_an_error(publish, tmp_path, content):
    publish({"toy.zip": content}, "toy.tar")
    with pytest.raises(DataError, match="broken or unsafe archive"):
        fetch_data("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/" * 3000 + "x", "a/" * 21 + "x", "b" * 1001])
def test_an_archive_of_paths_that_no_disk_holds(publish, tmp_path, name):
    publish({"toy.tar": tar_of({"kit/toy/a.txt": TEXT, name: b"x"})})
    with pytest.raises(DataError, match="lies too deep"):
        fetch_data("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tar_of_broken_xz(publish, tmp_path):
    whole = tar_of({"kit/toy/a.txt": TEXT}, "w:xz")
    publish({"toy.tar": whole[:60] + b"\xff" * 30 + whole[90:]})
    with pytest.raises(DataError, match="broken or unsafe archive"):
        fetch_data("toy", tmp_path)
