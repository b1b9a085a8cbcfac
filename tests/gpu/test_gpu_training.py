"""Training there and on the CPU; dropout is left out, since each device draws its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sppnet_cli.learning import finetune as finetuning
from sppnet_cli.learning.bbox import train_bbox
from sppnet_cli.learning.finetune import Schedule, finetune, head_for_detection
from sppnet_cli.learning.pretrain import Recipe, pretrain, read_metrics
from sppnet_cli.network.sppnet import Dropout
from sppnet_cli.protocols import PAPER, BboxRules, FinetuneRules, take
from sppnet_cli.runs import CHECKPOINT

pytestmark = pytest.mark.gpu

RULES = replace(take(FinetuneRules, PAPER), finetune_batch=16)
SCHEDULE = Schedule(((1e-2, 6),))
RECIPE = Recipe((224, 180), 2, 4, 1e-4, "one-cycle", "he", 5.0)


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(Dropout, "forward", lambda self, x: x)


def parameters(module):
    return torch.cat([value.detach().cpu().float().flatten() for value in module.state_dict().values()])


def tune(source, folder):
    torch.manual_seed(1)
    head = head_for_detection(None, source.extractor.network.pooled_size, 24, 3, 1.0)
    folder.mkdir(exist_ok=True)
    begun = parameters(head)
    tuned = finetune(head, source, RULES, SCHEDULE, flip=True, seed=0, max_gib=1.0, folder=folder)
    return parameters(tuned), begun


def test_finetuning(device, make_source, no_dropout, tmp_path):
    expected, begun = tune(make_source("cpu"), tmp_path / "cpu")
    found, _ = tune(make_source(device), tmp_path / "there")
    learnt = (expected - begun).norm()
    assert learnt > 0
    assert (found - expected).norm() < 1e-2 * learnt


def test_finetuning_is_resumed(device, make_source, monkeypatch, tmp_path):
    whole, begun = tune(make_source(device), tmp_path / "whole")
    step, done = finetuning._step, []

    def stop_at_the_fourth(*arguments):
        done.append(step(*arguments))
        if len(done) == 4:
            raise KeyboardInterrupt
        return done[-1]

    monkeypatch.setattr(finetuning, "_SAVED_EVERY", 0.0)  # after every batch
    monkeypatch.setattr(finetuning, "_step", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        tune(make_source(device), tmp_path / "cut")
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    monkeypatch.setattr(finetuning, "_step", step)
    resumed, _ = tune(make_source(device), tmp_path / "cut")
    # A GPU may add in another order each time.
    assert (resumed - whole).norm() < 1e-4 * (whole - begun).norm()


def test_box_regression(device, make_source):
    found, expected = (
        train_bbox(make_source(where), take(BboxRules, PAPER), 0.01, max_gib=1.0) for where in (device, "cpu")
    )
    assert np.abs(expected.weights).max() > 0
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-2 * np.abs(expected.weights).max())


def train(make_network, toy, out, device, amp=False, log=None):
    network = make_network()
    begun = parameters(network)  # Trainer draws them anew, from the same seed on every device
    out.mkdir(exist_ok=True)
    recipe = replace(RECIPE, amp=amp)
    pretrain(network, toy, recipe, seed=0, device=device, workers=0, out=out, validation=toy, log=log)
    return parameters(network), begun


def test_pretraining(device, make_network, toy, no_dropout, tmp_path):
    expected, begun = train(make_network, toy, tmp_path / "cpu", "cpu")
    found, _ = train(make_network, toy, tmp_path / "there", device)
    assert (found - expected).norm() < 1e-2 * (expected - begun).norm()
    for there, here in zip(read_metrics(tmp_path / "there"), read_metrics(tmp_path / "cpu"), strict=True):
        assert there.loss == pytest.approx(here.loss, rel=1e-2)
    assert (tmp_path / "there" / "mean.safetensors").read_bytes() == (
        tmp_path / "cpu" / "mean.safetensors"
    ).read_bytes()


def test_pretraining_with_amp(cuda, make_network, toy, no_dropout, tmp_path):
    train(make_network, toy, tmp_path / "fp32", cuda)
    network = make_network()
    seen = []
    network.trunk.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    (tmp_path / "bf16").mkdir()
    recipe = replace(RECIPE, amp=True)
    pretrain(network, toy, recipe, seed=0, device=cuda, workers=0, out=tmp_path / "bf16")
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    for half, full in zip(read_metrics(tmp_path / "bf16"), read_metrics(tmp_path / "fp32"), strict=True):
        assert half.loss == pytest.approx(full.loss, rel=5e-2)


@pytest.mark.parametrize("amp", [False, True])
def test_pretraining_is_resumed(request, device, make_network, toy, tmp_path, amp):
    if amp:
        request.getfixturevalue("cuda")
    whole, begun = train(make_network, toy, tmp_path / "whole", device, amp)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_network, toy, tmp_path / "cut", device, amp, stop)
    assert len(read_metrics(tmp_path / "cut")) == 1
    resumed, _ = train(make_network, toy, tmp_path / "cut", device, amp)
    assert len(read_metrics(tmp_path / "cut")) == 2
    assert (resumed - whole).norm() < 1e-3 * (whole - begun).norm()
