import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sppnet_cli.data.images import find_images, image_size, read_image, require_apart, write_image
from sppnet_cli.data.proposals import image_seed
from sppnet_cli.errors import DataError, SppnetError, UsageError

ORIENTATION = 0x0112


@pytest.fixture
def picture():
    """Four flat quarters, red, green, blue and grey, in 32x48 pixels: every flip and turn shows."""
    rgb = np.empty((32, 48, 3), dtype=np.uint8)
    rgb[:16, :24], rgb[:16, 24:], rgb[16:, :24], rgb[16:, 24:] = (
        (200, 30, 30),
        (30, 180, 30),
        (30, 30, 220),
        (128, 128, 128),
    )
    return rgb


def assert_close(actual, expected, tolerance):
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected.astype(int)).mean() <= tolerance


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.transpose(1, 0, 2)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: np.rot90(upright, 2).transpose(1, 0, 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_orientation_is_undone(tmp_path, picture, orientation, stored, suffix):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored(picture))).save(path, exif=exif, quality=95, subsampling=0)
    assert_close(read_image(path), picture, 2 if suffix == ".jpg" else 0)


def test_exif_orientation_of_a_16_bit_file(tmp_path):
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.fromarray(grey[::-1, ::-1].copy()).save(tmp_path / "g.png", exif=exif)
    assert read_image(tmp_path / "g.png")[:, :, 1].tolist() == (grey >> 8).tolist()


def test_broken_exif_does_not_hide_the_picture(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0garbage")
    assert_close(read_image(tmp_path / "x.jpg"), picture, 4)


def test_jpeg_decodes_to_the_pixels_of_opencv(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, size=(60, 83, 3), dtype=np.uint8)
    Image.fromarray(cv2.GaussianBlur(rgb, (5, 5), 0)).save(tmp_path / "x.jpg", quality=75)
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.jpg"), cv2.imread(str(tmp_path / "x.jpg"), cv2.IMREAD_COLOR)[:, :, ::-1]
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_grey_has_three_equal_channels(tmp_path, suffix):
    Image.fromarray(np.full((4, 5), 77, dtype=np.uint8)).save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), np.full((4, 5, 3), 77))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_not_a_negative(tmp_path, picture, suffix):
    """Pillow writes CMYK JPEGs as Adobe does: inverted, with the APP14 marker."""
    path = tmp_path / f"x{suffix}"
    Image.fromarray(picture).convert("CMYK").save(path, quality=95)
    if suffix == ".jpg":
        assert b"Adobe" in path.read_bytes()
    assert_close(read_image(path), picture, 4)


def test_palette(tmp_path, picture):
    Image.fromarray(picture).quantize(4).save(tmp_path / "x.png")
    assert mode_of(tmp_path / "x.png") == "P"
    assert_close(read_image(tmp_path / "x.png"), picture, 2)


def test_palette_with_transparency_keeps_the_colours(tmp_path, picture):
    Image.fromarray(picture).quantize(4).save(tmp_path / "x.png", transparency=b"\x00\x80\xff\xff")
    assert_close(read_image(tmp_path / "x.png"), picture, 2)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_dropped(tmp_path, picture, suffix):
    alpha = np.full((32, 48, 1), 90, dtype=np.uint8)
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / f"x{suffix}", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), picture)


def test_grey_with_alpha(tmp_path):
    Image.new("LA", (5, 4), (77, 10)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.full((4, 5, 3), 77))


