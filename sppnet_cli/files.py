"""Files that users bring: which of a folder's entries count, how their text is decoded, which names are safe."""

import codecs
import os
import re
import stat
import unicodedata
from pathlib import Path

from sppnet_cli.errors import DataError

_LONGEST = 240  # bytes of a part of an id: a suffix must fit into the 255 of a file's name
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini"}
)  # fmt: skip
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system (`.DS_Store`, `._cat.jpg`, `__MACOSX`), not to data."""
    return name.startswith(".") or name in _OF_SYSTEMS


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """The entries of a folder that match a glob pattern, sorted; hidden ones are left out."""
    return sorted(entry for entry in folder.glob(pattern) if not is_hidden(entry.name))


def links_to_nothing(folder: Path) -> list[Path]:
    """The visible entries of a folder that link to what is not there, sorted."""
    return [entry for entry in visible(folder) if entry.is_symlink() and not entry.exists()]


def read_bytes(path: Path, what: str, remedy: str = "check the path") -> bytes:
    """All bytes of a regular file, or of one that `path` links to: a named pipe would wait for ever.

    `what` says in errors what the file should be ("image", "annotation"), `remedy` what to do where it is missing.
    Raises `DataError` naming the file and why it cannot be read: it is not there, a link to nothing, no regular file,
    or not permitted.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise DataError(
                f"{path}: is {_KINDS.get(kind, 'no regular file')}, not a regular {what} file; replace or remove it"
            )
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(f"{path}: links to {path.readlink()}, which is not there; restore it") from None
        raise DataError(f"{path}: no such {what} file; {remedy}") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions and the disk"
        ) from None


def decode(content: bytes, encoding: str = "utf-8") -> str:
    """Text of bytes: in the encoding that their byte-order mark names, else in `encoding`.

    The mark is dropped.  Raises `UnicodeError` for other bytes, `LookupError` for an unknown encoding.
    """
    for mark, marked in _MARKS:
        if content.startswith(mark):
            return content.decode(marked)
    return content.decode(encoding)


def path_text(name: str) -> str:
    """The name of a file, or a path, as text that can be written: its bytes that are none as `\\udce9`."""
    return name.encode("utf-8", "backslashreplace").decode()


def stem_for(path: Path) -> str:
    """A stem for a file that is made of another: its stem, bytes that are no text as `_`, cut to leave room for a suffix."""
    text = re.sub("[\ud800-\udfff]", "_", path.stem)
    return text.encode()[:_LONGEST].decode(errors="ignore")


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, or of one whose byte-order mark names another Unicode encoding.

    Raises `DataError` as `read_bytes`, and for bytes that are no such text.
    """
    try:
        return decode(read_bytes(path, what))
    except UnicodeError as error:
        raise DataError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None


def safe_id(text: str, source: Path) -> str:
    """`text` where it can name files below a folder, whatever it is joined to: `000004` or `2008/000004`.

    Ids come from lists, result files, CSVs, `.mat` files and manifests, and become paths that are read and written.
    Raises `DataError` naming `source` for an id that is empty, absolute, leads out of the folder (`..`), is longer
    than a file's name can be, or holds a control character.
    """
    parts = text.replace("\\", "/").split("/")
    if (
        any(part.strip() in ("", ".", "..") or len(os.fsencode(part)) > _LONGEST for part in parts)
        or parts[0][1:2] == ":"
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
    ):
        shown = ascii(text if len(text) <= 60 else f"{text[:60]}...")
        raise DataError(
            f"{source}: {shown} is no id of an image: it cannot name a file in a folder; correct it"
        )
    return text
