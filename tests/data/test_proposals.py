import ctypes
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from sppnet_cli.data.boxes import iou
from sppnet_cli.data.images import read_image
from sppnet_cli.data.proposals import (
    METHODS,
    edge_boxes,
    image_seed,
    join_boxes,
    proposal_parts,
    propose,
    read_boxes,
    ss_fast,
    ss_paper,
    top_up,
    write_boxes,
)
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError, UsageError

methods = pytest.mark.parametrize("method", sorted(METHODS))
searches = pytest.mark.parametrize("method", ["ss-fast", "ss-paper"])


@pytest.fixture(scope="module")
def photo():
    """A real photograph, 160x240: flower.jpg as scikit-learn ships it, shrunk."""
    return cv2.resize(load_sample_image("flower.jpg"), (240, 160), interpolation=cv2.INTER_AREA)


def as_set(boxes):
    return {tuple(box) for box in boxes.tolist()}


@methods
def test_windows_keep_the_conventions(photo, method):
    boxes = METHODS[method](photo, 3)
    assert boxes.dtype == np.float32
    assert len(boxes) > 50
    assert len(as_set(boxes)) == len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 239).all()
    assert (boxes[:, 3] <= 159).all()
    assert (boxes[:, 2:] - boxes[:, :2] + 1 >= 20).all()


@searches
def test_the_last_merger_is_the_whole_image(photo, method):
    assert [0, 0, 239, 159] in METHODS[method](photo, 3).tolist()


@pytest.mark.parametrize(("method", "overlap"), [("ss-fast", 0.9), ("ss-paper", 0.9), ("edgeboxes", 0.8)])
def test_a_square_on_a_plain_ground_is_found(method, overlap):
    image = np.full((120, 160, 3), (40, 90, 160), dtype=np.uint8)
    image[30:80, 50:110] = (230, 60, 20)
    assert iou(METHODS[method](image, 0), np.array([[50, 30, 109, 79]])).max() > overlap


def test_fast_is_the_boxes_of_opencv_in_reverse(photo):
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(photo[:, :, ::-1].copy())
    search.switchToSelectiveSearchFast()
    wanted = ss_fast(photo, 11)
    ctypes.CDLL(None).srand(11)
    expected = [[x, y, x + w - 1, y + h - 1] for x, y, w, h in search.process().tolist() if min(w, h) >= 20]
    assert wanted.tolist() == expected[::-1]


