from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.layers import Layer
from sppnet_cli.learning import svm
from sppnet_cli.learning.negatives import negatives
from sppnet_cli.learning.svm import feature_scale, train_svms
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import PAPER, RELEASED
from sppnet_cli.runs import CHECKPOINT

POOL5 = Layer("pool5")
SIZE = (400, 500)


def random_boxes(rng, n):
    corner = rng.integers(0, 250, (n, 2))
    return np.hstack([corner, corner + rng.integers(25, 140, (n, 2))]).tolist()


def random_source(source_of, windows_of, seed, protocol, images=6, windows=50, dimension=24):
    """Windows whose features tell, with noise, how much they overlap an object of each of three classes."""
    rng = np.random.default_rng(seed)
    own, features = [], []
    for _ in range(images):
        truth = random_boxes(rng, 2)
        jitter = (np.array(truth * 5) + rng.integers(-25, 26, (10, 4))).clip(0, 399)
        jitter[:, 2:] = np.maximum(jitter[:, 2:], jitter[:, :2] + 10)
        labels = rng.integers(3, size=2)
        image = windows_of([*jitter.tolist(), *random_boxes(rng, windows - 10)], truth, labels)
        rows = np.maximum(rng.normal(size=(len(image.boxes), dimension)), 0)
        for truth_index, label in enumerate(labels):
            rows[:, label] += 3 * image.iou[:, truth_index]
        own.append(image)
        features.append(rows)
    return source_of(own, features, protocol)


@pytest.fixture
def mine(tmp_path):
    """`train_svms` on pool5."""

    def run(source, protocol=PAPER, *, seed=0, max_gib=0.01):
        return train_svms(source, POOL5, protocol, seed=seed, max_gib=max_gib, folder=tmp_path)

    return run


@pytest.fixture
def record(monkeypatch, rows_of):
    """The training sets that `train_svms` solves, in order: (rows of positives, rows of negatives)."""
    sets = []

    def spy(store, slots, positive, alpha, **options):
        sets.append((rows_of(store, slots[positive]), rows_of(store, slots[~positive])))
        return solve(store, slots, positive, alpha, **options)

    solve = svm.solve
    monkeypatch.setattr(svm, "solve", spy)
    return sets


def as_set(rows):
    return {row.tobytes() for row in rows}


def released_cells(box):
    scale = min(
        (480, 576, 688, 874, 1200),
        key=lambda s: abs(
            s - np.floor(13 * 16 * 400 / np.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1)) + 0.5)
        ),
    )
    scaled = np.array(box) * (scale - 1) / 399
    first = np.maximum(np.floor((scaled[:2] - 5.5) / 16), 0)
    return (scale, *first, *np.ceil((scaled[2:] - 34.5) / 16))


def negative_rows(image, label, protocol, iou_of):
    """Rows of an image that are negatives of a class, in loops."""
    truth = image.truth.boxes[image.truth.labels == label].tolist()
    kept = []
    for row, box in enumerate(image.boxes.tolist()):
        overlap = max((iou_of(box, t) for t in truth), default=0)
        if overlap > 0.3 or (overlap == 0.3 and protocol.name == "released"):
            continue
        others = [image.boxes[k].tolist() for k in kept]
        if protocol.name == "paper":
            duplicate = any(iou_of(box, other) > 0.7 for other in others)
        else:
            duplicate = any(released_cells(box) == released_cells(other) for other in others)
        if not duplicate:
            kept.append(row)
    return kept


def liblinear(positives, negatives):
    x = np.array([*positives, *negatives], dtype=np.float64)
    y = np.array([1] * len(positives) + [-1] * len(negatives))
    options = {"loss": "hinge", "dual": True, "intercept_scaling": 10, "class_weight": {1: 2, -1: 1}}
    model = LinearSVC(C=1e-3, tol=1e-7, max_iter=1_000_000, random_state=0, **options).fit(x, y)
    return model.coef_[0], model.intercept_[0]


