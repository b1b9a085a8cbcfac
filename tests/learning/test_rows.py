import numpy as np
import pytest

from sppnet_cli.errors import SppnetError
from sppnet_cli.learning.rows import RowStore

DIMENSION = 8


def gib(rows):
    return rows * 2 * DIMENSION / 2**30


def features(*values):
    return np.repeat(np.array(values, dtype=np.float32)[:, None], DIMENSION, axis=1)


def test_rows_are_kept_in_16_bits_with_their_squared_norms():
    store = RowStore(DIMENSION, gib(10))
    slots = store.add(features(1.0, 0.5))
    assert slots.dtype == np.int64
    assert len(store) == 2
    assert store.rows.dtype == np.float16
    np.testing.assert_array_equal(store.rows[slots], features(1.0, 0.5))
    np.testing.assert_array_equal(store.norms[slots], [8.0, 2.0])


def test_a_row_lives_as_long_as_someone_refers_to_it():
    store = RowStore(DIMENSION, gib(10))
    slots = store.add(features(1, 2, 3))
    store.retain(slots)
    store.retain(slots[1:])  # a second class
    store.release(slots)
    assert len(store) == 2
    np.testing.assert_array_equal(store.rows[slots[1:]], features(2, 3))
    store.release(slots[1:])
    assert len(store) == 0


def test_freed_slots_are_used_again_and_others_are_left_alone():
    store = RowStore(DIMENSION, gib(4))
    slots = store.add(features(1, 2, 3))
    store.retain(slots)
    store.release(slots[[0, 2]])
    new = store.add(features(7, 8, 9))
    assert len(store) == 4
    assert set(slots[[0, 2]]) < set(new)
    assert slots[1] not in new
    np.testing.assert_array_equal(store.rows[slots[1:2]], features(2))
    np.testing.assert_array_equal(store.rows[new], features(7, 8, 9))
    np.testing.assert_array_equal(store.norms[new], [8.0 * 49, 8.0 * 64, 8.0 * 81])


def test_nothing_to_add():
    store = RowStore(DIMENSION, gib(4))
    assert store.add(features()).tolist() == []
    assert len(store) == 0


def test_the_bound_is_exact():
    store = RowStore(DIMENSION, gib(4))
    store.add(features(1, 2, 3, 4))
    with pytest.raises(SppnetError, match="--max-memory"):
        store.add(features(5))


def test_a_refused_addition_leaves_the_store_as_it_was():
    store = RowStore(DIMENSION, gib(2))
    slots = store.add(features(1, 2))
    store.retain(slots)
    store.release(slots[:1])
    with pytest.raises(SppnetError):
        store.add(features(3, 4))
    assert len(store) == 1
    assert store.add(features(5)).tolist() == slots[:1].tolist()


def test_random_traffic_against_a_dictionary():
    rng = np.random.default_rng(0)
    store, kept = RowStore(DIMENSION, gib(60)), {}
    for step in range(200):
        wanted = features(*range(3 * step, 3 * step + rng.integers(4)))
        slots = store.add(wanted)
        store.retain(slots)
        assert not kept.keys() & set(slots.tolist())
        kept.update(zip(slots.tolist(), wanted, strict=True))
        gone = [slot for slot in kept if rng.random() < 0.1]
        store.release(np.array(gone, dtype=np.int64))
        for slot in gone:
            del kept[slot]
        assert len(store) == len(kept)
        for slot, row in kept.items():
            np.testing.assert_array_equal(store.rows[slot], row)
