import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet_cli.data.imagenet import ImageFolder, load_image_folder
from sppnet_cli.errors import SppnetError
from sppnet_cli.learning import pretrain as module
from sppnet_cli.learning.pretrain import Crops, Recipe, learning_rate, load_short_side, pretrain
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

RECIPE = Recipe(
    sizes=(224,), epochs=1, batch=4, rate=0.02, schedule="one-cycle", drops=(), init="he", clip=5.0
)


def address_image(height, width):
    """Every pixel says where it is: red x mod 256, green y, blue x // 256."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256], axis=2).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def wide(tmp_path):
    """One image of 256 x 320 pixels that gives the place of each of them."""
    path = write(tmp_path / "a" / "0.png", address_image(256, 320))
    return ImageFolder((path,), np.array([0]), ("a",))


def places(crops, epochs):
    """(top, left, flipped) of the crops of image 0."""
    found = []
    for epoch in range(epochs):
        crop, label = crops[epoch, 0]
        assert crop.shape == (3, 224, 224)
        assert crop.dtype == torch.uint8
        assert label == 0
        rows = crop.permute(1, 2, 0).numpy().astype(int)
        flipped = bool(rows[0, 0, 0] + 256 * rows[0, 0, 2] > rows[0, 1, 0] + 256 * rows[0, 1, 2])
        first = rows[0, -1] if flipped else rows[0, 0]
        top, left = int(first[1]), int(first[0] + 256 * first[2])
        expected = address_image(256, 320)[top : top + 224, left : left + 224]
        np.testing.assert_array_equal(rows, expected[:, ::-1] if flipped else expected)
        found.append((top, left, flipped))
    return found


def test_crops_are_the_centre_and_the_corners_of_the_entire_image(wide):
    found = places(Crops(wide, seed=0), 200)
    corners = [(16, 48), (0, 0), (0, 96), (32, 0), (32, 96)]
    counts = {(*corner, flip): found.count((*corner, flip)) for corner in corners for flip in (False, True)}
    assert sum(counts.values()) == 200
    # 20 each on average, give or take 4.2.
    assert min(counts.values()) > 3
    assert max(counts.values()) < 37


def test_a_tall_image(tmp_path):
    path = write(tmp_path / "0.png", address_image(256, 320).transpose(1, 0, 2))
    crops = Crops(ImageFolder((path,), np.array([0]), ("a",)), seed=0)
    tops = {int(crops[epoch, 0][0][0, 0, 0]) for epoch in range(40)}  # red counts rows here
    assert tops == {0, 48, 96}


def test_the_short_side_becomes_256(tmp_path):
    path = write(tmp_path / "0.png", np.full((100, 333, 3), 77, dtype=np.uint8))
    image = load_short_side(path)
    assert image.shape == (256, 853, 3)  # ceil(333 * 2.56) = ceil(852.48)
    assert (image == 77).all()
    assert load_short_side(write(tmp_path / "1.png", address_image(512, 300))).shape == (437, 256, 3)


def test_a_crop_depends_on_seed_epoch_and_index_alone(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    paths = [
        write(tmp_path / f"{k}.png", rng.integers(0, 256, (256, 300, 3), dtype=np.uint8)) for k in range(6)
    ]
    folder = ImageFolder(tuple(paths), np.arange(6), tuple("abcdef"))
    crops = Crops(folder, seed=3)
    items = [(epoch, index) for epoch in range(3) for index in range(6)]
    straight = {item: crops[item][0] for item in items}
    monkeypatch.setattr(module, "_IN_MEMORY_PIXELS", 0)
    from_disk = Crops(folder, seed=3)
    assert crops.in_memory
    assert not from_disk.in_memory
    assert all(torch.equal(from_disk[item][0], straight[item]) for item in reversed(items))
    assert [from_disk[0, index][1] for index in range(6)] == list(range(6))
    other = Crops(folder, seed=4)
    assert any(not torch.equal(other[item][0], straight[item]) for item in items)
    assert any(not torch.equal(straight[0, index], straight[1, index]) for index in range(6))


def test_the_rate_falls_in_steps():
    recipe = replace(RECIPE, schedule="steps", rate=0.01, drops=(40, 58), epochs=70)
    rates = [
        learning_rate(recipe, epoch * 10 + batch, 10) for epoch in (0, 39, 40, 57, 58, 69) for batch in (0, 9)
    ]
    np.testing.assert_allclose(rates, np.repeat([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], 2))


def test_the_rate_rises_and_falls_in_one_cycle():
    recipe = replace(RECIPE, epochs=10, rate=0.02)
    rates = np.array([learning_rate(recipe, batch, 100) for batch in range(1000)])
    assert rates[0] == pytest.approx(0.02 / 25)
    assert rates.argmax() == 300
    assert rates[300] == pytest.approx(0.02, rel=2e-3)
    assert (np.diff(rates[:301]) > 0).all()
    np.testing.assert_allclose(np.diff(rates[:300]), np.diff(rates[:300])[0])
    assert (np.diff(rates[300:]) < 0).all()
    assert rates[650] == pytest.approx(0.01, rel=3e-3)
    assert 0 < rates[-1] < 0.02 / 500


@pytest.fixture
def toy(tmp_path):
    """16 images: noise that is red in one class and blue in the other."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "blue")):
        for k in range(8):
            image = rng.integers(0, 100, (64, 64, 3))
            image[..., 2 * label] += 120
            write(tmp_path / "toy" / name / f"{k}.png", image.astype(np.uint8))
    return load_image_folder(tmp_path / "toy")


