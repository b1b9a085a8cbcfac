"""Image files to arrays and back: uint8 RGB (H, W, 3), upright, whatever the file holds."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sppnet_cli.atomic import atomic_path
from sppnet_cli.errors import DataError, UsageError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_WRITERS = {
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".png": ("PNG", {}),
}


def read_image(path: Path) -> np.ndarray:
    """The picture in a file as uint8 RGB (H, W, 3), its EXIF orientation applied.

    Grey, 1-bit, palette and CMYK pictures are converted, 16-bit samples scaled to 8 bits, alpha dropped; of
    an animation the first frame is taken.  Raises `DataError` naming the file when it is missing, empty,
    truncated, no image, of more than about 179 million pixels, or has 32-bit samples, whose range is unknown.
    """
    try:
        # Warned of and still decoded: broken metadata, and half of the size at which a bomb is an error.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image file; check the path") from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be opened as an image ({error.strerror})") from None
    except UnidentifiedImageError:
        what = "is empty" if path.stat().st_size == 0 else "is not an image in a known format"
        raise DataError(f"{path}: {what}; replace or remove it") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: more than {2 * _bomb_warning_pixels()} pixels; shrink the image") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on broken bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); replace or convert it") from None


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
    folder those of `IMAGE_SUFFIXES`, hidden ones left out.  Raises `DataError` for a path that does not
    exist and for a folder without images.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; name image files or folders of images")
        if path.is_dir():
            inside = image_files(path)
            if not inside:
                raise DataError(
                    f"{path}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) right in this folder"
                )
            found.update(inside)
        else:
            found.add(path)
    return sorted(found)


def image_files(folder: Path) -> list[Path]:
    """The files of `IMAGE_SUFFIXES`, in either case, right in a folder, sorted; hidden ones left out."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )


def require_apart(out: Path, images: Sequence[Path]) -> None:
    """Raise `UsageError` where the folder `out`, to which pictures of `images` are to go, holds one of these."""
    folder = out.resolve()
    for path in images:
        if folder in (path.resolve().parent, path.parent.resolve()):
            raise UsageError(
                f"{out}: holds {path.name}, one of the images, and pictures go elsewhere; give another --out"
            )


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
