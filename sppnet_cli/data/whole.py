"""Whether image files are whole."""

import os
from contextlib import suppress
from pathlib import Path

from PIL import Image

from sppnet_cli.data.images import orientation_of, read_image
from sppnet_cli.errors import DataError


def faults(path: Path, full: bool) -> list[str]:
    """Why an image cannot be used: a line, or none.  With `full` it is decoded in any case."""
    try:
        if full or not looks_whole(path):
            read_image(path)
    except DataError as error:
        return [str(error)]
    return []


def looks_whole(path: Path, size: tuple[int, int] | None = None) -> bool:
    """Whether an image's header is sound, gives that (height, width), and a JPEG ends as JPEGs do.

    One that does not may still be sound: decode it to know.
    """
    if not path.is_file():  # a named pipe would wait for ever
        return False
    with suppress(Exception), path.open("rb") as file, Image.open(file) as image:
        file.seek(-2, os.SEEK_END)
        ends = image.format != "JPEG" or file.read() == b"\xff\xd9"
        sized = size is None or (size == (image.height, image.width) and orientation_of(image) < 5)
        return ends and sized
    return False
