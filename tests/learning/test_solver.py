import numpy as np
import pytest
from sklearn.svm import LinearSVC

from sppnet_cli.learning.rows import RowStore, mask_words, pack
from sppnet_cli.learning.solver import add, dot, positions, score_rows, solve

C, WEIGHT, BIAS = 1e-3, 2.0, 10.0


def normal_features(rng, positive, dimension):
    return rng.normal(size=(len(positive), dimension)) + 0.3 * positive[:, None]


def relu_features(rng, positive, dimension):
    """Four fifths zeros, norms about 20: what fc7 gives after scaling."""
    rows = np.maximum(rng.normal(size=(len(positive), dimension)) - 0.8, 0)
    rows[:, :3] += positive[:, None]
    return rows * 20 / np.linalg.norm(rows, axis=1).mean()


def problem(make, seed, n=240, dimension=60):
    """Rows in 16 bits and their labels; a tenth are positive, and not separable."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.1
    return make(rng, positive, dimension).astype(np.float16), positive


def stored(rows):
    """A store whose slots are the indices of `rows`."""
    store = RowStore(rows.shape[1], 0.001)
    store.add(rows.astype(np.float32))
    return store


def train(rows, positive, slots=None, alpha=None, tolerance=1e-3, seed=0, **options):
    slots = np.arange(len(positive)) if slots is None else slots
    alpha = np.zeros(len(slots)) if alpha is None else alpha
    options = {"c": C, "positive_weight": WEIGHT, "bias": BIAS} | options
    return solve(stored(rows), slots, positive, alpha, tolerance=tolerance, seed=seed, **options)


def objective(rows, positive, weights, offset):
    """liblinear's primal, the bias regularised as the weight of a constant feature of 10."""
    weights = weights.astype(np.float64)
    margin = np.where(positive, 1, -1) * (rows.astype(np.float64) @ weights + offset)
    loss = np.where(positive, C * WEIGHT, C) * np.maximum(0, 1 - margin)
    return (weights @ weights + (offset / BIAS) ** 2) / 2 + loss.sum()


@pytest.mark.parametrize("make", [normal_features, relu_features])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_liblinear(make, seed):
    rows, positive = problem(make, seed)
    weights, offset = train(rows, positive)
    reference = LinearSVC(
        C=1e-3,
        loss="hinge",
        dual=True,
        intercept_scaling=10,
        class_weight={1: 2, -1: 1},
        tol=1e-6,
        max_iter=100_000,
        random_state=0,
    ).fit(rows.astype(np.float64), np.where(positive, 1, -1))
    expected = reference.decision_function(rows.astype(np.float64))
    best = objective(rows, positive, reference.coef_[0], reference.intercept_[0])
    assert objective(rows, positive, weights, offset) == pytest.approx(best, rel=1e-3)
    assert np.abs(rows.astype(np.float64) @ weights + offset - expected).max() < 0.005


