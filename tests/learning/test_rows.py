import numpy as np
import pytest

from sppnet_cli.errors import SppnetError
from sppnet_cli.learning.rows import RowsFull, RowStore

DIMENSION = 8


def gib(rows, dimension=DIMENSION):
    """Room for so many rows without a zero: a word of mask and a word a number."""
    return rows * 2 * (1 + dimension) / 2**30


def features(*values):
    return np.repeat(np.array(values, dtype=np.float32)[:, None], DIMENSION, axis=1)


def test_rows_are_kept_in_16_bits_with_their_squared_norms(rows_of):
    store = RowStore(DIMENSION, gib(10))
    slots = store.add(features(1.0, 0.1))
    assert slots.dtype == np.int64
    assert len(store) == 2
    np.testing.assert_array_equal(rows_of(store, slots), features(1.0, 0.1).astype(np.float16))
    np.testing.assert_allclose(store.norms[slots], [8.0, 8 * float(np.float16(0.1)) ** 2], rtol=1e-7)


def test_zeros_take_no_room(rows_of):
    store = RowStore(DIMENSION, gib(1))
    sparse = np.zeros((3, DIMENSION), dtype=np.float32)
    sparse[[0, 0, 1, 2], [2, 7, 0, 4]] = [1, 2, 3, 4]  # 3 + 2 + 2 words, of 9
    slots = store.add(sparse)
    np.testing.assert_array_equal(rows_of(store, slots), sparse)
    zeros = store.add(features(0, 0))
    np.testing.assert_array_equal(rows_of(store, zeros), features(0, 0))
    with pytest.raises(RowsFull):
        store.add(features(0))


def test_a_row_lives_as_long_as_someone_refers_to_it(rows_of):
    store = RowStore(DIMENSION, gib(10))
    slots = store.add(features(1, 2, 3))
    store.retain(slots)
    store.retain(slots[1:])  # a second class
    store.release(slots)
    assert len(store) == 2
    np.testing.assert_array_equal(rows_of(store, slots[1:]), features(2, 3))
    store.release(slots[1:])
    assert len(store) == 0


def test_freed_room_is_used_again_and_others_are_left_alone(rows_of):
    store = RowStore(DIMENSION, gib(4))
    slots = store.add(features(1, 2, 3))
    store.retain(slots)
    store.release(slots[[0, 2]])
    new = store.add(features(7, 8, 9))
    assert len(store) == 4
    assert set(slots[[0, 2]]) < set(new)
    assert slots[1] not in new
    np.testing.assert_array_equal(rows_of(store, slots[1:2]), features(2))
    np.testing.assert_array_equal(rows_of(store, new), features(7, 8, 9))
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


def test_a_refused_addition_leaves_the_store_as_it_was(rows_of):
    store = RowStore(DIMENSION, gib(2))
    slots = store.add(features(1, 2))
    store.retain(slots)
    store.release(slots[:1])
    with pytest.raises(RowsFull):
        store.add(features(3, 4))
    assert len(store) == 1
    np.testing.assert_array_equal(rows_of(store, slots[1:]), features(2))
    assert store.add(features(5)).tolist() == slots[:1].tolist()


def traffic(rows_of, store, rng, kept, steps):
    """Random additions and evictions of rows of many lengths; `kept` says what must be there."""
    for _ in range(steps):
        wanted = rng.normal(size=(rng.integers(4), 20)) * (rng.random((1, 20)) < rng.random())
        wanted = wanted.astype(np.float16).astype(np.float32)
        slots = store.add(wanted)
        store.retain(slots)
        assert not kept.keys() & set(slots.tolist())
        kept.update(zip(slots.tolist(), wanted, strict=True))
        gone = [slot for slot in kept if rng.random() < 0.1]
        store.release(np.array(gone, dtype=np.int64))
        for slot in gone:
            del kept[slot]
        assert len(store) == len(kept)
        np.testing.assert_array_equal(rows_of(store, list(kept)), np.reshape(list(kept.values()), (-1, 20)))


def test_random_traffic_against_a_dictionary(rows_of):
    # 300 rows go through room for 50 of the longest.
    store = RowStore(20, gib(50, 21))
    traffic(rows_of, store, np.random.default_rng(0), {}, 200)


def test_a_restored_store_goes_on_as_the_first_would(rows_of):
    store, kept = RowStore(20, gib(50, 21)), {}
    traffic(rows_of, store, np.random.default_rng(0), kept, 50)
    state = {name: table.copy() for name, table in store.state().items()}
    again, kept_again = RowStore.restored(20, gib(50, 21), state), dict(kept)
    assert len(again) == len(kept)
    traffic(rows_of, store, np.random.default_rng(1), kept, 50)
    traffic(rows_of, again, np.random.default_rng(1), kept_again, 50)
    assert kept.keys() == kept_again.keys()


def test_a_store_is_not_restored_into_less_room():
    store = RowStore(DIMENSION, gib(3))
    store.retain(store.add(features(1, 2, 3)))
    with pytest.raises(RowsFull, match="--max-memory"):
        RowStore.restored(DIMENSION, gib(2), store.state())
