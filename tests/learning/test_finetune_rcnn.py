import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sppnet_cli.data.boxes import flip_boxes
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.rcnn import RcnnWindows, warp_window
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.learning import finetune_rcnn as module
from sppnet_cli.learning.finetune import Schedule, candidates
from sppnet_cli.learning.finetune_rcnn import WarpedBatches, finetune_all
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER

PROTOCOL = RcnnWindows.protocol_of(replace(PAPER, finetune_batch=8))
SIZE = (60, 90)
TRUTH = [10, 5, 49, 44]
# IoU with TRUTH: 1 (the ground truth itself), 1, .5, .475, 0.
PROPOSALS = [TRUTH, [10, 5, 49, 24], [10, 5, 49, 23], [60, 0, 89, 29]]


@dataclass
class Images:
    """A `WindowSource` of made windows and images."""

    images: list
    pictures: list
    extractor: object

    @property
    def dataset(self):
        ids = [str(index) for index in range(len(self.images))]
        return SimpleNamespace(
            root=Path("made"), ids=ids, image=lambda image_id: self.pictures[int(image_id)]
        )

    def __len__(self):
        return len(self.images)

    def windows(self, index):
        return self.images[index]


def new_network():
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    network.initialise("he")
    return network


@pytest.fixture
def source_of():
    def make(images, protocol=PROTOCOL):
        rng = np.random.default_rng(0)
        pictures = []
        for windows in images:
            picture = rng.integers(0, 120, (*windows.size, 3), dtype=np.uint8)
            for box, label in zip(windows.truth.boxes.astype(int), windows.truth.labels, strict=True):
                picture[box[1] : box[3] + 1, box[0] : box[2] + 1, label] += 130
            pictures.append(picture)
        return Images(images, pictures, RcnnWindows(new_network(), protocol))

    return make


@pytest.fixture
def make_source(source_of, windows_of):
    """Three images of one object each, of class k, whose colour is the k-th."""
    return lambda: source_of([windows_of(PROPOSALS, [TRUTH], [k], size=SIZE) for k in range(3)])


def batches_of(source, *, flip=True, seed=5, max_gib=1.0, protocol=PROTOCOL):
    pools = candidates(source, protocol, flip=False)
    return WarpedBatches(source, *pools, protocol, flip=flip, seed=seed, max_gib=max_gib)


def new_head(network):
    """An fc part so narrow that N(0, .01) would hardly begin to learn."""
    torch.manual_seed(1)
    head = Head(network.pooled_size, 32, 4, input_scale=5 / 75)  # 75: about the mean norm
    for layer in (head.fc6, head.fc7, head.fc8):
        nn.init.kaiming_normal_(layer.weight)
    return head


def run(source, folder, *, batches=6, rates=None, workers=0, max_gib=1.0, seed=5, flip=True, head=None):
    """The whole model after fine-tuning."""
    schedule = Schedule(rates or ((0.01, batches),))
    network = source.extractor.network
    folder.mkdir(exist_ok=True)
    head = finetune_all(
        head or new_head(network),
        source,
        PROTOCOL,
        schedule,
        flip=flip,
        seed=seed,
        workers=workers,
        max_gib=max_gib,
        folder=folder,
    )
    return nn.Sequential(network.trunk, network.pool, head)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.fixture
def losses(monkeypatch):
    """The loss of every batch."""
    seen = []
    step = module._step
    monkeypatch.setattr(module, "_step", lambda *args: (seen.append(step(*args)), seen[-1])[1])
    return seen


def test_a_quarter_is_positive_and_negatives_begin_at_no_overlap(make_source):
    batches = batches_of(make_source())
    drawn = {}
    for k in range(300):
        windows = batches.draw(k)
        assert (windows.label > 0).tolist() == [True] * 2 + [False] * 6
        for image, row, flip, label in zip(
            windows.image, windows.row, windows.flip, windows.label, strict=True
        ):
            # Rows: the ground truth, then the proposals.  IoU 1, 1, .5 and .475, 0.
            assert label == (image + 1 if row <= 2 else 0)
            drawn[image, row, flip] = drawn.get((image, row, flip), 0) + 1
    # Uniform: 18 positives, mirrored or not, share 600 draws and 12 negatives 1,800; four deviations are 23 and 47.
    for image in range(3):
        for flip in (False, True):
            assert all(abs(drawn.pop((image, row, flip)) - 600 / 18) < 23 for row in (0, 1, 2))
            assert all(abs(drawn.pop((image, row, flip)) - 1800 / 12) < 47 for row in (3, 4))
    assert not drawn


