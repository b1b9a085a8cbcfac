import numpy as np
import pytest
import scipy.io
import scipy.sparse

from sppnet_cli.data.mat_boxes import load_mat_boxes
from sppnet_cli.errors import DataError


def cells(entries, shape):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array.reshape(shape)


def save(path, boxes, images):
    """As the authors' files are laid out: boxes in a row of cells, images in a column."""
    scipy.io.savemat(path, {"boxes": cells(boxes, (1, -1)), "images": cells(images, (-1, 1))})
    return path


def test_corners_are_swapped_and_0_based(tmp_path):
    first = np.array([[1, 11, 30, 500], [2, 3, 4, 5]], dtype=np.float64)
    path = save(tmp_path / "voc.mat", [first, np.empty((0, 4))], ["000005", "000007"])
    found = load_mat_boxes(path)
    assert list(found) == ["000005", "000007"]
    assert found["000005"].tolist() == [[10, 0, 499, 29], [2, 1, 4, 3]]
    assert found["000005"].dtype == np.float32
    assert found["000007"].shape == (0, 4)


def test_one_image_and_integers(tmp_path):
    path = save(tmp_path / "voc.mat", [np.array([[1, 1, 20, 20]], dtype=np.uint16)], ["000005"])
    assert load_mat_boxes(path)["000005"].tolist() == [[0, 0, 19, 19]]


def test_another_layout_is_an_error(tmp_path):
    path = tmp_path / "voc.mat"
    box = np.array([[1.0, 1, 20, 20]])
    with pytest.raises(DataError, match=r"voc\.mat: no such \.mat file"):
        load_mat_boxes(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    with pytest.raises(DataError, match=r"voc\.mat: not a MATLAB file of version 7 or less"):
        load_mat_boxes(path)
    scipy.io.savemat(path, {"boxes": cells([box], (1, 1))})
    with pytest.raises(DataError, match="has no variable images"):
        load_mat_boxes(path)
    scipy.io.savemat(path, {"boxes": box, "images": cells(["1"], (1, 1))})
    with pytest.raises(DataError, match="not cell arrays of one length"):
        load_mat_boxes(path)
    with pytest.raises(DataError, match="not cell arrays of one length"):
        load_mat_boxes(save(path, [box, box], ["000005"]))
    with pytest.raises(DataError, match=r"not \(N, 4\) numbers"):
        load_mat_boxes(save(path, [np.ones((2, 5))], ["000005"]))
    with pytest.raises(DataError, match="an entry of images is not a name"):
        load_mat_boxes(save(path, [box], [np.array([5.0])]))
    with pytest.raises(DataError, match=r"not \(y1, x1, y2, x2\), 1-based"):
        load_mat_boxes(save(path, [np.array([[0.0, 0, 5, 5]])], ["000005"]))
    with pytest.raises(DataError, match=r"not \(y1, x1, y2, x2\), 1-based"):
        load_mat_boxes(save(path, [np.array([[9.0, 9, 5, 5]])], ["000005"]))


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a\n", ""])
def test_an_id_that_leads_elsewhere(tmp_path, name):
    path = save(tmp_path / "voc.mat", [np.array([[1.0, 1, 20, 20]])], [name])
    with pytest.raises(DataError, match=r"voc\.mat: .*(is no id of an image|is not a name)"):
        load_mat_boxes(path)


def test_entries_of_other_kinds(tmp_path):
    box = np.array([[1.0, 1, 20, 20]])
    for boxes, images in (
        ([scipy.sparse.csc_matrix(box)], ["1"]),
        ([np.array([[np.nan, 1, 20, 20]])], ["1"]),
        ([np.array([[np.inf, 1, np.inf, 20]])], ["1"]),
        ([box + 1j], ["1"]),
        ([box], [scipy.sparse.csc_matrix(box)]),
        ([{"a": 1}], ["1"]),
        ([box], [{"a": 1}]),
    ):
        with pytest.raises(DataError, match=r"voc\.mat: .*; use the authors' \.mat file"):
            load_mat_boxes(save(tmp_path / "voc.mat", boxes, images))
