"""Files of features that are filled row by row and gone on with."""

import numpy as np
import pytest

from sppnet_cli.distributed import World
from sppnet_cli.errors import DataError
from sppnet_cli.features import store
from sppnet_cli.features.store import FeatureStore, layer_file, read_features

DIMENSIONS = {"SPP pool5": 5, "fc7": 3}


def row_of(row):
    return {layer: np.arange(d, dtype=np.float32) + 10 * row for layer, d in DIMENSIONS.items()}


def fill(folder, rows, of=100):
    opened = FeatureStore(folder, of, DIMENSIONS)
    with opened:
        for row in rows:
            opened.write(row, row_of(row))
    return opened


def test_the_names_of_files():
    assert [layer_file(layer) for layer in ("SPP pool5", "fc7")] == ["SPP-pool5.npy", "fc7.npy"]


def test_rows_are_written_and_read_memory_mapped(tmp_path):
    fill(tmp_path, range(100)).finish()
    for layer, dimension in DIMENSIONS.items():
        found = read_features(tmp_path, layer)
        assert isinstance(found, np.memmap)
        assert (found.shape, found.dtype) == ((100, dimension), np.float32)
        np.testing.assert_array_equal(found, [row_of(row)[layer] for row in range(100)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SPP-pool5.npy", "fc7.npy"]


def test_the_files_are_what_numpy_would_save(tmp_path):
    fill(tmp_path, range(9), of=9).finish()
    np.save(tmp_path / "whole.npy", np.stack([row_of(row)["fc7"] for row in range(9)]))
    assert (tmp_path / "fc7.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_what_was_done_is_gone_on_with(tmp_path):
    fill(tmp_path, range(70))
    opened = FeatureStore(tmp_path, 100, DIMENSIONS)
    assert np.flatnonzero(~opened.done).tolist() == list(range(70, 100))
    with opened:
        for row in range(70, 100):
            opened.write(row, row_of(row))
    opened.finish()
    np.testing.assert_array_equal(read_features(tmp_path, "fc7")[:, 0], 10 * np.arange(100))


def test_a_kill_loses_at_most_64_rows(tmp_path):
    with FeatureStore(tmp_path, 100, DIMENSIONS) as opened:
        for row in range(70):
            opened.write(row, row_of(row))
        left = FeatureStore(tmp_path, 100, DIMENSIONS).done
    assert np.flatnonzero(left).tolist() == list(range(64))


def test_files_of_a_process_killed_while_it_made_them_are_made_anew(tmp_path):
    (tmp_path / "fc7.npy").write_bytes(b"half a head")
    fill(tmp_path, range(100)).finish()
    assert len(read_features(tmp_path, "fc7")) == 100


def test_done_is_what_any_process_did(tmp_path, monkeypatch):
    """Two processes, cut off; then three; then one."""
    monkeypatch.setattr(store, "barrier", lambda: None)

    def work(rank, size, until):
        monkeypatch.setattr(store, "world", lambda: World(rank, size))
        opened = FeatureStore(tmp_path, 30, DIMENSIONS)
        rows = [row for row in range(rank, until, size) if not opened.done[row]]
        with opened:
            for row in rows:
                opened.write(row, row_of(row))
        return opened, rows

    assert work(0, 2, 10)[1] == [0, 2, 4, 6, 8]
    assert work(1, 2, 7)[1] == [1, 3, 5]
    assert work(0, 3, 15)[1] == [9, 12]
    assert work(1, 3, 15)[1] == [7, 10, 13]
    assert work(2, 3, 0)[1] == []
    opened, rows = work(0, 1, 30)
    assert rows == [11, 14, *range(15, 30)]
    opened.finish()
    np.testing.assert_array_equal(read_features(tmp_path, "fc7")[:, 0], 10 * np.arange(30))


def test_features_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match=r"fc7\.npy: no features of fc7"):
        read_features(tmp_path, "fc7")


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_file_that_is_no_array(tmp_path, content):
    (tmp_path / "fc7.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"fc7\.npy: not an array"):
        read_features(tmp_path, "fc7")


def test_an_array_of_another_kind(tmp_path):
    np.save(tmp_path / "fc7.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"float64 array of shape \(3,\)"):
        read_features(tmp_path, "fc7")


def test_marks_of_other_rows_are_refused(tmp_path):
    FeatureStore(tmp_path, 10, {"fc7": 2})
    for wrong in (np.zeros(9, bool), np.zeros(10, np.float32), np.array([{}] * 10)):
        np.save(tmp_path / "progress" / "0.npy", wrong)
        with pytest.raises(DataError, match=r"progress/0\.npy: .*start over with --no-resume"):
            FeatureStore(tmp_path, 10, {"fc7": 2})


@pytest.mark.parametrize(
    "other", [np.zeros((10, 3), np.float32), np.zeros((10, 2)), np.zeros((9, 2), np.float32)]
)
def test_a_file_of_other_features_is_not_gone_on_with(tmp_path, other):
    FeatureStore(tmp_path, 10, {"fc7": 2})
    np.save(tmp_path / "fc7.npy", other)
    with pytest.raises(DataError, match=r"fc7\.npy: is not of 10 rows of 2 numbers"):
        FeatureStore(tmp_path, 10, {"fc7": 2})
