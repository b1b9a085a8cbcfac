import numpy as np
import pytest

from sppnet_cli.learning.packed import add, dot, mask_words, pack, positions


def sparse_row(rng, dimension, density):
    row = rng.normal(size=dimension) * (rng.random(dimension) < density)
    return row.astype(np.float16).astype(np.float32)


def opened(packed, dimension):
    """The halves and their places, as the kernels take them."""
    words = mask_words(dimension)
    places = np.empty(dimension + 8, dtype=np.uint32)
    positions(packed[:words], places)
    return packed[words:], places


def unpacked(packed, dimension):
    """The row again, by numpy alone."""
    words = mask_words(dimension)
    present = np.unpackbits(packed[:words].view(np.uint8), count=dimension, bitorder="little").astype(bool)
    row = np.zeros(dimension, dtype=np.float16)
    row[present] = packed[words:].view(np.float16)
    return row


def test_a_row_by_hand():
    # Numbers 1 and 17 of 18 are there: bit 1 of the first word, bit 1 of the second.
    row = np.zeros(18, dtype=np.float32)
    row[[1, 17]] = [1.0, -2.0]
    packed = pack(row)
    assert packed.tolist() == [2, 2, 0x3C00, 0xC000]
    halves, places = opened(packed, 18)
    assert places[:2].tolist() == [1, 17]
    w = np.arange(18, dtype=np.float32)
    assert dot(halves, places, w) == 1 - 34
    add(halves, places, np.float32(3), w)
    assert w.tolist() == [0, 4, *range(2, 17), 11]


@pytest.mark.parametrize("dimension", [1, 7, 8, 15, 16, 17, 100, 1600])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.6, 1.0])
def test_agrees_with_dense_rows(dimension, density):
    rng = np.random.default_rng(dimension)
    row, w = sparse_row(rng, dimension, density), rng.normal(size=dimension).astype(np.float32)
    packed = pack(row)
    assert len(packed) == mask_words(dimension) + np.count_nonzero(row)
    np.testing.assert_array_equal(unpacked(packed, dimension), row)
    halves, places = opened(packed, dimension)
    np.testing.assert_array_equal(places[: len(halves)], np.flatnonzero(row))
    assert dot(halves, places, w) == pytest.approx(row.astype(np.float64) @ w, abs=1e-4)
    expected = w + np.float32(0.7) * row
    add(halves, places, np.float32(0.7), w)
    np.testing.assert_array_equal(w, expected)


def test_every_half_is_read_right():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    packed = pack(halves.astype(np.float32))
    w = np.zeros(len(halves), dtype=np.float32)
    add(*opened(packed, len(halves)), np.float32(1), w)
    np.testing.assert_array_equal(w, halves.astype(np.float32))
    assert len(packed) == mask_words(len(halves)) + len(halves) - 2  # both zeros are left out


def test_what_is_too_small_for_16_bits_is_zero():
    assert len(pack(np.array([1e-9, -1e-9, 1e-7], dtype=np.float32))) == 1 + 1


def test_the_sum_is_taken_in_sixteen_lanes():
    # Lane 0 sums numbers 0, 16, 32, ...; lanes are then summed from the first.  Float32, no fused multiply-add.
    rng = np.random.default_rng(0)
    row, w = sparse_row(rng, 1003, 1.0), rng.normal(size=1003).astype(np.float32)
    products = np.zeros(1008, dtype=np.float32)
    products[:1003] = row * w
    lanes = np.zeros(16, dtype=np.float32)
    for part in products.reshape(-1, 16):
        lanes += part
    total = np.float32(0)
    for lane in lanes:
        total += lane
    assert dot(*opened(pack(row), 1003), w) == total


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_where_the_arrays_lie_changes_nothing(density):
    rng = np.random.default_rng(1)
    row, w = sparse_row(rng, 1603, density), rng.normal(size=1603).astype(np.float32)
    packed = pack(row)
    results = set()
    for shift in range(33):
        rows = np.zeros(len(packed) + 40, dtype=np.uint16)[shift : shift + len(packed)]
        own = np.zeros(1643, dtype=np.float32)[shift // 2 : shift // 2 + 1603]
        rows[:], own[:] = packed, w
        halves, places = opened(rows, 1603)
        product = dot(halves, places, own)
        add(halves, places, np.float32(0.3), own)
        results.add((float(product), own.tobytes()))
    assert len(results) == 1
