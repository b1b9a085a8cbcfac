import numpy as np

from sppnet_cli.data.boxes import box_areas, clip_boxes, flip_boxes, iou


def pixel_iou(a, b):
    """By counting the pixels of a 30x30 image that inclusive integer boxes cover."""
    masks = []
    for x1, y1, x2, y2 in (a, b):
        mask = np.zeros((30, 30), dtype=bool)
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
        masks.append(mask)
    return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


def test_areas_count_inclusive_pixels():
    assert box_areas(np.array([[3, 4, 3, 4], [0, 0, 9, 4]], dtype=np.float32)).tolist() == [1, 50]


def test_iou_worked_by_hand():
    a = np.array([[0, 0, 9, 9]], dtype=np.float32)
    b = np.array(
        [[0, 0, 9, 9], [5, 0, 14, 9], [9, 9, 18, 18], [10, 0, 19, 9], [2, 2, 2, 2]], dtype=np.float32
    )
    # Same box; 50 of 150 pixels; the one corner pixel of 199; side by side; one pixel of 100.
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 1 / 199, 0, 1 / 100]])
    assert iou(a, b).dtype == np.float64


def test_iou_equals_counting_pixels():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 30, size=(24, 2, 2)), axis=1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    a, b = boxes[:10], boxes[10:]
    expected = [[pixel_iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(iou(a, b), expected)


def test_iou_of_no_boxes_is_empty():
    none, one = np.empty((0, 4), dtype=np.float32), np.array([[0, 0, 1, 1]], dtype=np.float32)
    assert iou(none, one).shape == (0, 1)
    assert iou(one, none).shape == (1, 0)


def test_clip_into_the_last_pixel():
    boxes = np.array([[-5, -1, 200, 99.5], [3, 4, 5, 6]], dtype=np.float32)
    clipped = clip_boxes(boxes, (50, 100))
    assert clipped.tolist() == [[0, 0, 99, 49], [3, 4, 5, 6]]
    assert clipped.dtype == np.float32
    assert boxes[0, 0] == -5


def test_flip_follows_the_mirrored_pixels():
    image = np.zeros((8, 11), dtype=bool)
    image[2:5, 1:4] = True  # box 1, 2, 3, 4
    flipped = flip_boxes(np.array([[1, 2, 3, 4]], dtype=np.float32), width=11)
    assert flipped.tolist() == [[7, 2, 9, 4]]
    rows, columns = np.nonzero(image[:, ::-1])
    assert [columns.min(), rows.min(), columns.max(), rows.max()] == flipped[0].tolist()
    np.testing.assert_array_equal(flip_boxes(flipped, width=11), [[1, 2, 3, 4]])