def mined(source, scale, protocol, limit, iou_of):
    """Mining for each class by itself: weights, bias, and the negatives of every training."""
    features = [(np.asarray(rows, dtype=np.float32) * np.float32(scale)) for rows in source.features]
    results = []
    for label in range(3):
        positives = [
            features[i][row].astype(np.float16)
            for i, image in enumerate(source.images)
            for row in np.flatnonzero(image.truth.labels == label)
        ]
        cache, trainings, added = [], [], 0
        weights, bias = None, None
        for i, image in enumerate(source.images):
            for row in negative_rows(image, label, protocol, iou_of):
                if i == 0 or features[i][row] @ weights + bias > -1.0001:
                    cache.append(features[i][row].astype(np.float16))
                    added += 1
            if i == 0 or added > limit or i == len(source.images) - 1:
                weights, bias = liblinear(positives, cache)
                trainings.append(as_set(cache))
                cache = [row for row in cache if not row @ weights + bias < -1.2]
                added = 0
        results.append((weights, bias, trainings))
    return results


@pytest.mark.parametrize(
    ("protocol", "seed", "limit"),
    [(PAPER, 0, 10), (PAPER, 1, 5), (PAPER, 2, 2000), (RELEASED, 3, 10), (RELEASED, 4, 2000)],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_mining_agrees_with_a_literal_one(source_of, windows_of, iou_of, mine, record, protocol, seed, limit):
    exact = replace(
        protocol, svm_retrain_after=limit, svm_tolerance=1e-5
    )  # the selections are compared exactly
    source = random_source(source_of, windows_of, seed, exact)
    trained = mine(source, exact)
    mean_norm = np.mean([np.linalg.norm(row) for rows in source.features for row in rows])
    assert trained.scale == pytest.approx(20 / mean_norm, rel=1e-6)
    expected = mined(source, trained.scale, protocol, limit, iou_of)
    for label, (weights, bias, trainings) in enumerate(expected):
        own = [
            as_set(negative)
            for positive, negative in record
            if as_set(positive) == as_set(_positives(source, trained, label))
        ]
        assert own == trainings
        scores = np.concatenate(source.features) * trained.scale @ (trained.weights[label] - weights)
        assert np.abs(scores + trained.bias[label] - bias).max() < 0.005
        assert (len(trainings) > 2) == (limit < 2000)


def _positives(source, trained, label):
    rows = [
        np.asarray(features, dtype=np.float32)[: image.n_truth][image.truth.labels == label]
        for image, features in zip(source.images, source.features, strict=True)
    ]
    return (np.concatenate(rows) * np.float32(trained.scale)).astype(np.float16)


def hand_made(source_of, windows_of, protocol=PAPER, difficult=None, images=3):
    """One object of class 0 in the first image (feature 4, 0), far-off negatives that differ in (0, y)."""
    apart = [[50 * k, 200, 50 * k + 39, 239] for k in range(6)]
    own = [windows_of(apart, [[0, 0, 99, 99]], [0], difficult)]
    own += [windows_of(apart) for _ in range(images - 1)]
    features = [np.array([[0, k + 10 * i + 1] for k in range(6)]) for i in range(images)]
    features[0] = np.concatenate([[[4, 0]], features[0]])
    return source_of(own, features, protocol, class_names=("a", "b"))


def test_difficult_objects_are_positives(source_of, windows_of, mine, record):
    easy = mine(hand_made(source_of, windows_of))
    source = hand_made(source_of, windows_of, difficult=[True])
    difficult = mine(source)
    assert [len(positive) for positive, _ in record if len(positive)] == [1] * len(record)
    np.testing.assert_array_equal(difficult.weights, easy.weights)
    np.testing.assert_array_equal(difficult.bias, easy.bias)


def test_a_class_without_objects_never_fires(source_of, windows_of, mine):
    trained = mine(hand_made(source_of, windows_of))
    assert trained.weights.shape == (2, 2)
    assert trained.bias[1] == -np.inf
    assert np.isfinite(trained.bias[0])
    assert (np.full((3, 2), 1e6) @ trained.weights[1] + trained.bias[1] == -np.inf).all()


def test_no_objects_at_all(source_of, windows_of, mine):
    source = source_of([windows_of([[0, 0, 30, 30]])], [np.ones((1, 3))])
    with pytest.raises(DataError, match=r"^made: no object in the training images"):
        mine(source)


@pytest.fixture
def scripted(monkeypatch, rows_of):
    """Every training gives the weights (0, 1), so that a negative's score is its second feature plus a bias.

    `scripted(bias, ...)`: of the successive trainings; the last one stays.  Returns their sets of negatives' scores.
    """

    def script(*bias):
        sets = []

        def solve(store, slots, positive, alpha, **options):
            sets.append(sorted(rows_of(store, slots[~positive])[:, 1].astype(float).round(3).tolist()))
            return np.array([0, 1], dtype=np.float32), bias[min(len(sets), len(bias)) - 1]

        monkeypatch.setattr(svm, "solve", solve)
        monkeypatch.setattr(svm, "feature_scale", lambda *_: 1.0)
        return sets

    return script


def with_scores(source_of, windows_of, *scores, protocol=PAPER):
    """Images whose negatives have these second features; an object of class 0 in the last image."""
    apart = [[50 * k, 200, 50 * k + 39, 239] for k in range(10)]
    own = [windows_of(apart[: len(s)]) for s in scores]
    own[-1] = windows_of(apart[: len(scores[-1])], [[0, 0, 99, 99]], [0])
    features = [np.array([[0.0, y] for y in s]).reshape(-1, 2) for s in scores]
    features[-1] = np.concatenate([[[1.0, 50.0]], features[-1]])
    return source_of(own, features, protocol, class_names=("a",))


def test_easy_negatives_go_after_every_training(source_of, windows_of, mine, scripted):
    sets = scripted(0.0)
    source = with_scores(source_of, windows_of, [-1.1, -1.19, -1.21, 3], [-0.5])
    mine(source)
    assert sets == [[-1.21, -1.19, -1.1, 3], [-1.19, -1.1, -0.5, 3]]


def test_hard_negatives_score_above_minus_one(source_of, windows_of, mine, scripted):
    sets = scripted(-0.5)
    # -1.0001 less the bias is -.5001.
    source = with_scores(source_of, windows_of, [3], [-0.499, -0.5015], [-0.49])
    mine(source)
    assert sets == [[3], [-0.499, -0.49, 3]]


def test_retraining_takes_more_than_the_limit(source_of, windows_of, mine, scripted):
    sets = scripted(0.0)
    protocol = replace(PAPER, svm_retrain_after=3)
    source = with_scores(source_of, windows_of, [1, 1, 1, 1, 1], [2], [3, 3], [4], [5], [6])
    mine(source, protocol)
    first = [1.0] * 5
    # Three additions after the third image are not more than three; the fourth is, and the rest ends the pass.
    assert sets == [first, [*first, 2, 3, 3, 4], [*first, 2, 3, 3, 4, 5, 6]]
    assert PAPER.svm_retrain_after == RELEASED.svm_retrain_after == 2000


def words(positives, negatives):
    """GiB for so many rows of `with_scores`: a word of mask, and two numbers or one."""
    return (3 * positives + 2 * negatives) * 2 / 2**30


def test_the_store_forgets_evicted_rows(source_of, windows_of, mine, scripted):
    # Every image's ten negatives are hard, and easy once trained on: 11 rows at a time are enough for 61.
    source = with_scores(source_of, windows_of, *[[5.0 * k] * 10 for k in range(1, 7)])
    protocol = replace(PAPER, svm_retrain_after=1)
    sets = scripted(*[-5.0 * k - 3 for k in range(1, 7)])
    mine(source, protocol, max_gib=words(1, 10))
    assert sets == [[5.0 * k] * 10 for k in range(1, 7)]
    with pytest.raises(SppnetError, match="--max-memory"):
        mine(source, protocol, max_gib=words(1, 9))


def test_a_full_store_trains_all_classes_early(source_of, windows_of, mine, scripted, capsys):
    source = with_scores(source_of, windows_of, *[[5.0 * k] * 10 for k in range(1, 7)])
    plenty = scripted(-8.0, 0.0)
    mine(source)
    assert plenty == [[5.0] * 10, [10.0] * 10 + [15.0] * 10 + [20.0] * 10 + [25.0] * 10 + [30.0] * 10]
    # Room for two images: the fourth and the sixth do not fit before a training has made the others easy.
    sets = scripted(-8.0, -18.0, -28.0, -33.0)
    mine(source, max_gib=words(1, 20))
    assert sets == [[5.0] * 10, [10.0] * 10 + [15.0] * 10, [20.0] * 10 + [25.0] * 10, [30.0] * 10]
    assert capsys.readouterr().err.count("trained early") == 1


def test_an_early_training_may_free_too_little(source_of, windows_of, mine, scripted):
    source = with_scores(source_of, windows_of, *[[5.0 * k] * 10 for k in range(1, 7)])
    sets = scripted(0.0)
    with pytest.raises(SppnetError, match=r"the SVM rows outgrow .* GiB; allow more with --max-memory"):
        mine(source, max_gib=words(1, 25))
    assert [len(negatives) for negatives in sets] == [10, 20]


def test_the_last_image_ends_with_a_training_of_every_class(source_of, windows_of, mine, scripted):
    source = with_scores(source_of, windows_of, [1, 2], [-3, -4])  # nothing hard in the last image
    sets = scripted(0.0)
    mine(source)
    assert sets == [[1, 2], [1, 2]]
    sets = scripted(0.0)
    mine(with_scores(source_of, windows_of, [1, 2]))
    assert sets == [[1, 2]]  # the only image is the first and the last


def cut_off(monkeypatch, at):
    """From now on mining is interrupted at the image `at`, None for never."""
    calls = []

    def spy(*arguments):
        calls.append(arguments)
        if len(calls) - 1 == at:
            raise KeyboardInterrupt
        return real(*arguments)

    real = negatives
    monkeypatch.setattr(svm, "negatives", spy)
    return calls


@pytest.mark.parametrize("cuts", [(0,), (3,), (5,), (1, 2, 1)])
def test_a_cut_off_run_goes_on_to_the_same_bytes(source_of, windows_of, mine, monkeypatch, tmp_path, cuts):
    protocol = replace(PAPER, svm_retrain_after=10)
    source = random_source(source_of, windows_of, 0, protocol, dimension=70)
    whole = mine(source, protocol, seed=3)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(svm, "SAVE_SECONDS", -1)  # at every image
    for cut in cuts:
        cut_off(monkeypatch, cut)
        with pytest.raises(KeyboardInterrupt):
            mine(source, protocol, seed=3)
        assert (tmp_path / CHECKPOINT).is_file()
    calls = cut_off(monkeypatch, None)
    again = mine(source, protocol, seed=3)
    assert len(calls) == 6 - sum(cuts)
    assert again.weights.tobytes() == whole.weights.tobytes()
    assert again.bias.tobytes() == whole.bias.tobytes()
    assert again.scale == whole.scale
    assert mine(source, protocol, seed=3).weights.tobytes() == whole.weights.tobytes()
    assert len(calls) == 6 - sum(cuts)  # all was saved, for what follows may be cut off too


def test_the_state_is_not_saved_all_the_time(source_of, windows_of, mine, monkeypatch, tmp_path):
    cut_off(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        mine(random_source(source_of, windows_of, 0, PAPER))
    assert not list(tmp_path.iterdir())
    assert svm.SAVE_SECONDS == 600


def test_a_broken_checkpoint(source_of, windows_of, mine, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint; remove it"):
        mine(random_source(source_of, windows_of, 0, PAPER))


def test_a_training_starts_from_the_last_solution(source_of, windows_of, mine, monkeypatch, rows_of):
    solve, known, warm = svm.solve, {}, []

    def spy(store, slots, positive, alpha, **options):
        own = rows_of(store, slots[positive]).tobytes()
        names = [(own, row.tobytes()) for row in rows_of(store, slots)]
        assert alpha.tolist() == [known.get(name, 0.0) for name in names]
        warm.append(np.count_nonzero(alpha))
        result = solve(store, slots, positive, alpha, **options)
        known.update(zip(names, alpha.tolist(), strict=True))
        return result

    monkeypatch.setattr(svm, "solve", spy)
    protocol = replace(PAPER, svm_retrain_after=10)
    mine(random_source(source_of, windows_of, 0, protocol), protocol)
    assert warm[:3] == [0, 0, 0]
    assert len(warm) > 6
    assert min(warm[3:]) > 0


def test_two_runs_give_the_same_bytes(source_of, windows_of, mine):
    protocol = replace(PAPER, svm_retrain_after=10)
    first, second = (
        mine(random_source(source_of, windows_of, 0, protocol), protocol, seed=3) for _ in range(2)
    )
    assert first.weights.tobytes() == second.weights.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()
    assert first.scale == second.scale


def test_the_number_of_threads_changes_nothing(source_of, windows_of, mine, torch_threads):
    protocol = replace(PAPER, svm_retrain_after=10)
    source = random_source(source_of, windows_of, 0, protocol, dimension=70)
    one = mine(source, protocol, seed=3)
    torch_threads(2)
    two = mine(source, protocol, seed=3)
    np.testing.assert_array_equal(one.weights, two.weights)
    np.testing.assert_array_equal(one.bias, two.bias)


def test_the_scale_is_20_over_the_mean_norm(source_of, windows_of, mine):
    image = windows_of([[0, 0, 9, 9]], [[0, 0, 19, 9]])
    source = source_of([image, image], [[[3, 4], [0, 1]], [[6, 8], [0, 0]]])
    assert feature_scale(source, POOL5, 20.0, seed=0) == pytest.approx(20 / 4)  # norms 5, 1, 10, 0
    assert mine(source).scale == pytest.approx(5)


def test_features_that_are_not_finite(source_of, windows_of):
    source = source_of([windows_of([[0, 0, 9, 9]])], [[[np.nan, 0]]])
    with pytest.raises(DataError, match="features of pool5 are not finite"):
        feature_scale(source, POOL5, 20.0, seed=0)


def test_no_windows_at_all_have_no_norm(source_of, windows_of):
    assert feature_scale(source_of([windows_of([])], [np.ones((0, 2))]), POOL5, 20.0, seed=0) == 1.0


def test_features_of_nothing_are_left_as_they_are(source_of, windows_of):
    source = source_of([windows_of([[0, 0, 9, 9]])], [[[0, 0]]])
    assert feature_scale(source, POOL5, 20.0, seed=0) == 1.0


def test_the_scale_is_the_layers(source_of, windows_of):
    head = Head(2, 2, 1)
    with torch.no_grad():
        head.fc6.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, -1.0]]))
        head.fc6.bias.copy_(torch.tensor([0.0, 5.0]))
    source = source_of([windows_of([[0, 0, 9, 9]])], [[[1, 1]]])
    assert feature_scale(source, Layer("fc6", head), 20.0, seed=0) == pytest.approx(20 / 5)  # (3, 4)