@searches
def test_the_seed_decides_the_order_alone(photo, method):
    one, again, other = (METHODS[method](photo, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert as_set(one) == as_set(other)
    assert one.tolist() != other.tolist()


def test_another_process_gives_the_same_bytes_without_torch(photo, tmp_path):
    """What was drawn before, and in which process, does not matter."""
    np.save(tmp_path / "photo.npy", photo)
    program = (
        "import sys, numpy as np\n"
        "from sppnet_cli.data.proposals import ss_fast, ss_paper\n"
        f"photo = np.load({str(tmp_path / 'photo.npy')!r})\n"
        "ss_paper(photo, 1)\n"
        f"np.save({str(tmp_path / 'boxes.npy')!r}, ss_fast(photo, 7))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "boxes.npy"), ss_fast(photo, 7))


def test_large_regions_come_first_on_average(photo):
    """A priority order, not a shuffle: the first half holds the larger windows, for any seed."""
    for seed in range(3):
        boxes = ss_fast(photo, seed)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
        half = len(boxes) // 2
        assert np.median(areas[:half]) > np.median(areas[half:])


@methods
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (19, 200, 3), (2, 2, 3)])
def test_an_image_without_room_for_a_window_has_none(method, shape):
    noise = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    boxes = propose(noise, method, seed=1)
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32


@searches
def test_a_flat_image_is_one_region(method):
    assert propose(np.full((50, 70, 3), 9, dtype=np.uint8), method, seed=1).tolist() == [[0, 0, 69, 49]]


@searches
@pytest.mark.parametrize("size", [(400, 40), (40, 400)])
def test_elongated_images(photo, method, size):
    boxes = propose(cv2.resize(photo, size), method, seed=1)
    assert len(boxes) > 5
    assert boxes.max(axis=0)[2:].tolist() == [size[0] - 1, size[1] - 1]


def test_edge_boxes_without_an_edge():
    boxes = propose(np.full((50, 70, 3), 9, dtype=np.uint8), "edgeboxes", seed=1)
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32


def test_edge_boxes_draw_nothing(photo):
    np.testing.assert_array_equal(edge_boxes(photo, 1), edge_boxes(photo, 2))


def test_the_best_edge_box_is_the_object_and_no_two_are_alike():
    image = np.full((160, 200, 3), (40, 90, 160), dtype=np.uint8)
    image[50:110, 60:140] = (230, 60, 20)
    boxes = edge_boxes(image, 0)
    assert iou(boxes[:1], np.array([[60, 50, 139, 109]])) > 0.75
    overlaps = iou(boxes, boxes) - np.eye(len(boxes))
    assert overlaps.max() < 0.72  # of pixels; of OpenCV's measures .65


def test_edge_boxes_reach_every_border(photo):
    """OpenCV gives them a pixel too far right and down, which is undone."""
    boxes = edge_boxes(photo, 0)
    assert boxes[:, :2].min(axis=0).tolist() == [0, 0]
    assert boxes[:, 2:].max(axis=0).tolist() == [239, 159]


def test_edge_boxes_are_two_thousand_at_most():
    large = cv2.resize(load_sample_image("china.jpg"), (500, 333), interpolation=cv2.INTER_AREA)
    assert len(edge_boxes(large, 0)) == 2000


def test_large_images_are_searched_small_and_boxes_scaled_back(photo):
    large = cv2.resize(photo, (1201, 801))
    boxes = propose(large, "ss-fast", seed=4, max_side=240)
    small = ss_fast(cv2.resize(large, (240, 160), interpolation=cv2.INTER_AREA), 4)
    assert boxes.shape == small.shape
    assert boxes.dtype == np.float32
    assert len(as_set(boxes)) == len(boxes)
    whole = small.tolist().index([0, 0, 239, 159])
    assert boxes[whole].tolist() == [0, 0, 1200, 800]
    # A pixel of the small image covers 1201/240 x 801/160 of the large one.
    x1, y1, x2, y2 = small[0].tolist()
    expected = [x1 * 1201 / 240, y1 * 801 / 160, (x2 + 1) * 1201 / 240 - 1, (y2 + 1) * 801 / 160 - 1]
    np.testing.assert_allclose(boxes[0], expected, atol=0.5)


def test_an_image_within_max_side_is_searched_as_it_is(photo):
    np.testing.assert_array_equal(propose(photo, "ss-fast", 4, max_side=240), ss_fast(photo, 4))
    np.testing.assert_array_equal(propose(photo, "ss-paper", 4), ss_paper(photo, 4))


def test_an_unknown_method(photo):
    with pytest.raises(
        UsageError, match="'edge-boxes': unknown method; choose one of ss-fast, ss-paper, edgeboxes"
    ):
        propose(photo, "edge-boxes", 0)


def test_image_seeds_are_stable_and_differ():
    assert image_seed(0, "000005") == 569677227
    seeds = {image_seed(seed, f"{image:06d}") for seed in range(5) for image in range(200)}
    assert len(seeds) == 1000


def test_top_up_takes_the_first_or_fills_with_distinct_windows():
    boxes = np.array([[0, 0, 29, 29], [1, 1, 40, 40], [2, 2, 30, 50]], dtype=np.float32)
    assert top_up(boxes, 2, (100, 120), seed=0).tolist() == boxes[:2].tolist()
    filled = top_up(boxes, 2000, (100, 120), seed=0)
    assert filled.shape == (2000, 4)
    assert filled.dtype == np.float32
    assert filled[:3].tolist() == boxes.tolist()
    assert len(as_set(filled)) == 2000
    assert (filled[:, :2] >= 0).all()
    assert (filled[:, 2] <= 119).all()
    assert (filled[:, 3] <= 99).all()
    assert (filled[:, 2:] - filled[:, :2] + 1 >= 20).all()
    np.testing.assert_array_equal(filled, top_up(boxes, 2000, (100, 120), seed=0))
    assert filled.tolist() != top_up(boxes, 2000, (100, 120), seed=1).tolist()


def test_top_up_reaches_every_window_and_no_more():
    """22x21 pixels hold 6 * 3 = 18 windows of 20 px or more."""
    none = np.empty((0, 4), dtype=np.float32)
    assert len(as_set(top_up(none, 18, (21, 22), seed=0))) == 18
    with pytest.raises(DataError, match="22x21 pixels holds only 18 windows, not 19"):
        top_up(none, 19, (21, 22), seed=0)
    with pytest.raises(DataError, match="holds only 0 windows"):
        top_up(none, 1, (300, 19), seed=0)


def test_boxes_are_kept_as_they_are(tmp_path):
    path = tmp_path / "000005.npy"
    for boxes in (np.array([[0, 1.5, 2, 3]], dtype=np.float32), np.empty((0, 4), dtype=np.float32)):
        write_boxes(path, boxes)
        found = read_boxes(path)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, boxes)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "boxes",
    [
        np.array([[0, 1.5, 2, 3]]), np.array([[0, 1, 2, 3]], np.int32), np.array([[0, 1, 2, 3]], np.uint8),
        np.array([[0, 1, 2, 3]], ">f4"), np.array([[0, 1, 2, 3]], np.float16), np.array([]),
    ],
)  # fmt: skip
def test_windows_that_other_programs_write(tmp_path, boxes):
    np.save(tmp_path / "x.npy", boxes)
    found = read_boxes(tmp_path / "x.npy")
    assert (found.dtype, found.shape[1]) == (np.float32, 4)
    np.testing.assert_array_equal(found, boxes.reshape(-1, 4))