def network(levels=(1, 2, 3, 6)):
    return SPPNet(NetworkSpec("zf5", 0.0625, levels, fc=64, classes=2))


def train(toy, out, recipe, seed=0):
    net = network()
    pretrain(net, toy, recipe, seed=seed, device="cpu", workers=0, out=out)
    return net


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_colours_are_learnt(toy, tmp_path):
    recipe = replace(RECIPE, sizes=(224, 180), epochs=8, rate=0.01)
    net = train(toy, tmp_path, recipe)
    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert [line["size"] for line in lines] == [224, 180] * 4
    assert lines[-1]["loss"] < lines[0]["loss"] / 3
    assert lines[-1]["rate"] == pytest.approx(learning_rate(recipe, 31, 4))
    assert not net.training
    images = torch.stack([Crops(toy, 9)[0, index][0] for index in range(16)])
    with torch.inference_mode():
        assert net(images).argmax(1).tolist() == toy.labels.tolist()


def test_the_sizes_reach_the_network(toy, tmp_path, monkeypatch):
    seen = []
    net = network()
    net.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    pretrain(
        net,
        toy,
        replace(RECIPE, sizes=(180, 224), epochs=2, batch=8),
        seed=0,
        device="cpu",
        workers=0,
        out=tmp_path,
    )
    assert seen == [(8, 3, 180, 180)] * 2 + [(8, 3, 224, 224)] * 2


def test_every_image_is_seen_once_an_epoch_and_all_views_change(toy, tmp_path, monkeypatch):
    drawn = []
    get = Crops.__getitem__
    monkeypatch.setattr(Crops, "__getitem__", lambda self, item: (drawn.append(item), get(self, item))[1])
    train(toy, tmp_path, replace(RECIPE, epochs=2, batch=8))
    assert sorted(drawn[:16]) == [(0, index) for index in range(16)]
    assert sorted(drawn[16:]) == [(1, index) for index in range(16)]
    assert [i for _, i in drawn[:16]] != [i for _, i in drawn[16:]]
    drawn.clear()
    train(toy, tmp_path, replace(RECIPE, batch=6))
    assert len(set(drawn)) == len(drawn) == 12  # an incomplete batch is left out


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_the_same_seed_gives_the_same_weights(toy, tmp_path):
    first, second, other = (train(toy, tmp_path, RECIPE, seed) for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)
    assert len(metrics(tmp_path)) == 1  # of the last call


def test_divergence_ends_the_run(toy, tmp_path):
    with pytest.raises(SppnetError, match=r"diverged.*lower the learning rate"):
        train(toy, tmp_path, replace(RECIPE, rate=1e8, clip=None, epochs=2))


def test_fewer_images_than_a_batch(toy, tmp_path):
    with pytest.raises(SppnetError, match="16 training images are less than a batch of 17"):
        train(toy, tmp_path, replace(RECIPE, batch=17))


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_one_step_by_hand(toy, tmp_path, clip):
    """v = g + .1 w and w -= rate v; biases: no decay, twice the rate; gradients of norm `clip` at most."""
    net, batches = network(), []
    net.head.dropout.p = 0.0
    net.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    recipe = replace(RECIPE, batch=16, rate=0.01, schedule="steps", init="paper", clip=clip, weight_decay=0.1)
    pretrain(net, toy, recipe, seed=0, device="cpu", workers=0, out=tmp_path)
    expected = network().train()
    expected.head.dropout.p = 0.0
    torch.manual_seed(0)
    expected.initialise("paper")
    order = np.random.default_rng([0, 0]).permutation(16)
    torch.testing.assert_close(batches[0], torch.stack([Crops(toy, 0)[0, i][0] for i in order]).float())
    labels = torch.from_numpy(toy.labels[order])
    (-expected(batches[0]).log_softmax(1)[range(16), labels].mean()).backward()
    norm = torch.stack([p.grad.norm() for p in expected.parameters()]).norm()
    shrink = 1 if clip is None else min(1, clip / norm)
    for name, before in expected.named_parameters():
        rate, decay = (0.01, 0.1) if name.endswith("weight") else (0.02, 0.0)
        after = before - rate * (shrink * before.grad + decay * before)
        torch.testing.assert_close(net.get_parameter(name), after, rtol=1e-4, atol=1e-6)
