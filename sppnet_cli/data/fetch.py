"""Downloads of the published data sets: resumed when cut off, checked by MD5, unpacked whole or not at all."""

import gzip
import hashlib
import lzma
import shlex
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sppnet_cli import __version__, console
from sppnet_cli.data.caltech101 import CATEGORIES_FOLDER
from sppnet_cli.errors import DataError

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_RANGE_NOT_SATISFIABLE = 416
_DEEPEST, _LONGEST = 20, 1000  # folders and characters of a member's path
# The last three: an encrypted zip, an unknown method of compression, and what lzma says of broken bytes.
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, KeyError,
    RuntimeError, NotImplementedError, lzma.LZMAError,
)  # fmt: skip


@dataclass(frozen=True)
class Archive:
    """A file to download: a tar, compressed or not, or a zip with the tar `inner` in it."""

    url: str
    md5: str
    inner: str | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """A data set: its archives, the folder `unpacked` that they hold, and what `folder` that becomes."""

    archives: tuple[Archive, ...]
    unpacked: str
    folder: str
    holds: tuple[str, ...]  # what is in the folder when nothing is missing
    space: int  # bytes of the archives and the unpacked files together, about


# URLs and MD5s are those of torchvision.datasets.
SOURCES = {
    "voc2007": Source(
        archives=(
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                md5="c52e279531787c972589f7e41ab4ae64",
            ),
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                md5="b6e924de25625d8de591ea690078ad9f",
            ),
        ),
        unpacked="VOCdevkit/VOC2007",
        folder="VOCdevkit/VOC2007",
        holds=("JPEGImages", "Annotations", "ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt"),
        space=1_900_000_000,
    ),
    "caltech101": Source(
        archives=(
            Archive(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                md5="3138e1922a9193bfa496528edbbc45d0",
                inner=f"caltech-101/{CATEGORIES_FOLDER}.tar.gz",
            ),
        ),
        unpacked=CATEGORIES_FOLDER,
        folder=f"caltech101/{CATEGORIES_FOLDER}",
        holds=("BACKGROUND_Google", "airplanes"),
        space=300_000_000,
    ),
}


def fetch_data(name: str, out: Path) -> Path:
    """Download and unpack a data set of `SOURCES` under `out`; returns its folder, at once when it is there.

    The folder appears complete or not at all.  A download that was cut off stays as `<file>.part` and goes on
    at the next call; an archive that already lies in `out` is used.  Archives are removed once unpacked.
    Raises `DataError` when the disk is too small, the server cannot be reached or cuts off, a file's MD5 is
    wrong, an archive is broken or reaches outside its folder, or something else is in the folder's place.
    """
    source = SOURCES[name]
    folder = out / source.folder
    if folder.exists():
        missing = _missing(source, folder)
        if missing:
            raise DataError(f"{folder}: is there but lacks {missing[0]}; move it away or name another --out")
        return folder
    out.mkdir(parents=True, exist_ok=True)
    _require_space(name, out)
    for archive in source.archives:
        _download(archive, out / archive.name)
    scratch = out / f".{name}.unpacking"
    _remove(scratch)  # of a call that was killed
    try:
        scratch.mkdir()
        for archive in source.archives:
            _unpack(archive, out / archive.name, scratch)
        missing = _missing(source, scratch / source.unpacked)
        if missing:
            raise DataError(f"{out}: what was unpacked has no {missing[0]}; get the set elsewhere")
        folder.parent.mkdir(parents=True, exist_ok=True)
        (scratch / source.unpacked).replace(folder)
    finally:
        _remove(scratch)
    for archive in source.archives:
        (out / archive.name).unlink()
    return folder


def imagenet_steps(root: Path) -> list[str]:
    """What a user does to have ImageNet (ILSVRC 2012), which needs an account, under `root`; a line each."""
    unpack = (
        "import sys; from torchvision.datasets import ImageNet; "
        '[ImageNet(sys.argv[1], split) for split in ("train", "val")]'
    )
    place = shlex.quote(str(root))
    return [
        "ImageNet (ILSVRC 2012) is given to registered users only, and takes 310 GB while it is unpacked.",
        "1. Register at https://image-net.org and accept the terms.",
        f"2. From https://image-net.org/challenges/LSVRC/2012/2012-downloads.php download into {root}:",
        "   ILSVRC2012_img_train.tar        148 GB  MD5 1d675b47d978889d74fa0da5fadfb00e",
        "   ILSVRC2012_img_val.tar          6.7 GB  MD5 29b22e2961454d5413ddabcf34fc5622",
        "   ILSVRC2012_devkit_t12.tar.gz    2.6 MB  MD5 fa75699e90414af021442c21a62c3abf",
        "3. Check and unpack them, and sort the validation images into class folders by the devkit's ground",
        "   truth (hours; when it was cut off, first remove the folder, train or val, that it was making):",
        f"   {shlex.quote(sys.executable)} -c {shlex.quote(unpack)} {place}",
        "4. See that all is there, then remove the archives:",
        f"   sppnet data check {place}",
        f"   rm {place}/ILSVRC2012_*.tar*",
    ]