def test_two_points_by_hand():
    # x = 1 and x = -1 with a constant feature of 1: the dual is a1 + a2 - a1^2 - a2^2, so a1 = a2 = 1/2.
    rows, positive = np.array([[1], [-1]], dtype=np.float16), np.array([True, False])
    alpha = np.zeros(2)
    weights, offset = train(rows, positive, alpha=alpha, c=1.0, positive_weight=1.0, bias=1.0, tolerance=1e-9)
    np.testing.assert_allclose(alpha, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose([*weights, offset], [1.0, 0.0], atol=1e-6)


def test_two_points_by_hand_at_their_bounds():
    # Both multipliers end at C * weight = .002 and .001: w = .003, and the constant's weight is 10 * .001.
    rows, positive = np.array([[1], [-1]], dtype=np.float16), np.array([True, False])
    alpha = np.zeros(2)
    weights, offset = train(rows, positive, alpha=alpha)
    np.testing.assert_allclose(alpha, [0.002, 0.001], rtol=1e-9)
    np.testing.assert_allclose([*weights, offset], [0.003, 10 * 0.01], rtol=1e-6)


def test_weights_are_the_sum_of_the_support_vectors():
    rows, positive = problem(relu_features, 5)
    alpha = np.zeros(len(rows))
    weights, offset = train(rows, positive, alpha=alpha)
    signed = np.where(positive, 1, -1) * alpha
    np.testing.assert_allclose(weights, signed @ rows.astype(np.float64), atol=1e-5)
    assert offset == pytest.approx(signed.sum() * BIAS**2, abs=1e-5)
    assert (alpha >= 0).all()
    assert (alpha <= np.where(positive, 0.002, 0.001)).all()


@pytest.mark.parametrize("make", [normal_features, relu_features])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_no_example_wants_to_move(make, seed):
    """The projected gradients of all examples, those put aside on the way included, span the tolerance."""
    rows, positive = problem(make, seed, n=600, dimension=20)
    alpha = np.zeros(len(rows))
    weights, offset = train(rows, positive, alpha=alpha, tolerance=1e-3)
    gradient = np.where(positive, 1, -1) * (rows.astype(np.float64) @ weights + offset) - 1
    gradient = np.where(alpha == 0, np.minimum(gradient, 0), gradient)
    gradient = np.where(alpha == np.where(positive, C * WEIGHT, C), np.maximum(gradient, 0), gradient)
    assert np.ptp(gradient) < 2e-3


def test_it_stops_when_it_has_arrived():
    rows, positive = problem(relu_features, 0)
    weights, _ = train(rows, positive, passes=200)
    assert weights.tobytes() == train(rows, positive, passes=1000)[0].tobytes()


def test_a_warm_start_gives_the_same_solution():
    rows, positive = problem(relu_features, 1, n=300)
    order = np.random.default_rng(0).permutation(300)
    before, after = order[:200], np.concatenate([order[40:200], order[200:]])  # 40 removed, 100 added
    alpha = np.zeros(200)
    train(rows, positive[before], before, alpha)
    warm = np.concatenate([alpha[40:], np.zeros(100)])
    weights, offset = train(rows, positive[after], after, warm, tolerance=1e-5)
    cold_weights, cold_offset = train(rows, positive[after], after, tolerance=1e-5)
    own = rows[after].astype(np.float64)
    assert np.abs(own @ (weights - cold_weights) + offset - cold_offset).max() < 1e-3


def test_a_warm_start_from_the_solution_stays_there():
    rows, positive = problem(normal_features, 2)
    alpha = np.zeros(len(rows))
    weights, offset = train(rows, positive, alpha=alpha, tolerance=1e-6)
    again, offset_again = train(rows, positive, alpha=alpha, tolerance=1e-6, passes=1)
    np.testing.assert_allclose([*again, offset_again], [*weights, offset], atol=2e-6)


def test_the_same_seed_gives_the_same_bytes():
    rows, positive = problem(relu_features, 3)
    first, second = (train(rows, positive, seed=7) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]


def test_only_its_own_slots_are_read_in_any_order():
    rows, positive = problem(relu_features, 4, n=120)
    others = np.full((500, rows.shape[1]), np.nan, dtype=np.float16)
    slots = np.random.default_rng(1).permutation(500)[:120]
    others[slots] = rows
    weights, offset = train(others, positive, slots)
    straight, straight_offset = train(rows, positive)
    assert weights.tobytes() == straight.tobytes()
    assert offset == straight_offset
    np.testing.assert_array_equal(
        score_rows(stored(others), slots, weights, offset),
        score_rows(stored(rows), np.arange(120), weights, offset),
    )


@pytest.mark.parametrize("make", [normal_features, relu_features])
def test_where_the_rows_lie_changes_nothing(make):
    rows, positive = problem(make, 6, dimension=333)
    slots = np.arange(len(rows))
    results = set()
    for shift in range(0, 64, 7):
        store = stored(rows)
        moved = np.zeros(len(store.words) + 64, dtype=np.uint16)[shift : shift + len(store.words)]
        moved[:] = store.words
        store.words = moved
        options = {"c": C, "positive_weight": WEIGHT, "bias": BIAS, "tolerance": 1e-3, "seed": 0}
        weights, offset = solve(store, slots, positive, np.zeros(len(rows)), **options)
        scores = score_rows(store, slots, weights, offset)
        results.add((weights.tobytes(), offset, scores.tobytes()))
    assert len(results) == 1


def test_only_positives_or_only_zeros():
    rows = np.zeros((3, 4), dtype=np.float16)
    # Three positives at the origin, the constant alone: min of b^2 / 2 + .006 * max(0, 1 - 10 b) is at b = .06.
    weights, offset = train(rows, np.ones(3, dtype=bool))
    np.testing.assert_array_equal(weights, np.zeros(4))
    assert offset == pytest.approx(0.6, abs=1e-3)


def test_an_svm_that_does_not_converge_is_warned_of(capsys):
    rows, positive = problem(normal_features, 0)
    train(rows, positive, c=100.0, passes=2)
    assert "an SVM of 240 examples was solved only to" in capsys.readouterr().err


def test_scores_equal_numpys():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 333)).astype(np.float16)
    weights = rng.normal(size=333).astype(np.float32)
    slots = rng.integers(50, size=80)
    expected = rows[slots].astype(np.float64) @ weights + 0.25
    scores = score_rows(stored(rows), slots, weights, 0.25)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert score_rows(stored(rows), np.empty(0, dtype=np.int64), weights, 0.25).shape == (0,)


def sparse_row(rng, dimension, density):
    row = rng.normal(size=dimension) * (rng.random(dimension) < density)
    return row.astype(np.float16).astype(np.float32)


def opened(packed, dimension):
    """The halves and their places, as the kernels take them."""
    words = mask_words(dimension)
    places = np.empty(dimension + 8, dtype=np.uint32)
    positions(packed[:words], places)
    return packed[words:], places


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
