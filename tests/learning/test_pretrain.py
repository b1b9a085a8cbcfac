import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.learning import pretrain as module
from sppnet_cli.learning.crops import Crops
from sppnet_cli.learning.pretrain import Recipe, epoch_size, learning_rate, pretrain
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet

RECIPE = Recipe(sizes=(224,), epochs=1, batch=4, rate=0.02, schedule="one-cycle", init="he", clip=5.0)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def test_the_rate_falls_in_steps():
    recipe = replace(RECIPE, schedule="steps", rate=0.01, epochs=70)
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


def train(toy, out, recipe, seed=0, **settings):
    net = network()
    out.mkdir(parents=True, exist_ok=True)
    pretrain(net, toy, recipe, seed=seed, device="cpu", workers=0, out=out, **settings)
    return net


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_colours_are_learnt(toy, tmp_path):
    recipe = replace(RECIPE, sizes=(224, 180), epochs=8, rate=0.003)
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


def test_the_network_sees_images_minus_their_mean(toy, tmp_path):
    crops = Crops(toy, 0)
    net, given, seen = network(), [], []
    net.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    net.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    recipe = replace(RECIPE, sizes=(224, 180), epochs=2, batch=16)
    pretrain(net, toy, recipe, seed=0, device="cpu", workers=0, out=tmp_path)
    mean = crops.mean_image(0)
    assert torch.equal(net.mean_image, mean)
    assert torch.equal(load_file(tmp_path / "mean.safetensors")["mean"], mean)
    at_180 = torch.nn.functional.interpolate(mean[None], (180, 180), mode="bilinear")
    for pixels, x, own in zip(given, seen, (mean, at_180), strict=True):
        torch.testing.assert_close(x, pixels.flip(1) - own)


def test_the_mean_is_taken_once(toy, tmp_path, monkeypatch):
    train(toy, tmp_path, RECIPE)
    monkeypatch.delattr(Crops, "mean_image")
    train(toy, tmp_path, replace(RECIPE, epochs=2))


def test_a_net_of_another_convention_keeps_its_own(toy, tmp_path):
    net = SPPNet(NetworkSpec("zf5-frcnn", 0.0625, (6,), fc=16, classes=2))
    pretrain(net, toy, RECIPE, seed=0, device="cpu", workers=0, out=tmp_path)
    assert net.mean_image is None


def test_every_image_is_seen_once_an_epoch_and_all_views_change(toy, tmp_path, monkeypatch):
    drawn = []
    get = Crops.__getitem__
    monkeypatch.setattr(Crops, "__getitem__", lambda self, item: (drawn.append(item), get(self, item))[1])
    train(toy, tmp_path, replace(RECIPE, epochs=2, batch=8))
    assert sorted(drawn[:16]) == [(0, index) for index in range(16)]
    assert sorted(drawn[16:]) == [(1, index) for index in range(16)]
    assert [i for _, i in drawn[:16]] != [i for _, i in drawn[16:]]
    drawn.clear()
    train(toy, tmp_path / "another", replace(RECIPE, batch=6))
    assert len(set(drawn)) == len(drawn) == 12  # an incomplete batch is left out


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_the_same_seed_gives_the_same_weights(toy, tmp_path):
    first, second, other = (train(toy, tmp_path / name, RECIPE, int(name[0])) for name in ("1", "1b", "2"))
    assert same(first, second)
    assert not same(first, other)


def test_divergence_ends_the_run(toy, tmp_path):
    with pytest.raises(SppnetError, match=r"diverged.*lower the learning rate"):
        train(toy, tmp_path, replace(RECIPE, rate=1e8, clip=None, epochs=2))