def test_nothing_is_mirrored_unless_asked_for(make_source):
    batches = batches_of(make_source(), flip=False)
    assert not any(batches.draw(k).flip.any() for k in range(20))
    mirrored = batches_of(make_source(), flip=True)
    np.testing.assert_array_equal(batches.draw(3).row, mirrored.draw(3).row)


def test_windows_on_difficult_objects_are_positive(source_of, windows_of):
    image = windows_of(PROPOSALS, [TRUTH], [2], difficult=[True], size=SIZE)
    drawn = batches_of(source_of([image])).draw(0)
    assert drawn.label.tolist() == [3, 3, 0, 0, 0, 0, 0, 0]


def test_another_seed_or_batch_draws_other_windows(make_source):
    source = make_source()
    drawn = [batches_of(source, seed=seed).draw(batch) for seed, batch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    keys = [(w.image.tolist(), w.row.tolist(), w.flip.tolist()) for w in drawn]
    assert keys[0] == keys[1]
    assert keys[0] not in keys[2:]


@pytest.mark.parametrize("max_gib", [1.0, 0.0], ids=["decoded once", "decoded on demand"])
def test_the_crops_are_those_of_extraction(make_source, max_gib):
    source = make_source()
    batches = batches_of(source, flip=False, max_gib=max_gib)
    crops, labels = batches[7]
    assert (crops.dtype, crops.shape) == (torch.float16, (8, 3, 224, 224))
    assert crops.is_contiguous(memory_format=torch.channels_last)
    drawn = batches.draw(7)
    assert labels.tolist() == drawn.label.tolist()
    for crop, image, row in zip(crops, drawn.image, drawn.row, strict=True):
        prepared = source.extractor.prepare(source.pictures[image])
        (expected,) = source.extractor.warp(prepared, source.windows(image).boxes[[row]])
        assert torch.equal(crop, expected[0].half())


def test_a_flip_is_the_window_of_the_mirrored_image(source_of, windows_of):
    """Up to the pixel by which R-CNN's rounding of the context is lopsided."""
    source = source_of([windows_of(PROPOSALS, [TRUTH], [0], size=SIZE)])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    source.pictures[0] = np.stack([2 * x, 3 * y, x + y], axis=2).astype(np.uint8)
    batches = batches_of(source)
    mirrored = source.extractor.prepare(np.ascontiguousarray(source.pictures[0][:, ::-1]))
    seen = set()
    for k in range(8):
        drawn, (crops, _) = batches.draw(k), batches[k]
        for crop, row, flip in zip(crops, drawn.row, drawn.flip, strict=True):
            if not flip:
                continue
            box = source.windows(0).boxes[[row]]
            prepared = source.extractor.prepare(source.pictures[0])
            plain = warp_window(prepared.pixels, box[0])
            np.testing.assert_array_equal(crop.permute(1, 2, 0), plain[:, ::-1].astype(np.float16))
            other = warp_window(mirrored.pixels, flip_boxes(box, SIZE[1])[0])
            inside = (crop.permute(1, 2, 0).numpy() != 0) & (other != 0)
            difference = np.abs(crop.permute(1, 2, 0).numpy() - other)[inside]
            assert np.quantile(difference, 0.9) < 4  # the slope is 3 a pixel at most
            seen.add(int(row))
    assert seen == {0, 1, 2, 3, 4}


def test_all_layers_learn(source_of, windows_of, tmp_path, losses):
    """Three colours, and grey for the background."""
    source = source_of([windows_of(PROPOSALS[-1:], [TRUTH], [k], size=SIZE) for k in range(3)])
    network = source.extractor.network
    before = copy.deepcopy(network.state_dict())
    head = new_head(network)
    head.dropout.p = 0.0
    fresh = copy.deepcopy(head.state_dict())
    model = run(source, tmp_path, rates=((2e-3, 40),), head=head)
    # 0.84 is what the shares of the classes alone give.
    assert losses[0] > 0.84
    assert torch.stack(losses[-5:]).mean() < 0.4
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before)
    assert not any(
        torch.equal(value, fresh[name]) for name, value in head.state_dict().items() if name != "input_scale"
    )
    assert model[2] is head
    assert not head.training


