import numpy as np
import pytest
import torch

from sppnet_cli.features.layers import Layer
from sppnet_cli.learning import shortcuts
from sppnet_cli.learning.shortcuts import train_cascade, train_shortcuts
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import PAPER

BOX = [[0, 0, 29, 29]]


def made_up(windows_of, images=12, windows=60, dimension=30, seed=0):
    """Images whose windows 0 to 4 overlap the object, and features `(windows, dimension)` of each."""
    rng = np.random.default_rng(seed)
    near = [[k, 0, 29 + k, 29] for k in range(5)]
    far = [[100 + k, 0, 120 + k, 20] for k in range(windows - 5)]
    features = rng.normal(size=(images, windows, dimension)).astype(np.float32)
    features[:, :5, 0] += 4
    return [windows_of(near + far, BOX, size=(50, 300), with_truth=False) for _ in range(images)], features


def guess(svms, features):
    return svms.scale * features @ svms.weights.T + svms.bias


def head_of(dimension=30, hidden=9):
    torch.manual_seed(0)
    return Head(dimension, hidden, 2, 0.5).eval()


def train(source, score, layer="fc6", seed=0):
    return train_shortcuts(
        source, Layer(layer, head_of(source.extractor.network.pooled_size)), score, PAPER, seed=seed
    )


def test_a_linear_score_is_found(source_of, windows_of):
    images, features = made_up(windows_of)
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(3, 30)) / 30, np.array([0.5, 0.0, -0.5])
    source = source_of(images, features)
    found = train(source, lambda p: (p.numpy() @ weights.T + bias).astype(np.float32)).cascade
    assert found.weights.shape == (3, 30)
    assert found.weights.dtype == found.bias.dtype == np.float32
    expected = features.reshape(-1, 30) @ weights.T + bias
    error = guess(found, features.reshape(-1, 30)) - expected
    assert np.square(error).mean() < 0.01 * expected.var()
    norms = np.linalg.norm(features, axis=2)
    assert found.scale == pytest.approx(20 / norms.mean(), rel=0.05)


def test_positives_of_unseen_images_come_first(source_of, windows_of):
    images, features = made_up(windows_of)
    source = source_of(images, features)

    def score(pooled):
        """Not linear: steep where the object's feature is, flat elsewhere; the last class never fires."""
        of_class = torch.tanh(2 * (pooled[:, 0] - 2)).numpy()
        return np.stack([of_class, -np.ones_like(of_class), np.full_like(of_class, -np.inf)], axis=1)

    found = train(source, score).cascade
    assert np.isfinite(found.weights).all()
    assert np.isfinite(found.bias).all()
    unseen = made_up(windows_of, seed=5)[1]
    for each in unseen:
        best = np.argsort(-guess(found, each).max(axis=1))[:15]  # a quarter
        assert set(range(5)) <= set(best.tolist())


def test_what_is_sampled_of_an_image(source_of, windows_of, monkeypatch):
    images, features = made_up(windows_of, images=1, windows=90)
    features[0, :, 1] = np.arange(90)
    monkeypatch.setattr(shortcuts, "_CANDIDATES", 50)
    source = source_of(images, features)
    count = 30
    taken = shortcuts._samples(
        source, lambda p: p.numpy()[:, [1, 2]] * [1, 0.01], 0, count, np.random.default_rng(0)
    )
    candidates = source.calls[0][1]
    assert len(candidates) == 50
    assert len(set(candidates.tolist())) == 50
    assert {0, 1, 2, 3, 4} <= set(candidates.tolist())
    rows = taken.vectors[:, 1].astype(int).tolist()
    assert len(rows) == len(set(rows)) == count
    assert set(rows[:5]) == {0, 1, 2, 3, 4}  # that overlap the object by half
    best = sorted((set(candidates.tolist()) - {0, 1, 2, 3, 4}), reverse=True)[:10]
    assert rows[5:15] == best
    np.testing.assert_array_equal(taken.scores[:, 0], rows)


def test_few_images_and_windows(source_of, windows_of):
    images = [windows_of([[0, 0, 9, 9]]), windows_of()]
    features = [np.ones((1, 4), np.float32), np.empty((0, 4), np.float32)]
    found = train(source_of(images, features), lambda p: np.full((len(p), 2), 0.25, np.float32), "fc7")
    np.testing.assert_allclose(guess(found.cascade, np.ones((1, 4))), [[0.25, 0.25]], atol=1e-6)
    for axes, mean in found.axes.values():
        torch.testing.assert_close(axes.T @ axes, torch.eye(4))
        assert mean.isfinite().all()


def test_the_penalty_is_chosen_on_images_held_out():
    # The features of an image differ by noise alone: within an image any penalty fits, across images the largest.
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(10), 4)
    vectors = rng.normal(size=(10, 50)).astype(np.float32)[image]
    scores = rng.normal(size=(10, 1)).astype(np.float32)[image]
    found = train_cascade(vectors.copy(), scores, image, PAPER)
    shrunk = np.square(guess(found, vectors) - scores.mean()).sum() / np.square(scores - scores.mean()).sum()
    assert shrunk < 0.5
    each_its_own = train_cascade(vectors.copy(), scores, np.arange(40), PAPER)
    assert np.square(guess(each_its_own, vectors) - scores).mean() < 0.05 * scores.var()


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_the_axes_are_of_the_layers_outputs_before_the_relu(source_of, windows_of, layer):
    images, features = made_up(windows_of)  # all of them are sampled
    found = train(source_of(images, features), lambda p: p.numpy()[:, :2], layer)
    head = head_of()
    x = torch.from_numpy(features.reshape(-1, 30))
    with torch.no_grad():
        outputs = {"fc6": head.fc6(0.5 * x)}
        if layer == "fc7":
            outputs["fc7"] = head.fc7(outputs["fc6"].relu())
    assert found.axes.keys() == outputs.keys()
    for name, (axes, mean) in found.axes.items():
        expected = principal_axes(outputs[name])
        torch.testing.assert_close(mean, expected.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(axes @ axes.T, expected.axes @ expected.axes.T, rtol=1e-3, atol=1e-4)


def test_rcnn_has_axes_alone_and_the_same_as_if_it_had_a_cascade(source_of, windows_of):
    images, features = made_up(windows_of)

    def of(method):
        return train(source_of(images, features, method=method), lambda p: p.numpy()[:, :2], "fc7")

    rcnn, spp = of("rcnn"), of("spp")
    assert rcnn.cascade is None
    assert spp.cascade is not None
    for name in ("fc6", "fc7"):
        assert torch.equal(rcnn.axes[name].axes, spp.axes[name].axes)
        assert torch.equal(rcnn.axes[name].mean, spp.axes[name].mean)


def test_the_seed_decides(source_of, windows_of, monkeypatch):
    monkeypatch.setattr(shortcuts, "_SAMPLES", 12 * 30)
    images, features = made_up(windows_of)
    source = source_of(images, features)

    def of_seed(seed):
        found = train(source, lambda p: p.numpy()[:, :2] ** 2, seed=seed)
        return found.cascade.weights, found.axes["fc6"].axes.numpy(), found.axes["fc6"].mean.numpy()

    for one, again, other in zip(of_seed(0), of_seed(0), of_seed(1), strict=True):
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