def test_fewer_images_than_a_batch(toy, tmp_path):
    with pytest.raises(
        UsageError, match=r"16 training images are less than a batch of 17; take more .* or a smaller --batch"
    ):
        train(toy, tmp_path, replace(RECIPE, batch=17))


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_one_step_by_hand(toy, tmp_path, clip):
    """v = g + .1 w and w -= rate v; biases: twice the rate; gradients of norm `clip` at most."""
    net, batches = network(), []
    net.head.dropout.p = 0.0
    net.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    recipe = replace(RECIPE, batch=16, rate=0.01, schedule="steps", init="paper", clip=clip, weight_decay=0.1)
    recipe = replace(recipe, lighting="deviation")
    pretrain(net, toy, recipe, seed=0, device="cpu", workers=0, out=tmp_path)
    expected = network().train()
    expected.head.dropout.p = 0.0
    torch.manual_seed(0)
    expected.initialise("paper")
    order = np.random.default_rng([0, 0]).permutation(16)
    items = [Crops(toy, 0, "deviation")[0, i] for i in order]
    seen = torch.stack([crop.float() + shift[:, None, None] for crop, shift, *_ in items])
    torch.testing.assert_close(batches[0], seen)
    labels = torch.from_numpy(toy.labels[order])
    (-expected(batches[0]).log_softmax(1)[range(16), labels].mean()).backward()
    norm = torch.stack([p.grad.norm() for p in expected.parameters()]).norm()
    shrink = 1 if clip is None else min(1, clip / norm)
    for name, before in expected.named_parameters():
        rate = 0.01 if name.endswith("weight") else 0.02
        after = before - rate * (shrink * before.grad + 0.1 * before)
        torch.testing.assert_close(net.get_parameter(name), after, rtol=1e-4, atol=1e-6)


class Cut(BaseException):
    """A kill."""