@pytest.mark.parametrize(
    "boxes", [np.ones((1, 4), bool), np.ones((1, 4), "S1"), np.full((1, 4), 1j), np.full((1, 4), 1e300)]
)
def test_windows_of_other_kinds(tmp_path, boxes):
    np.save(tmp_path / "x.npy", boxes)
    with pytest.raises(
        DataError, match=r"x\.npy: (.* array of shape \(1, 4\), not numbers|holds boxes that are not)"
    ):
        read_boxes(tmp_path / "x.npy")


def test_files_that_are_no_boxes(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(DataError, match=r"x\.npy: no such \.npy file; .*sppnet propose"):
        read_boxes(path)
    np.save(path, np.zeros((3, 5), dtype=np.float32))
    with pytest.raises(DataError, match=r"x\.npy: float32 array of shape \(3, 5\)"):
        read_boxes(path)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"x\.npy: not an array"):
        read_boxes(path)
    for content in (b"", b"\x93NUMPY", b"text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.npy: not an array"):
            read_boxes(path)


def test_an_opencv_without_ximgproc(photo, monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc")
    for method in (ss_fast, edge_boxes):
        with pytest.raises(DataError, match="pip install --force-reinstall opencv-contrib-python-headless"):
            method(photo, 0)


@pytest.mark.data
@pytest.mark.skipif("SPPNET_TEST_SHARED" not in os.environ, reason="needs real images")
@pytest.mark.parametrize(
    ("method", "low", "high"), [("ss-fast", 800, 1600), ("ss-paper", 1500, 2600), ("edgeboxes", 1500, 2001)]
)
def test_recall_on_real_images(method, low, high):
    dataset = load_voc(Path(os.environ["SPPNET_TEST_SHARED"]) / "data" / "VOCdevkit", "trainval", limit=4)
    counts, covered = [], []
    for image_id in dataset.ids:
        boxes = propose(read_image(dataset.image_path(image_id)), method, image_seed(0, image_id))
        found = dataset.annotation(image_id)
        counts.append(len(boxes))
        covered += (iou(boxes, found.boxes[~found.difficult]).max(axis=0) >= 0.5).tolist()
    assert low < np.mean(counts) < high
    assert np.mean(covered) > 0.8


@pytest.mark.parametrize("corner", [float("nan"), float("inf"), 100])
def test_windows_that_are_none(tmp_path, corner):
    np.save(tmp_path / "x.npy", np.array([[corner, 0, 50, 50]], np.float32))
    with pytest.raises(DataError, match=r"x\.npy: holds boxes that are not x1 <= x2"):
        read_boxes(tmp_path / "x.npy")


def test_an_archive_in_the_place_of_windows(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, boxes=np.zeros((1, 4), np.float32))
    with pytest.raises(DataError, match=r"x\.npy: not an array .* `sppnet propose`"):
        read_boxes(tmp_path / "x.npy")


def test_parts_of_what_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a+b", "ss-fast+edgeboxes"):
        (tmp_path / name).mkdir()
    assert proposal_parts("a+b") == ["a+b"]  # a folder of that name
    assert proposal_parts("ss-fast+edgeboxes") == ["ss-fast", "edgeboxes"]  # methods come first
    assert proposal_parts("ss-paper") == ["ss-paper"]
    assert proposal_parts("x.mat+ss-fast+y/z") == ["x.mat", "ss-fast", "y/z"]
    for wrong in ("ss-fast+", "+ss-fast", "+", "ss-fast++edgeboxes"):
        with pytest.raises(UsageError, match=r"on both sides of a plus, as in A\+B"):
            proposal_parts(wrong)


def test_joined_boxes_come_by_turns():
    a = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], np.float32)
    b = np.array([[0, 0, 9, 9], [0, 0, 1, 1]], np.float32)
    joined = join_boxes([a, b])
    assert joined.dtype == np.float32
    assert joined[:, 2].tolist() == [1, 9, 2, 3]
    assert join_boxes([b, a])[:, 2].tolist() == [9, 1, 2, 3]
    empty = np.empty((0, 4), np.float32)
    assert join_boxes([empty, a]).tolist() == a.tolist()
    assert join_boxes([empty, empty]).shape == (0, 4)