def test_one_step_by_hand(make_source, tmp_path):
    """v = g + .1 w and w -= .01 v; biases: twice the rate; fc8: ten times the rate, no decay of its bias."""
    source = make_source()
    network = source.extractor.network
    head = new_head(network)
    head.dropout.p = 0.0
    for layer in (network.trunk[0], head.fc6, head.fc7, head.fc8):
        nn.init.constant_(layer.bias, 0.5)
    expected = copy.deepcopy(nn.Sequential(network.trunk, network.pool, head))
    schedule = Schedule(((0.01, 1),), fc8_rate=10, weight_decay=0.1)
    settings = {"flip": True, "seed": 5, "workers": 0, "max_gib": 1.0, "folder": tmp_path}
    finetune_all(head, source, PROTOCOL, schedule, **settings)
    crops, labels = batches_of(source)[0]
    scores = expected(crops.float().contiguous(memory_format=torch.channels_last))
    (-scores.log_softmax(1)[range(8), labels].mean()).backward()
    trained = nn.Sequential(network.trunk, network.pool, head)
    for name, before in expected.named_parameters():
        rate, decay = (0.02 if name.endswith("bias") else 0.01), 0.1
        if ".fc8." in name:
            rate, decay = (0.2, 0.0) if name.endswith("bias") else (0.1, 0.1)
        after = before - rate * (before.grad + decay * before)
        torch.testing.assert_close(trained.get_parameter(name), after, rtol=1e-4, atol=1e-6)


def test_the_rates_are_the_schedules_and_only_the_head_drops_out(make_source, tmp_path, monkeypatch):
    seen = []

    def spy(model, optimizer, rate, *rest):
        seen.append((rate, model[0].training, model[2].training))
        return torch.zeros(())

    monkeypatch.setattr(module, "_step", spy)
    run(make_source(), tmp_path, rates=((1e-3, 2), (1e-4, 1)))
    assert seen == [(1e-3, False, True)] * 2 + [(1e-4, False, True)]


def test_workers_and_memory_change_nothing(make_source, tmp_path):
    one, two = (run(make_source(), tmp_path / str(n), batches=4, workers=n) for n in (1, 2))
    alone = run(make_source(), tmp_path / "alone", batches=4, max_gib=0.0)
    assert same(one, two)
    assert same(one, alone)
    assert not same(one, run(make_source(), tmp_path / "other", batches=4, seed=6))


class Cut(BaseException):
    """A kill."""


@pytest.mark.parametrize("allowed", [0, 1, 2, 5, 6])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(make_source, tmp_path, monkeypatch, allowed):
    monkeypatch.setattr(module, "_SAVED_EVERY", 0.0)
    monkeypatch.setattr(module, "_CHECKED_EVERY", 2)
    whole = run(make_source(), tmp_path / "whole", batches=7)
    step, left, done = module._step, iter(range(allowed)), []

    def stop(*args):
        if next(left, None) is None:
            raise Cut
        return step(*args)

    monkeypatch.setattr(module, "_step", stop)
    with pytest.raises(Cut):
        run(make_source(), tmp_path / "cut", batches=7)
    monkeypatch.setattr(module, "_step", lambda *args: (done.append(None), step(*args))[1])
    assert same(run(make_source(), tmp_path / "cut", batches=7), whole)
    assert len(done) == 7 - allowed // 2 * 2
    # What is complete stays so until the stage has written it out.
    done.clear()
    assert same(run(make_source(), tmp_path / "cut", batches=7), whole)
    assert not done


def test_a_loss_that_is_not_finite_ends_the_run(make_source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHECKED_EVERY", 2)
    monkeypatch.setattr(F, "cross_entropy", lambda scores, labels: scores.sum() * float("nan"))
    with pytest.raises(SppnetError, match=r"diverged.*lower the learning rate"):
        run(make_source(), tmp_path, batches=3)
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw_from(source_of, windows_of, tmp_path):
    nothing_positive = windows_of([[60, 0, 89, 29]], [TRUTH], with_truth=False, size=SIZE)
    with pytest.raises(DataError, match=r"^made: .*--proposals"):
        run(source_of([nothing_positive]), tmp_path)
    with pytest.raises(DataError):
        run(source_of([windows_of([TRUTH], [TRUTH], size=SIZE)]), tmp_path)


def test_a_broken_checkpoint_is_named(make_source, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint"):
        run(make_source(), tmp_path)
