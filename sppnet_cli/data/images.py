"""Image files to arrays and back: uint8 RGB (H, W, 3), upright, whatever the file holds."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sppnet_cli.atomic import atomic_path
from sppnet_cli.console import warn
from sppnet_cli.data.metadata import orientation_in, without_metadata
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.files import is_hidden, read_bytes, visible

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Of pictures that neither Pillow nor OpenCV reads as they are installed.
_UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)  # fmt: skip

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_WRITERS = {
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".png": ("PNG", {}),
}


def read_image(path: Path, *, upright: bool = True) -> np.ndarray:
    """The picture in a file as uint8 RGB (H, W, 3), its EXIF orientation applied unless `upright` is false.

    Grey, 1-bit, palette and CMYK pictures are converted, 16-bit samples scaled to 8 bits, alpha dropped; of
    an animation the first frame is taken.  Broken metadata do not matter: where Pillow refuses them the picture is
    read without, or by OpenCV.  Raises `DataError` naming the file when it is missing, empty, truncated, no image, no
    regular file, of more than about 179 million pixels, or has 32-bit samples, whose range is unknown.
    """
    content = read_bytes(path, "image")
    try:
        # Warned of and still decoded: broken metadata, and half of the size at which a bomb is an error.
        with warnings.catch_warnings(action="ignore"):
            return _decode(content, upright)
    except UnidentifiedImageError:
        what = "is not an image in a known format" if content else "is empty"
        raise DataError(f"{path}: {what}; replace or remove it") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {2 * _bomb_warning_pixels()} pixels; shrink the image") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); replace or convert it") from None


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the upright picture in a file, from its header; errors as of `read_image`."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(BytesIO(read_bytes(path, "image"))) as image,
        ):
            turned = orientation_of(image) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # whatever it is, decoding tells
        height, width = read_image(path).shape[:2]
        return height, width


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 (upright) to 8; from 5 on its sides change places."""
    value = None
    with suppress(Exception):  # Pillow raises anything on broken EXIF
        value = image.getexif().get(_ORIENTATION)
    return (
        value if isinstance(value, int) and 1 <= value <= 8 else orientation_in(image.info.get("exif", b""))
    )


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write a uint8 RGB (H, W, 3) array as .jpg/.jpeg (quality 95) or .png, atomically.

    Raises `UsageError` for another suffix and `SppnetError` when the file cannot be written.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(
            f"{path}: pictures are written as {', '.join(_WRITERS)}; choose one of these suffixes"
        )
    image_format, options = _WRITERS[path.suffix.lower()]
    with atomic_path(path) as temporary:
        Image.fromarray(rgb).save(temporary, format=image_format, **options)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files that `paths` names: files as they are, folders by the images right inside them.

    The result is sorted and without repetition.  A file named itself is taken whatever its suffix; in a
    folder those of `IMAGE_SUFFIXES`, hidden ones left out, with a warning that names folders in it and pictures of
    other formats.  Raises `DataError` for a path that does not exist and for a folder without images.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise DataError(f"{path}: no such file or folder; name image files or folders of images")
        if path.is_dir():
            inside = image_files(path)
            ignored = _ignored(path)
            if not inside:
                raise DataError(
                    f"{path}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) right in this folder"
                    + "".join(f"; {each}" for each in ignored)
                )
            for each in ignored:
                warn(f"{path}: {each}")
            found.update(inside)
        else:
            found.add(path)
    return sorted(found)


def _ignored(folder: Path) -> list[str]:
    """What of a folder is not taken though it may be meant: pictures of other formats, and folders."""
    entries = visible(folder)
    others = [entry for entry in entries if entry.suffix.lower() in _UNREAD_SUFFIXES]
    folders = [entry for entry in entries if entry.is_dir()]
    lines = []
    if others:
        lines.append(
            f"{_some(others)} not read: convert to JPEG what is in {'this' if len(others) == 1 else 'these'}"
        )
    if folders:
        lines.append(f"{_some(folders)} not looked into: name {'it' if len(folders) == 1 else 'them'} too")
    return lines


def _some(entries: Sequence[Path]) -> str:
    """Names of at most three entries, and how many more."""
    names = ", ".join(entry.name for entry in entries[:3])
    more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return f"{names}{more} {'is' if len(entries) == 1 else 'are'}"


def image_files(folder: Path) -> list[Path]:
    """The files of `IMAGE_SUFFIXES`, in either case, right in a folder, sorted; hidden ones left out.

    Links to nothing and named pipes are among them: `read_image` says what is wrong with each.
    """
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(entry.name) and not entry.is_dir()
    )


def require_apart(out: Path, images: Sequence[Path]) -> None:
    """Raise `UsageError` where the folder `out`, to which pictures of `images` are to go, holds one of these."""
    folder = out.resolve()
    for path in images:
        if folder in (path.resolve().parent, path.parent.resolve()):
            raise UsageError(
                f"{out}: holds {path.name}, one of the images, and pictures go elsewhere; give another --out"
            )


def _decode(content: bytes, upright: bool) -> np.ndarray:
    try:
        return _decode_with_pillow(content, upright, None)
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything, for broken metadata too
        failure = error
    bare, exif = without_metadata(content)
    if len(bare) < len(content):
        try:
            return _decode_with_pillow(bare, upright, orientation_in(exif))
        except Exception as error:  # noqa: BLE001
            failure = error
    if (found := _decode_with_opencv(content, upright)) is not None:
        return found
    raise failure


def _decode_with_pillow(content: bytes, upright: bool, orientation: int | None) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        image.load()  # of a TIFF this applies the orientation
        orientation = orientation_of(image) if orientation is None else orientation
        turn = _TURNS.get(orientation) if upright else None
        return _to_rgb(image if turn is None else image.transpose(turn))


def _decode_with_opencv(content: bytes, upright: bool) -> np.ndarray | None:
    """What OpenCV makes of a file whose header Pillow refuses; it also decodes half a picture, which is not wanted."""
    import cv2

    if not content.startswith(_SIGNATURES):
        return None
    with suppress(Exception):
        Image.open(BytesIO(content)).close()
        return None
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    return None if found is None else np.ascontiguousarray(found[:, :, ::-1])


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError("32-bit samples have no fixed range")
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB warns when the palette has transparency
    return np.array(image.convert("RGB"))


def _bomb_warning_pixels() -> int:
    assert Image.MAX_IMAGE_PIXELS is not None
    return Image.MAX_IMAGE_PIXELS
