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


def train(source, layer="fc6", seed=0):
    return train_shortcuts(
        source, Layer(layer, head_of(source.extractor.network.pooled_size)), PAPER, seed=seed
    )


def test_windows_on_objects_of_unseen_images_come_first(source_of, windows_of):
    images, features = made_up(windows_of)
    found = train(source_of(images, features)).cascade
    assert found.weights.shape == (3, 30)
    assert found.weights.dtype == found.bias.dtype == np.float32
    norms = np.linalg.norm(features, axis=2)
    assert found.scale == pytest.approx(20 / norms.mean(), rel=0.05)
    for each in made_up(windows_of, seed=5)[1]:
        promise = guess(found, each)
        assert promise[:5, 0].mean() > 0.3 > promise[5:, 0].mean()
        np.testing.assert_allclose(promise[:, 1:], 0, atol=1e-6)  # classes that no image shows
        assert set(range(5)) <= set(np.argsort(-promise.max(axis=1))[:15].tolist())  # a quarter


def test_what_is_sampled_of_an_image(source_of, windows_of):
    objects = [[k, 0, 29 + k, 29] for k in range(15)]  # IoU .5 and less from the 10th on
    parts = [[20 + k % 5, 0, 49 + k % 5, 29] for k in range(15)]
    far = [[100 + k, 0, 120 + k, 20] for k in range(40)]
    image = windows_of(objects + parts + far, BOX, labels=[2], size=(50, 300), with_truth=False)
    overlap = image.iou[:, 0]
    source = source_of([image], np.arange(70.0)[None, :, None] * np.ones(4))
    for count in (30, 60, 100):
        taken = shortcuts._samples(source, 0, count, np.random.default_rng(0))
        rows = taken.vectors[:, 0].astype(int)
        assert len(rows) == len(set(rows.tolist())) == min(count, 70)
        np.testing.assert_array_equal(taken.shown, (overlap[rows] >= 0.5)[:, None] & [False, False, True])
    rows = shortcuts._samples(source, 0, 30, np.random.default_rng(0)).vectors[:, 0].astype(int)
    assert (overlap[rows[:10]] >= 0.5).all()
    assert ((overlap[rows[10:20]] >= 0.1) & (overlap[rows[10:20]] < 0.5)).all()
    assert (overlap[rows[20:]] < 0.1).any()


def test_few_images_and_windows(source_of, windows_of):
    images = [windows_of([[0, 0, 9, 9]]), windows_of()]
    features = [np.ones((1, 4), np.float32), np.empty((0, 4), np.float32)]
    found = train(source_of(images, features), "fc7")
    np.testing.assert_allclose(guess(found.cascade, np.ones((1, 4))), [[0, 0, 0]], atol=1e-6)
    for axes, mean in found.axes.values():
        torch.testing.assert_close(axes.T @ axes, torch.eye(4))
        assert mean.isfinite().all()


def test_the_penalty_is_chosen_on_images_held_out():
    # The features of an image differ by noise alone: within an image any penalty fits, across images the largest.
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(60), 4)
    vectors = rng.normal(size=(60, 65)).astype(np.float32)[image]
    shown = (rng.random((60, 1)) < 0.5)[image]
    found = train_cascade(vectors.copy(), shown, image, PAPER)
    assert guess(found, vectors).var() < 0.5 * shown.var()
    assert found.weights.flags.c_contiguous  # as safetensors want them
    each_its_own = train_cascade(vectors.copy(), shown, np.arange(240), PAPER)
    assert np.square(guess(each_its_own, vectors) - shown).mean() < 0.05 * shown.var()


@pytest.mark.parametrize(("samples", "features"), [(60, 7), (20, 50)])
def test_weights_are_those_of_ridge_regression(monkeypatch, samples, features):
    """In whichever system is smaller; the penalty is in units of a sample's mean squared norm, here 1."""
    monkeypatch.setattr(shortcuts, "_PENALTIES", (0.5,))
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(samples, features)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = rng.normal(size=(samples, 3))
    found = shortcuts._ridge(vectors, targets, np.arange(samples) % 5 == 4)
    system = vectors.T @ vectors + 0.5 * np.eye(features)
    np.testing.assert_allclose(found, np.linalg.solve(system, vectors.T @ targets), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_the_axes_are_of_the_layers_outputs_before_the_relu(source_of, windows_of, layer):
    images, features = made_up(windows_of)  # all of them are sampled
    found = train(source_of(images, features), layer)
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
        return train(source_of(images, features, method=method), "fc7")

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
        found = train(source, seed=seed)
        return found.cascade.weights, found.axes["fc6"].axes.numpy(), found.axes["fc6"].mean.numpy()

    for one, again, other in zip(of_seed(0), of_seed(0), of_seed(1), strict=True):
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