def _missing(source: Source, folder: Path) -> list[str]:
    return [name for name in source.holds if not (folder / name).exists()]


def _require_space(name: str, out: Path) -> None:
    source = SOURCES[name]
    needed = source.space
    for archive in source.archives:
        for path in (out / archive.name, _part(out / archive.name)):
            needed -= path.stat().st_size if path.exists() else 0
    free = shutil.disk_usage(out).free
    if free < needed:
        raise DataError(
            f"{out}: {free / 1e9:.1f} GB free, but {name} takes {needed / 1e9:.1f} GB; "
            "make room or name another --out"
        )


def _download(archive: Archive, path: Path) -> None:
    if path.is_file() and _md5(path) == archive.md5:
        return
    part = _part(path)
    resumed = part.exists()
    _transfer(archive.url, part)
    if resumed and _md5(part) != archive.md5:
        console.status(f"{part}: what was there does not fit; from the start")
        part.unlink()
        _transfer(archive.url, part)
    if _md5(part) != archive.md5:
        part.unlink()
        raise DataError(
            f"{archive.url}: what came is not the published file (its MD5 is not {archive.md5}); "
            f"try later, or put the file into {path.parent}"
        )
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _transfer(url: str, part: Path) -> None:
    """Download to `part`, after what it holds where the server knows how to, else from the start."""
    held = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"sppnet/{__version__}"}
    if held:
        headers["Range"] = f"bytes={held}-"
    console.status(f"download {url}" + (f", from {held / 1e6:.1f} MB on" if held else ""))
    with ExitStack() as stack:
        try:
            response = stack.enter_context(urlopen(Request(url, headers=headers), timeout=_TIMEOUT))
        except HTTPError as error:
            error.close()
            if held and error.code == _RANGE_NOT_SATISFIABLE:
                return  # nothing lies beyond what is there; its MD5 tells whether that is all
            raise _broken_off(url, error) from None
        except (OSError, HTTPException) as error:
            raise _broken_off(url, error) from None
        file = stack.enter_context(part.open("ab" if response.status == 206 else "wb"))
        total = None if response.length is None else -(-response.length // _CHUNK)
        for chunk in console.track(_chunks(response, url), f"{part.stem}, MiB", total):
            file.write(chunk)
        if response.length:
            raise _broken_off(url, f"{response.length} bytes are missing")


def _chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _broken_off(url, error) from None
        if not chunk:
            return
        yield chunk


def _broken_off(url: str, why: object) -> DataError:
    reason = " ".join(str(why).split()) or type(why).__name__
    return DataError(f"{url}: cannot be downloaded ({reason}); try later: the same command goes on from here")


def _unpack(archive: Archive, path: Path, scratch: Path) -> None:
    """Unpack into `scratch` and nowhere else; an archive that cannot be is removed."""
    try:
        with ExitStack() as stack:
            if archive.inner is None:
                tar = stack.enter_context(tarfile.open(path))
            else:
                outer = stack.enter_context(zipfile.ZipFile(path))
                _refuse_outside(outer)
                inner = stack.enter_context(outer.open(archive.inner))
                tar = stack.enter_context(tarfile.open(fileobj=inner, mode="r|*"))
            files = console.track(_shallow(tar), f"unpack {path.name}, files")
            tar.extractall(scratch, members=files, filter="data")
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; that of broken bz2 has no number
        path.unlink()
        reason = " ".join(str(error).split())
        raise DataError(
            f"{archive.url}: broken or unsafe archive ({reason}), removed; try later or get the set elsewhere"
        ) from None


def _shallow(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, none of which lies so deep that its path could not be made, or removed."""
    for member in tar:
        if member.name.count("/") > _DEEPEST or len(member.name) > _LONGEST:
            raise tarfile.TarError(f"{member.name[:40]!r}... lies too deep")
        yield member


def _refuse_outside(archive: zipfile.ZipFile) -> None:
    for name in archive.namelist():
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts:
            raise zipfile.BadZipFile(f"{name!r} would be outside the destination")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