@pytest.mark.parametrize("schedule", ["plateau", "steps", "one-cycle"])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(toy, tmp_path, monkeypatch, schedule):
    recipe = replace(RECIPE, sizes=(224, 180), epochs=4, batch=8, schedule=schedule)
    whole = train(toy, tmp_path / "whole", recipe)
    step = module.training_step
    for allowed in (3, 4, 100):  # cut off in the second and in the fourth epoch
        left = iter(range(allowed))

        def stop(*args, left=left, **settings):
            if next(left, None) is None:
                raise Cut
            return step(*args, **settings)

        monkeypatch.setattr(module, "training_step", stop)
        try:
            resumed = train(toy, tmp_path / "cut", recipe)
        except Cut:
            continue
    assert same(whole, resumed)
    plain = [
        [{k: v for k, v in line.items() if "second" not in k} for line in metrics(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert plain[0] == plain[1]
    assert len(plain[0]) == 4


def test_a_full_disk_leaves_the_last_checkpoint(toy, tmp_path, monkeypatch):
    recipe = replace(RECIPE, epochs=3, batch=8)
    whole = train(toy, tmp_path / "whole", recipe)
    save, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SppnetError, match=r"checkpoint.pt: cannot be written .*disk full"):
        train(toy, tmp_path / "full", recipe)
    left = sorted(path.name for path in (tmp_path / "full").iterdir())
    assert left == ["checkpoint.pt", "mean.safetensors", "metrics.jsonl"]
    assert same(whole, train(toy, tmp_path / "full", recipe))


def test_a_broken_checkpoint(toy, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(DataError, match=r"checkpoint.pt: broken checkpoint; remove it to start over"):
        train(toy, tmp_path, RECIPE)


def test_the_rate_falls_twice_when_the_error_stands(toy, tmp_path, monkeypatch):
    errors = iter([0.9, 0.8, *[0.7] * 20])
    monkeypatch.setattr(module.Trainer, "epoch", lambda *_: (1.0, next(errors)))
    train(toy, tmp_path, replace(RECIPE, schedule="plateau", rate=0.01, epochs=22))
    rates = [line["rate"] for line in metrics(tmp_path)]
    # The error stands from the fourth epoch on; the fifth time that it does so, the rate falls.
    np.testing.assert_allclose(rates, [0.01] * 8 + [0.001] * 5 + [0.0001] * 9)


def test_a_round_of_all_sizes_counts_once(toy, tmp_path, monkeypatch):
    errors = iter([0.5, 0.9] * 10)
    monkeypatch.setattr(module.Trainer, "epoch", lambda *_: (1.0, next(errors)))
    recipe = replace(RECIPE, sizes=(224, 180), schedule="plateau", rate=0.01, epochs=14)
    train(toy, tmp_path, recipe)
    rates = [line["rate"] for line in metrics(tmp_path)]
    np.testing.assert_allclose(rates, [0.01] * 12 + [0.001] * 2)


def test_a_size_is_drawn_from_the_range():
    recipe = replace(RECIPE, sizes=(180, 224), draw_size=True)
    sizes = [epoch_size(recipe, 0, epoch) for epoch in range(1000)]
    assert (min(sizes), max(sizes)) == (180, 224)
    assert np.mean(sizes) == pytest.approx(202, abs=2)
    assert sizes != [epoch_size(recipe, 1, epoch) for epoch in range(1000)]


def test_validation_is_noted_and_decides_nothing(toy, tmp_path):
    recipe = replace(RECIPE, epochs=6, rate=0.01)
    noted = train(toy, tmp_path / "a", recipe, validation=toy)
    assert same(noted, train(toy, tmp_path / "b", recipe))
    last = metrics(tmp_path / "a")[-1]
    pixels = torch.stack([crop for crop, _ in module.Centres(toy)])
    with torch.inference_mode():
        wrong = (noted(pixels).argmax(1).numpy() != toy.labels).mean()
    assert last["val_top1_error"] == pytest.approx(wrong)
    assert "val_top1_error" not in metrics(tmp_path / "b")[-1]


def test_of_a_large_validation_set_some_images_spread_over_it_suffice(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_VALIDATED", (2, 0.3))  # of 16 training images: every fourth of 16
    net = train(toy, tmp_path, RECIPE, validation=toy)
    pixels = torch.stack([module.Centres(toy)[k][0] for k in range(0, 16, 4)])
    with torch.inference_mode():
        wrong = (net(pixels).argmax(1).numpy() != toy.labels[::4]).mean()
    assert metrics(tmp_path)[-1]["val_top1_error"] == pytest.approx(wrong)


def test_mixed_precision_learns_too(toy, tmp_path):
    recipe = replace(RECIPE, epochs=6, rate=0.01, amp=True)
    net = train(toy, tmp_path, recipe)
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}
    lines = metrics(tmp_path)
    assert lines[-1]["train_top1_error"] < lines[0]["train_top1_error"]


def test_a_batch_that_does_not_divide(toy, tmp_path, monkeypatch):
    for name, value in {
        "WORLD_SIZE": 3,
        "RANK": 0,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match="a batch of 4 cannot be divided by 3 processes; change --batch"):
        train(toy, tmp_path, RECIPE)


def spoil(path, change):
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["network"]["trunk.conv1.weight"].fill_(torch.nan),
        lambda state: state["network"].pop("trunk.conv1.weight"),
        lambda state: state["network"].update({"trunk.conv1.weight": torch.zeros(3)}),
        lambda state: state.pop("optimizer"),
        lambda state: state["optimizer"]["param_groups"][0].update(momentum="much"),
        lambda state: state["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(7)),
        lambda state: state["plateau"].update(best="none"),
        lambda state: state.update(plateau=None),
        lambda state: state.update(epoch=-1),
        lambda state: state.update(epoch=3),
        lambda state: state.update(epoch=10**9),
    ],
)
def test_a_spoilt_checkpoint_is_never_a_result(toy, tmp_path, change):
    recipe = replace(RECIPE, batch=8, schedule="plateau")
    train(toy, tmp_path, recipe)
    spoil(tmp_path / "checkpoint.pt", change)
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint; remove it to start over"):
        train(toy, tmp_path, replace(recipe, epochs=2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"epoch": 2, "size": 224, "loss": 1.0, "train_top1_error": 0.5, "rate": 0.1}',
        '{"epoch": 1, "size": 224, "loss": 1.0, "train_top1_error": NaN, "rate": 0.1}',
        '{"epoch": 1, "size": 224, "loss": 1.0, "train_top1_error": "0.5", "rate": 0.1}',
    ],
)
def test_spoilt_metrics_are_named(toy, tmp_path, text):
    train(toy, tmp_path, RECIPE)
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.jsonl.*start over with --no-resume"):
        train(toy, tmp_path, replace(RECIPE, epochs=2))


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_that_cannot_be_read_cost_none_of_the_others(toy, tmp_path, monkeypatch, capsys, in_memory):
    if not in_memory:
        monkeypatch.setattr("sppnet_cli.learning.crops._IN_MEMORY_PIXELS", 0)
    toy.paths[2].write_bytes(b"no image")
    toy.paths[9].unlink()
    nets = []
    for workers in (0, 2):
        net = network()
        out = tmp_path / f"net{workers}"
        out.mkdir()
        pretrain(net, toy, RECIPE, seed=0, device="cpu", workers=workers, out=out, validation=toy)
        message = capsys.readouterr().err
        assert message.count("warning") == 1
        assert "2 of 16 training images could not be read" in message
        assert str(toy.paths[2]) in message
        assert str(toy.paths[9]) in message
        assert 0 <= metrics(out)[0]["val_top1_error"] * 14 % 1 < 1e-9  # of the 14 others
        nets.append(net)
    assert same(*nets)


def test_readable_images_are_not_warned_of(toy, tmp_path, capsys):
    train(toy, tmp_path, RECIPE)
    assert "warning" not in capsys.readouterr().err