def test_one_bit(tmp_path):
    bits = np.array([[True, False, True], [False, False, True]])
    Image.fromarray(bits).save(tmp_path / "x.png")
    assert mode_of(tmp_path / "x.png") == "1"
    assert read_image(tmp_path / "x.png")[:, :, 0].tolist() == [[255, 0, 255], [0, 0, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    path = str(tmp_path / f"x{suffix}")
    cv2.imwrite(path, grey)
    assert read_image(Path(path))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    cv2.imwrite(path, np.stack([grey, grey // 2, np.zeros_like(grey)], axis=2))  # BGR
    assert read_image(Path(path))[0].tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, 1],
        [0, 64, 128],
        [0, 127, 255],
    ]


def test_the_result_is_one_writable_array(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png")
    rgb = read_image(tmp_path / "x.png")
    assert rgb.flags.writeable
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_truncated_files_are_errors(tmp_path, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match=rf"cut\{suffix}: .*(replace|remove)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"zero\.jpg: is empty"):
        read_image(tmp_path / "zero.jpg")
    with pytest.raises(DataError, match=r"text\.jpg: is not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"none\.jpg: no such image file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match=r"is a folder, not a regular image file"):
        read_image(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    with pytest.raises(DataError, match=r"x\.png: cannot be read \(Permission denied\)"):
        read_image(tmp_path / "x.png")


def test_32_bit_samples_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="32-bit samples"):
        read_image(tmp_path / "x.tif")


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    with pytest.raises(DataError, match=r"bomb\.png: more than 178956970 pixels; shrink"):
        read_image(tmp_path / "bomb.png")


def test_a_large_photograph_is_not_a_bomb(tmp_path, monkeypatch, picture):
    """Between Pillow's limit and twice that it warns; a warning would fail this test."""
    Image.fromarray(picture).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_written_pictures_read_back(tmp_path, picture, suffix):
    write_image(tmp_path / f"x{suffix}", picture)
    assert_close(read_image(tmp_path / f"x{suffix}"), picture, 0 if suffix == ".png" else 4)
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_pictures_that_cannot_be_written(tmp_path, picture):
    with pytest.raises(UsageError, match=r"x\.gif: pictures are written as \.jpg, \.jpeg, \.png"):
        write_image(tmp_path / "x.gif", picture)
    with pytest.raises(SppnetError, match=r"x\.png: cannot be written"):
        write_image(tmp_path / "none" / "x.png", picture)


def test_find_images_in_files_and_folders(tmp_path):
    folder = tmp_path / "b"
    (folder / "deeper").mkdir(parents=True)
    for name in ("2.JPG", "1.png", "notes.txt", ".hidden.jpg", "deeper/3.jpg"):
        (folder / name).touch()
    odd = tmp_path / "a.photo"
    odd.touch()
    assert find_images([folder, odd, folder / "1.png"]) == [odd, folder / "1.png", folder / "2.JPG"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.heic"], "a.heic is not read: convert to JPEG what is in this"),
        (["b.HEIF", "a.heic"], "a.heic, b.HEIF are not read: convert to JPEG what is in these"),
        ([f"{k}.cr2" for k in range(5)], "0.cr2, 1.cr2, 2.cr2 and 2 more are not read"),
        (["holiday/1.jpg"], "holiday is not looked into: name it too"),
        (["b/1.jpg", "a/1.jpg"], "a, b are not looked into: name them too"),
        ([".heic", "._a.heic", ".thumbnails/1.jpg", "@eaDir/1.jpg", "notes.txt", "1.JPG.part"], None),
    ],
)
def test_what_is_ignored_in_a_folder_is_named(tmp_path, capsys, names, said):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="no images") as caught:
        find_images([tmp_path])
    assert said is None or said in str(caught.value)
    (tmp_path / "1.jpg").touch()
    assert find_images([tmp_path]) == [tmp_path / "1.jpg"]
    err = capsys.readouterr().err
    assert (err == "") == (said is None)
    assert said is None or f"warning: {tmp_path}: {said}" in err


def test_find_images_says_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no images"):
        find_images([tmp_path])
    with pytest.raises(DataError, match=r"none\.jpg: no such file or folder"):
        find_images([tmp_path / "none.jpg"])


def test_a_folder_that_holds_one_of_the_images(tmp_path, monkeypatch):
    photos, linked = tmp_path / "photos", tmp_path / "linked"
    photos.mkdir()
    linked.mkdir()
    (photos / "1.jpg").touch()
    (linked / "1.jpg").symlink_to(photos / "1.jpg")
    (tmp_path / "alias").symlink_to(photos)
    monkeypatch.chdir(photos)
    for out, image in [
        (photos, photos / "1.jpg"),
        (Path(), Path("1.jpg")),
        (tmp_path / "alias", photos / "1.jpg"),
        (photos, linked / "1.jpg"),
        (linked, linked / "1.jpg"),
    ]:
        with pytest.raises(UsageError, match=r"holds 1\.jpg.* give another --out"):
            require_apart(out, [tmp_path / "0.jpg", image])
    require_apart(photos / "pictures", [photos / "1.jpg"])
    require_apart(tmp_path / "new", [photos / "1.jpg"])


def with_exif(path, picture, spoil=lambda exif: exif, orientation=6):
    """A JPEG stored a quarter turn from `picture`, its EXIF block passed through `spoil`."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[ORIENTATION] = "maker", "model", orientation
    exif.get_ifd(0x8769)[0x9286] = b"a comment of the user"
    block = exif.tobytes()
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture, 1)))
    turned.save(path, exif=spoil(block), quality=95, subsampling=0)
    return path


def test_a_tag_that_cannot_be_written_back_costs_nothing(tmp_path, picture):
    """A rational in a tag of integers: Pillow reads it, and raises `bad operand type for abs()` as it writes it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    block = bytearray(exif.tobytes())
    # A second entry of the first directory: tag 0x0100 of type rational.
    start = block.index(b"MM\0*")
    block[start + 8 : start + 10] = b"\0\x02"
    entry = b"\x01\x00\x00\x0a" + b"\0\0\0\1" + (38).to_bytes(4, "big")
    block[start + 22 :] = entry + b"\0\0\0\0" + b"\xff\xff\xff\xfe\0\0\0\1"
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture, 1)))
    turned.save(tmp_path / "x.jpg", exif=bytes(block), quality=95, subsampling=0)
    assert_close(read_image(tmp_path / "x.jpg"), picture, 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda exif: exif[:60],  # cut off behind the orientation
        lambda exif: exif.replace(b"model", b"\xff" * 5),
        lambda exif: exif[:-30] + b"\xff" * 30,
        lambda exif: exif.replace(b"\x87\x69\0\4", b"\x87\x69\0\xff"),  # a directory of an unknown type
        lambda exif: exif.replace(b"\x01\x0f\0\2\0\0\0", b"\x01\x0f\0\2\xff\xff\xff"),  # a tag of 4 GB
    ],
)
def test_broken_tags_beside_the_orientation(tmp_path, picture, spoil):
    assert_close(read_image(with_exif(tmp_path / "x.jpg", picture, spoil)), picture, 2)


