"""The files of an export, and the look-up of those that its texts name.

A path in a JSON, YAML, XML or list is only ever looked up among the files that lie in the export's folder: no text
makes a file be read or written elsewhere.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from sppnet_cli.data.images import IMAGE_SUFFIXES, image_files
from sppnet_cli.data.imports.labelled import Role
from sppnet_cli.data.imports.naming import readable
from sppnet_cli.data.imports.tally import Tally
from sppnet_cli.errors import DataError
from sppnet_cli.files import is_hidden

_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"})
_DEPTH = 50  # folders in folders
# Folders that say what kind of file they hold, and nothing about which images: train/images/a.jpg belongs to
# train/labels/a.txt.
_KINDS = frozenset(
    {"image", "images", "img", "imgs", "jpegimages", "label", "labels", "annotation", "annotations", "annots"}
    | {"anns", "xml", "xmls", "txt"}
)
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "trainval": "trainval",
}
_ROLE_FOLDER = re.compile(rf"({'|'.join(_ROLES)})[-_ ]?(\d*|set|images|data)", re.IGNORECASE)


@dataclass(frozen=True)
class Export:
    """The files below `root`, as sorted paths relative to it; hidden ones and links to folders left out.

    named: the file that the user gave in place of a folder.
    """

    root: Path
    named: str | None
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.root if self.named is None else self.root / self.named)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files of these suffixes, in either case."""
        return [path for path in self.paths if suffix_of(path) in suffixes]

    @cached_property
    def images(self) -> "Lookup":
        """The image files."""
        return Lookup(path for path in self.paths if suffix_of(path) in IMAGE_SUFFIXES)

    def text(self, path: str) -> str:
        """The text of a file (`decode`).  Raises `DataError` when it cannot be read."""
        try:
            return decode((self.root / path).read_bytes())
        except OSError as error:
            raise DataError(f"{self.root / path}: cannot be read ({error.strerror}); allow it") from None


def list_export(path: Path, tally: Tally) -> Export:
    """The files of a folder, or of the folder around an annotation file.

    Links to files are followed, links to folders are not: they are counted in `tally` as left out, and so are folders
    that cannot be read.  Raises `DataError` when there is no such folder, and for an archive.
    """
    if path.is_file():
        if path.suffix.lower() in _ARCHIVES:
            raise DataError(f"{path}: is an archive; unpack it and give its folder")
        path = path.absolute()
        root = path.parent
        if holds_one_kind(root) and not image_files(root):  # annotations/, beside the images
            root = root.parent
        return Export(root, path.relative_to(root).as_posix(), tuple(sorted(_walk(root, "", tally))))
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; name the folder of an export, or its annotation file")
    return Export(path, None, tuple(sorted(_walk(path, "", tally))))


def holds_one_kind(folder: Path) -> bool:
    """Whether a folder is, by its name, the images or the labels of the one around it."""
    return folder.name.casefold() in _KINDS


def _walk(root: Path, inside: str, tally: Tally) -> Iterator[str]:
    try:
        with os.scandir(root / inside) as scan:
            entries = list(scan)
    except OSError as error:
        if not inside:
            raise DataError(f"{root}: cannot be read ({error.strerror}); allow it") from None
        tally.leave_out("folders_unreadable", inside)
        return
    for entry in entries:
        if is_hidden(entry.name):
            continue
        place = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_dir(follow_symlinks=False):
            if place.count("/") < _DEPTH:
                yield from _walk(root, place, tally)
            else:
                tally.leave_out("folders_too_deep", place)
        elif entry.is_dir():
            tally.leave_out("folders_linked", place)
        elif entry.is_file():  # neither a pipe nor a dangling link
            yield place


def suffix_of(path: str) -> str:
    """The suffix in lower case, with its dot."""
    return PurePosixPath(path).suffix.lower()


def decode(content: bytes) -> str:
    """Text in UTF-8, or UTF-16 with its byte-order mark; what is neither is taken for Windows' Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def role_of_name(name: str) -> Role | None:
    """Which part of a split a list or JSON is: instances_train2017 is train, my_validation_list is val."""
    found = {_ROLES[word] for word in re.findall("[a-z]+", name.casefold()) if word in _ROLES}
    if found == {"train", "val"}:
        return "trainval"
    return found.pop() if len(found) == 1 else None


def role_of_folder(path: str) -> Role | None:
    """Which part of a split the folders of a file say: train/images/a.jpg is train; the deepest word decides."""
    for part in reversed(path.split("/")[:-1]):
        if match := _ROLE_FOLDER.fullmatch(part):
            return _ROLES[match[1].casefold()]
    return None


class Lookup:
    """Files that are found by what annotations call them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        self._by_key: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            key = _key(path)
            self._by_key[key].append(path)
            self._by_stem[key[-1]].append(path)
        self._roles = {role_of_folder(path) for path in self.paths}

    def find(self, text: str, near: str) -> list[str]:
        """The files that `text` may name, best alone: several where nothing tells them apart, none where none fits.

        Args:
            text: a path as the labelling tool wrote it (of another machine, with backslashes, without a suffix),
                or that of the annotation file itself, where both have the same stem.  Its folders are compared
                from the right; case and how accents are encoded do not matter.
            near: path of the annotation file: of files that fit equally well, the nearest is taken.
        """
        key = _key(text)
        found = self._by_key.get(key, ())
        if len(found) == 1:
            return list(found)
        wanted = role_of_folder(text) or role_of_folder(near) or role_of_name(PurePosixPath(near).stem)
        ranked: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for path in found or self._by_stem.get(key[-1], ()):
            role = role_of_folder(path)
            if wanted and role and role != wanted and (wanted in self._roles or role_of_folder(text)):
                continue  # val/1.jpg is not the missing train/1.jpg
            own, folders = _key(path), _key(near)[:-1]
            ranked[
                _common(reversed(own), reversed(key)),
                _name(path) == _name(text),
                _common(own[:-1], folders),
                role == wanted,
                path.split("/")[:-1] == near.split("/")[:-1],
            ].append(path)
        return ranked[max(ranked)] if ranked else []


def _name(text: str) -> str:
    return text.replace("\\", "/").rsplit("/", 1)[-1]


def _key(text: str) -> tuple[str, ...]:
    """Folders and stem, as they are compared; annotation and image files of one object have the same."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return ("",)
    *folders, name = (readable(part).casefold() for part in parts)
    for suffixes in ((".xml", ".txt"), IMAGE_SUFFIXES):  # of 1.jpg.xml both
        if suffix_of(name) in suffixes:
            name = name.removesuffix(suffix_of(name))
    return (*(folder for folder in folders if folder not in _KINDS), name)


def _common(left: Iterable[str], right: Iterable[str]) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def listed_roles(export: Export, paths: Iterable[str]) -> dict[str, set[Role]]:
    """For each image the roles of the lists that name it: text files such as train.txt, an image a line.

    Lists of one class (a label after each image) and files that name no image of the export are not lists.  Where a
    devkit's ImageSets/Main is among them, its lists alone count.
    """
    roles: dict[str, set[Role]] = defaultdict(set)
    every = list(paths)
    for path in [path for path in every if "ImageSets/Main/" in path] or every:
        role = role_of_name(PurePosixPath(path).stem)
        if role is None or suffix_of(path) != ".txt":
            continue
        lines = [line.strip().strip('"') for line in export.text(path).splitlines()]
        lines = [line for line in lines if line]
        if not lines or not export.images.find(lines[0], path):
            continue
        for line in lines:
            for image in export.images.find(line, path):
                roles[image].add(role)
    return roles
