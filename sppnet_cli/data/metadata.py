"""Metadata of image files, which must never cost the picture: taken out, and searched for the orientation."""

import struct

_ORIENTATION = 0x0112
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # chunks of a PNG that its pixels need
_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
_APPLICATION = range(0xE1, 0xF0)  # without JFIF's APP0
_ADOBE = 0xEE  # says how colours are coded


def without_metadata(content: bytes) -> tuple[bytes, bytes]:
    """A JPEG or PNG file without what its pixels do not need, and its EXIF block (empty where it has none).

    Another file, and a broken part, come back as they are.
    """
    if content.startswith(b"\xff\xd8"):
        return _bare_jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _bare_png(content)
    return content, b""


def orientation_in(exif: bytes) -> int:
    """The orientation that an EXIF block names, 1 to 8; 1 where it names none.

    Only the first directory is read, entry by entry, so that no other broken tag hides it.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # beyond the end
        pass
    return 1


def _bare_jpeg(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = [content[:2]], b"", 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _START_OF_SCAN:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        segment = content[at : at + 2 + length]
        if length < 2 or len(segment) < 2 + length:
            break
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0" and not exif:
            exif = segment[4:]
        if marker != _COMMENT and (marker not in _APPLICATION or marker == _ADOBE):
            kept.append(segment)
        at += len(segment)
    return b"".join([*kept, content[at:]]), exif


def _bare_png(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, at = [content[:8]], b"", 8
    while at + 12 <= len(content):
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if length > len(content) - at - 12:
            break
        if kind == b"eXIf":
            exif = content[at + 8 : at + 8 + length]
        if kind in _PIXELS:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join([*kept, content[at:]]), exif