@pytest.mark.parametrize("spare", [True, False])
def test_no_mutation_of_the_exif_block_costs_the_picture(tmp_path, picture, spare):
    """The pixels come whatever the bytes, and upright where those that name the orientation are whole."""
    whole = with_exif(tmp_path / "x.jpg", picture).read_bytes()
    start = whole.index(b"Exif\0\0") + 6
    length = int.from_bytes(whole[start - 8 : start - 6], "big") - 8
    entry = whole.index(b"\x01\x12", start)
    spared = {*range(start, start + 10), *range(entry, entry + 12)} if spare else {}
    places = [at for at in range(start, start + length) if at not in spared]
    rng = np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(whole)
        for at in rng.choice(places, 4):
            spoilt[at] = rng.integers(256)
        (tmp_path / "x.jpg").write_bytes(spoilt)
        found = read_image(tmp_path / "x.jpg")
        assert sorted(found.shape) == [3, 32, 48]
        if spare:
            assert_close(found, picture, 2)


@pytest.mark.parametrize("behind", [False, True])
def test_text_of_megabytes_in_a_png(tmp_path, picture, behind):
    info = PngInfo()
    info.add_text("notes", "x" * 3_000_000, zip=True)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture, 1)))
    turned.save(tmp_path / "x.png", pnginfo=info, exif=exif)
    if behind:
        content = (tmp_path / "x.png").read_bytes()
        at = content.index(b"zTXt") - 4
        chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4], "big")]
        content = content.replace(chunk, b"").replace(b"\0\0\0\0IEND", chunk + b"\0\0\0\0IEND")
        (tmp_path / "x.png").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), picture)


def test_a_colour_profile_that_is_none(tmp_path, picture):
    for suffix in ("jpg", "png", "webp", "tif"):
        Image.fromarray(picture).save(tmp_path / f"x.{suffix}", icc_profile=b"\xff" * 200)
        assert_close(read_image(tmp_path / f"x.{suffix}"), picture, 6)


def test_a_broken_exif_block_does_not_make_half_a_picture_whole(tmp_path, picture):
    path = with_exif(tmp_path / "x.jpg", picture, lambda exif: exif[:-30] + b"\xff" * 30)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded .*truncated"):
        read_image(path)


def test_the_picture_as_it_is_stored(tmp_path, picture):
    path = with_exif(tmp_path / "x.jpg", picture)
    assert_close(read_image(path, upright=False), np.rot90(picture, 1), 2)
    assert image_size(path) == (32, 48)
    assert image_size(with_exif(tmp_path / "y.jpg", picture, orientation=3)) == (48, 32)


def test_a_file_that_is_not_regular(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert find_images([tmp_path]) == [tmp_path / "gone.jpg", tmp_path / "pipe.jpg"]
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"pipe\.jpg: is a named pipe, not a regular image file"):
            read(tmp_path / "pipe.jpg")
        with pytest.raises(DataError, match=r"gone\.jpg: links to .*nowhere\.jpg, which is not there"):
            read(tmp_path / "gone.jpg")


def test_hidden_files_are_no_images(tmp_path):
    for name in ("._a.jpg", ".a.jpg", "a.jpg"):
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == [tmp_path / "a.jpg"]


def test_a_name_that_is_no_text(tmp_path, picture):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.fromarray(picture).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(path)
    np.testing.assert_array_equal(read_image(path), picture)
    assert isinstance(image_seed(0, path.stem), int)
    assert image_seed(3, "000004") == zlib.crc32(b"3/000004")
