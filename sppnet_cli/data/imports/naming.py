"""Names that files and lists can carry: of classes, and of images."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

_LONGEST = 120  # bytes, so that a file name can hold it


def class_names(names: Iterable[str]) -> dict[str, str]:
    """For each name the one that it gets: the same if lists and file names can hold it.

    Runs of white space become one space; slashes and what cannot be printed become `_`.  Names that only then are the
    same stay apart: one that had to change is numbered.
    """
    plain_of = {name: unicodedata.normalize("NFC", " ".join(name.split())) for name in names}
    fit: dict[str, str] = {}  # by the plain name
    for plain in sorted(plain_of.values(), key=lambda plain: _fit(plain, spaces=True) != plain):
        if plain not in fit:
            fit[plain] = _numbered(_fit(plain, spaces=True), lambda candidate: candidate in fit.values())
    return {name: fit[plain] for name, plain in plain_of.items()}


def image_ids(paths: Sequence[str]) -> dict[str, str]:
    """An id for each image: its file's stem, with its folders before it where two files have the same stem.

    Ids differ also where case is not told apart; white space, which would end an id in a list, becomes `_`.
    """
    same_stem: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        same_stem[_fit(PurePosixPath(path).stem).casefold()].append(path)
    ids = {}
    taken: set[str] = set()
    for same in same_stem.values():
        joined = {path: _joined(str(PurePosixPath(path).with_suffix(""))) for path in same}
        times = Counter(text.casefold() for text in joined.values())
        for path in same:
            text = _fit(PurePosixPath(path).stem)
            if len(same) > 1:
                text = joined[path] if times[joined[path].casefold()] == 1 else _joined(path)
            ids[path] = _numbered(text, lambda candidate: candidate.casefold() in taken)
            taken.add(ids[path].casefold())
    return ids


def readable(text: str) -> str:
    """Text of a file name in one Unicode form; bytes that are no UTF-8, which Python keeps as surrogates, as Latin-1."""
    text = re.sub("[\udc80-\udcff]", lambda match: chr(ord(match[0]) - 0xDC00), text)
    return unicodedata.normalize("NFC", text)


def _joined(path: str) -> str:
    """A path as one word, its end where it is long."""
    return _fit(path.replace("/", "_").replace(".", "_")[-_LONGEST:])


def _fit(text: str, spaces: bool = False) -> str:
    text = re.sub(r"[/\\]" if spaces else r"[/\\ ]", "_", readable(text))
    text = "".join(sign if sign.isprintable() else "_" for sign in text)
    text = f"_{text}" if text.startswith(".") or not text else text
    return text.encode()[:_LONGEST].decode(errors="ignore")


def _numbered(name: str, is_taken: Callable[[str], bool]) -> str:
    candidate, number = name, 1
    while is_taken(candidate):
        number += 1
        candidate = f"{name}_{number}"
    return candidate
