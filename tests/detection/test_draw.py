import numpy as np
import pytest

from sppnet_cli.data.voc import Annotation
from sppnet_cli.detection import draw
from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.draw import class_colour, contact_sheet, draw_detections

NAMES = tuple(f"class{k}" for k in range(20))
GREY = np.full((200, 300, 3), 90, np.uint8)


def detection(label, score, *box):
    return Detection(label, score, tuple(map(float, box)))


def has(picture, colour):
    """Where a picture has exactly that colour."""
    return (picture == colour).all(axis=2)


@pytest.mark.parametrize("classes", [1, 2, 20, 101])
def test_every_class_has_its_own_colour(classes):
    assert len({class_colour(label, classes) for label in range(classes)}) == classes


def test_a_box_is_outlined_on_its_own_pixels():
    before = GREY.copy()
    picture = draw_detections(GREY, [detection(3, 0.5, 100, 80, 219, 179)], NAMES)
    np.testing.assert_array_equal(GREY, before)
    assert picture.shape == GREY.shape
    drawn = has(picture, class_colour(3, 20))
    assert drawn[80:180, 100].all()
    assert drawn[80:180, 219].all()
    assert drawn[179, 100:220].all()
    assert not drawn[82:178, 102:218].any()
    assert not drawn[:, :100].any()
    assert not drawn[:, 220:].any()
    assert not drawn[180:].any()
    assert drawn[:80].any()  # the label, above


def test_labels_hold_the_confidence_or_the_score(monkeypatch):
    said = []
    original = draw._draw_labels

    def spy(canvas, labels, size):
        said.extend(text for _, text, _ in labels)
        original(canvas, labels, size)

    monkeypatch.setattr(draw, "_draw_labels", spy)
    sure = Detection(1, -0.9, (20.0, 20.0, 60.0, 60.0), 0.874)
    draw_detections(GREY, [sure, detection(2, -1.0, 80, 20, 120, 60)], NAMES)
    draw_detections(GREY, [sure], NAMES, weak=True)
    assert said == [f"{NAMES[2]} -1.00", f"{NAMES[1]} 87%", f"{NAMES[1]} 87%, weak"]


@pytest.mark.parametrize(("name", "other"), [("\u00f6", "\u00e9"), ("\u0436", "\u0444")])
def test_letters_beyond_ascii_are_written(name, other):
    """A font without them draws the same box for both."""
    one, two = (
        draw_detections(GREY, [detection(0, 0.5, 100, 80, 219, 179)], (each,)) for each in (name, other)
    )
    assert (one != two).any()


def test_a_weak_box_is_dashed_in_its_colour():
    picture = draw_detections(GREY, [detection(3, 0.5, 100, 80, 219, 179)], NAMES, weak=True)
    edge = picture[179, 100:220]
    own, white = (edge == class_colour(3, 20)).all(axis=1), (edge == 255).all(axis=1)
    assert (own | white).all()
    assert own.sum() > 30
    assert white.sum() > 30


def test_the_best_is_on_top():
    boxes = (60, 60, 140, 140)
    for best in (0, 1):
        scores = (0.9, 0.4) if best == 0 else (0.4, 0.9)
        picture = draw_detections(GREY, [detection(k, scores[k], *boxes) for k in (0, 1)], NAMES)
        assert has(picture, class_colour(best, 20))[100, 60]


def test_labels_stay_in_the_picture_and_clear_of_each_other():
    def area(found):
        return [has(draw_detections(GREY, found, NAMES), class_colour(k, 20)).sum() for k in range(5)]

    for box in ((0, 0, 40, 30), (250, 0, 299, 30), (0, 180, 40, 199), (120, 80, 180, 110)):
        together = area([detection(k, 1 - k / 10, *box) for k in range(5)])
        for k in range(5):
            alone = area([detection(k, 1 - k / 10, *box)])
            edges = 3 * 2 * (box[2] - box[0] + box[3] - box[1] + 2)  # which the others may cover
            assert together[k] > alone[k] - edges > 0


def test_the_picture_is_enlarged_with_its_boxes():
    picture = draw_detections(GREY, [detection(3, 0.5, 100, 80, 149, 129)], NAMES, zoom=2)
    assert picture.shape == (400, 600, 3)
    drawn = has(picture, class_colour(3, 20))
    # Pixel k becomes 2k and 2k + 1; the line lies on either.
    assert drawn[170:255, 200:202].any(axis=1).all()
    assert drawn[170:255, 298:300].any(axis=1).all()
    assert not drawn[:, :200].any()
    assert not drawn[260:].any()
    assert draw_detections(GREY, [], NAMES, zoom=0.5).shape == (100, 150, 3)


def test_the_ground_truth_is_dashed_and_beneath():
    boxes = np.array([[100, 80, 219, 179]], np.float32)
    truth = Annotation(boxes, np.array([4]), np.array([False]), (200, 300))
    picture = draw_detections(GREY, [], NAMES, truth=truth)
    edge = picture[179, 100:220]
    black, white = (edge == 0).all(axis=1), (edge == 255).all(axis=1)
    assert (black | white).all()
    assert black.sum() > 30
    assert white.sum() > 30
    assert (picture[100:160, 110:200] == 90).all()
    covered = draw_detections(GREY, [detection(3, 0.5, 100, 80, 219, 179)], NAMES, truth=truth)
    assert has(covered, class_colour(3, 20))[179, 100:220].all()


def test_a_difficult_object_is_named_so():
    boxes = np.array([[100, 80, 219, 179]], np.float32)
    widths = []
    for difficult in (False, True):
        truth = Annotation(boxes, np.array([4]), np.array([difficult]), (200, 300))
        picture = draw_detections(GREY, [], NAMES, truth=truth)
        widths.append((picture[:80] != 90).any(axis=(0, 2)).sum())
    assert widths[1] > 1.8 * widths[0]


def test_a_small_picture_and_a_box_beyond_it():
    small = np.zeros((12, 9, 3), np.uint8)
    assert draw_detections(small, [detection(0, 1, -5, -5, 30, 30)], NAMES).shape == small.shape


def solid(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def test_a_contact_sheet_fills_rows():
    pictures = [solid(50, 100, 10), solid(40, 100, 20), solid(50, 120, 30)]
    sheet = contact_sheet(pictures, ["a", "b", "c"], width=250, gap=10)
    # 10 + 100 + 10 + 100 + 10 fits; a third does not.  Below each row: letters of 14 px and two gaps.
    assert sheet.shape == (10 + (50 + 34) + (50 + 34), 230, 3)
    assert (sheet[10:60, 10:110] == 10).all()
    assert (sheet[10:50, 120:220] == 20).all()
    assert (sheet[94:144, 10:130] == 30).all()
    assert (sheet[:10] == 255).all()
    assert (sheet[50:60, 120:220] < 128).any()  # the caption, right below its picture
    one = contact_sheet(pictures[:1], ["a"], width=50, gap=10)
    assert one.shape == (94, 120, 3)  # wider than the sheet should be