def test_200_random_windows_of_200_random_images(source_of, windows_of):
    image = windows_of([[k, 0, k + 9, 9] for k in range(300)])
    source = source_of([image] * 230, [np.eye(300, 4)] * 230)
    feature_scale(source, POOL5, 20.0, seed=0)
    pooled = {index: rows for index, rows, _, _ in source.calls}
    assert len(pooled) == len(source.calls) == 200
    assert all(len(set(rows.tolist())) == 200 for rows in pooled.values())
    assert len({tuple(rows) for rows in pooled.values()}) == 200
    assert max(pooled) > 200
    assert max(rows.max() for rows in pooled.values()) == 299


def _without_positives(state):
    state["classes"][0]["positives"] = 10**6


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(done=-1),
        lambda state: state.update(done=7),
        lambda state: state.update(scale=float("nan")),
        lambda state: state.pop("store"),
        lambda state: state["classes"].pop(),
        lambda state: state["classes"][0].update(weights=torch.zeros(3)),
        lambda state: state["classes"][0]["slots"].fill_(-1),
        lambda state: state["classes"][0]["alpha"].fill_(torch.nan),
        _without_positives,
        lambda state: state["store"]["words"].fill_(0),
        lambda state: state["store"]["stop"].fill_(10**9),
        lambda state: state["store"].pop("norms"),
    ],
)
def test_a_spoilt_checkpoint_is_named(source_of, windows_of, mine, monkeypatch, tmp_path, change):
    source = random_source(source_of, windows_of, 0, PAPER)
    monkeypatch.setattr(svm, "SAVE_SECONDS", -1)
    cut_off(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        mine(source)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    change(state)
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint; remove it"):
        mine(source)
