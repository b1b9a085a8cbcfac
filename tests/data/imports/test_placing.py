"""From edges to whole pixels; EXIF's turns against Pillow's."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from sppnet_cli.data.images import read_image
from sppnet_cli.data.imports.labelled import ExportedObject, Labelled
from sppnet_cli.data.imports.placing import Picture, drawn_as_stored, look_at, place, turned
from sppnet_cli.data.imports.tally import Tally
from sppnet_cli.errors import DataError


def photograph(path, orientation, size=(50, 30), **save):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", size).save(path, exif=exif, **save)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(orientation):
    pixels = np.zeros((30, 50), np.uint8)
    pixels[3:11, 7:21] = 255
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    rows, columns = np.nonzero(np.asarray(ImageOps.exif_transpose(Image.open(file))))
    wanted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert turned((7, 3, 21, 11), Picture((50, 30), orientation)) == wanted


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 0, 77])
def test_sizes_are_those_of_the_reader(suffix, orientation, tmp_path):
    path = photograph(tmp_path / f"1.{suffix}", orientation)
    assert look_at(path).upright == read_image(path).shape[1::-1]
    assert look_at(path).stored == (50, 30)


def test_a_png_with_its_orientation_behind_the_picture(tmp_path):
    path = photograph(tmp_path / "1.png", 6)
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    moved = content[:at] + content[end:-12] + content[at:end] + content[-12:]
    path.write_bytes(moved)
    assert look_at(path).upright == read_image(path).shape[1::-1] == (30, 50)


def test_only_odd_pictures_are_decoded(tmp_path, monkeypatch):
    paths = [photograph(tmp_path / f"{k}.{suffix}", 6) for k, suffix in enumerate(("jpg", "png", "webp"))]
    monkeypatch.setattr(
        "sppnet_cli.data.imports.placing.read_image", lambda path: pytest.fail(f"decoded {path}")
    )
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded a PNG"))
    assert [look_at(path).orientation for path in paths] == [6, 6, 6]


def test_a_jpeg_with_bytes_after_its_end_is_read_and_one_cut_off_is_not(tmp_path):
    path = photograph(tmp_path / "1.jpg", 6)
    whole = path.read_bytes()
    path.write_bytes(whole + b"trailer of a telephone" * 5)
    assert look_at(path) == Picture((50, 30), 6)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        look_at(path)


def labelled(*edges, frame):
    return Labelled("1.jpg", tuple(ExportedObject("cat", box) for box in edges), frame)


def boxes(placed):
    return [item.box for item in placed]


@pytest.mark.parametrize(
    ("frame", "as_stored", "box", "mended"),
    [
        ((50, 30), False, (19, 7, 26, 20), {"exif_rotated": 1}),  # the frame is the stored picture's
        ((30, 50), False, (7, 3, 20, 10), {}),  # upright already
        ((30, 50), True, (7, 3, 20, 10), {}),
        ((0, 0), False, (7, 3, 20, 10), {"sizes_filled": 1}),
        ((0, 0), True, (19, 7, 26, 20), {"sizes_filled": 1, "exif_rotated": 1}),
        ((60, 100), False, (3, 1, 10, 4), {"images_of_another_scale": 1}),
    ],
)
def test_a_photograph_on_its_side(frame, as_stored, box, mended):
    tally = Tally()
    found = place(labelled((7, 3, 21, 11), frame=frame), Picture((50, 30), 6), as_stored, tally)
    width, height = 30, 50
    clipped = (box[0], box[1], min(box[2], width - 1), min(box[3], height - 1))
    expected = (4, 2, 10, 5) if frame == (60, 100) else clipped
    assert boxes(found) == [expected]
    assert tally.mended == mended


def test_others_of_the_set_tell_whether_a_half_turn_was_seen():
    """Upside down has the same size either way; what the tool did with quarter turns it did with this one."""
    sideways, upside_down = Picture((50, 30), 6), Picture((50, 30), 3)
    stored = [(labelled(frame=(50, 30)), sideways)] * 2 + [(labelled(frame=(30, 50)), sideways)]
    assert drawn_as_stored(stored)
    assert not drawn_as_stored(stored[1:] + stored[2:])
    assert not drawn_as_stored([(labelled(frame=(50, 30)), upside_down), (labelled(frame=None), sideways)])
    item = labelled((7, 3, 21, 11), frame=(50, 30))
    assert boxes(place(item, upside_down, True, Tally())) == [(29, 19, 42, 26)]
    assert boxes(place(item, upside_down, False, Tally())) == [(7, 3, 20, 10)]


@pytest.mark.parametrize(
    ("edges", "box"),
    [
        ((0, 0, 50, 30), (0, 0, 49, 29)),
        ((10.4, 10.6, 20.4, 20.6), (10, 11, 19, 20)),
        ((10.2, 10.2, 10.5, 10.5), (10, 10, 10, 10)),
        ((49.9, 29.9, 55, 35), (49, 29, 49, 29)),
        ((-9, -9, 0.1, 0.1), (0, 0, 0, 0)),
    ],
)
def test_nearest_pixels_inside_the_picture(edges, box):
    assert boxes(place(labelled(edges, frame=(50, 30)), Picture((50, 30), 1), False, Tally())) == [box]


def test_boxes_are_pixels_of_the_picture_within_half_a_pixel():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-5, 55, (2000, 4))
    edges = [tuple(map(float, (*np.minimum(c[:2], c[2:]), *np.maximum(c[:2], c[2:])))) for c in corners]
    for one in edges:
        for left, top, right, bottom in boxes(
            place(labelled(one, frame=(50, 30)), Picture((50, 30), 1), False, Tally())
        ):
            assert 0 <= left <= right <= 49
            assert 0 <= top <= bottom <= 29
            inside = np.clip(one, 0, (50, 30, 50, 30))
            assert abs(left - inside[0]) <= 0.5 or inside[2] - inside[0] < 1
            assert abs(right + 1 - inside[2]) <= 0.5 or inside[2] - inside[0] < 1
