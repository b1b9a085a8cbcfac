import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.learning import finetune as finetuning
from sppnet_cli.learning.finetune import (
    Schedule,
    candidates,
    finetune,
    head_for_detection,
    keep_features,
)
from sppnet_cli.network.sppnet import Head
from sppnet_cli.protocols import PAPER, RELEASED
from sppnet_cli.runs import CHECKPOINT

TRUTH = [0, 0, 9, 9]
# IoU with TRUTH: 1, .5, .4, .1, .09 (9 of 100 pixels), 0.
OVERLAPPING = [TRUTH, [0, 0, 9, 4], [0, 0, 9, 3], [0, 0, 9, 0], [0, 0, 8, 0], [50, 50, 59, 59]]
DIMENSION = 8
WINDOW_GIB = 2 * DIMENSION / 2**30  # of one window's features


def test_the_rate_of_every_batch():
    schedule = Schedule(((1e-3, 2), (1e-4, 3)))
    assert schedule.batches == 5
    assert [schedule.rate(batch) for batch in range(5)] == [1e-3, 1e-3, 1e-4, 1e-4, 1e-4]
    assert Schedule(PAPER.finetune_schedule).batches == 300_000
    assert Schedule(RELEASED.finetune_schedule).batches == 200_000


def picks(windows):
    return list(zip(windows.image.tolist(), windows.row.tolist(), windows.label.tolist(), strict=True))


def test_positives_and_negatives_by_iou(source_of, windows_of):
    empty = windows_of([TRUTH])
    image = windows_of(OVERLAPPING, [TRUTH], [1], with_truth=False)
    source = source_of([empty, image], [np.ones((1, 2)), np.ones((6, 2))])
    positives, negatives = candidates(source, PAPER, flip=False)
    assert picks(positives) == [(1, 0, 2), (1, 1, 2)]
    assert picks(negatives) == [(1, 2, 0), (1, 3, 0)]
    assert not positives.flip.any()
    assert not negatives.flip.any()


def test_rcnns_negatives_begin_at_no_overlap(source_of, windows_of):
    images = [windows_of([TRUTH]), windows_of(OVERLAPPING, [TRUTH], [1], with_truth=False)]
    source = source_of(images, [np.ones((1, 2)), np.ones((6, 2))], method="rcnn")
    rules = RcnnWindows.protocol_of(PAPER)
    positives, negatives = candidates(source, rules, flip=False)
    assert picks(positives) == [(1, 0, 2), (1, 1, 2)]
    assert picks(negatives) == [(0, 0, 0), (1, 2, 0), (1, 3, 0), (1, 4, 0), (1, 5, 0)]


def test_the_label_is_the_best_boxs_and_the_ground_truth_is_a_window(source_of, windows_of):
    # 60 of 100 pixels of the first object, 80 of 90 of the second.
    image = windows_of([[0, 0, 9, 7]], [[0, 0, 9, 9], [0, 0, 9, 8]], [0, 2])
    positives, negatives = candidates(source_of([image], [np.ones((3, 2))]), PAPER, flip=False)
    assert picks(positives) == [(0, 0, 1), (0, 1, 3), (0, 2, 3)]
    assert len(negatives) == 0


def test_flipped_windows_double_the_choice(source_of, windows_of):
    image = windows_of(OVERLAPPING, [TRUTH], [1], with_truth=False)
    positives, negatives = candidates(source_of([image], [np.ones((6, 2))]), PAPER, flip=True)
    assert picks(positives) == [(0, 0, 2), (0, 1, 2)] * 2
    assert positives.flip.tolist() == [False, False, True, True]
    assert negatives.flip.tolist() == [False, False, True, True]


@pytest.fixture
def source(source_of, windows_of):
    """Three images of one object each, of class k; features are (image, row, 1, noise ...)."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 6, DIMENSION)).round(2)
    features[:, :, 0] = np.arange(3)[:, None]
    features[:, :, 1] = np.arange(6)
    images = [windows_of(OVERLAPPING, [TRUTH], [k], with_truth=False) for k in range(3)]
    return source_of(images, features)


def new_head(seed=0):
    torch.manual_seed(seed)
    return head_for_detection(None, DIMENSION, 16, 3, 3.0)


def run(source, tmp_path, *, head=None, batches=6, room=9999, seed=5, protocol=PAPER, rate=0.01, flip=False):
    """Fine-tune with room for so many windows."""
    schedule = Schedule(((rate, batches),))
    max_gib = WINDOW_GIB * (room + 0.5)
    head = head or new_head()
    tuned = finetune(head, source, protocol, schedule, flip=flip, seed=seed, max_gib=max_gib, folder=tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    return tuned


@pytest.fixture
def labels(monkeypatch):
    """The labels of every batch."""
    seen = []

    def spy(scores, labels):
        assert scores.shape == (128, 4)
        seen.append(labels.numpy().copy())
        return loss(scores, labels)

    loss = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", spy)
    return seen


def test_a_quarter_of_every_batch_is_positive(source, tmp_path, labels):
    head, batches = new_head(), []
    head.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].numpy().copy()))
    run(source, tmp_path, head=head, batches=50)
    assert len(batches) == len(labels) == 50
    drawn = {}
    for pooled, label in zip(batches, labels, strict=True):
        assert (label > 0).sum() == 32
        for (image, row), own in zip(pooled[:, :2].astype(int).tolist(), label, strict=True):
            assert own == (image + 1 if row < 2 else 0)
            drawn[image, row] = drawn.get((image, row), 0) + 1
    # Uniform over windows: 6 positives share 1,600 draws and 6 negatives 4,800; four deviations are 59 and 103.
    for image in range(3):
        assert all(abs(drawn.pop((image, row)) - 1600 / 6) < 59 for row in (0, 1))
        assert all(abs(drawn.pop((image, row)) - 4800 / 6) < 103 for row in (2, 3))
    assert not drawn


def pooled_of(source, image, row):
    return source.pooled(image, np.array([row]))[0].half().float().numpy()


def test_what_is_drawn_is_what_was_pooled(source, tmp_path):
    head, batches = new_head(), []
    head.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].numpy().copy()))
    run(source, tmp_path, head=head, batches=3)
    for pooled in np.concatenate(batches):
        image, row = pooled[:2].astype(int)
        np.testing.assert_array_equal(pooled, pooled_of(source, image, row))


def test_no_two_batches_are_drawn_alike(source, tmp_path):
    head, batches = new_head(), set()
    head.register_forward_pre_hook(lambda _, inputs: batches.add(inputs[0].numpy().tobytes()))
    run(source, tmp_path, head=head, batches=6)
    assert len(batches) == 6


@pytest.fixture
def large_source(source_of, windows_of):
    """Three images of 24 positives and 96 negatives each; features are (image, row, noise ...)."""
    features = np.random.default_rng(0).normal(size=(3, 120, DIMENSION)).round(2)
    features[:, :, 0] = np.arange(3)[:, None]
    features[:, :, 1] = np.arange(120)
    windows = [TRUTH] * 24 + [[0, 0, 9, 3]] * 96
    return source_of([windows_of(windows, [TRUTH], [k], with_truth=False) for k in range(3)], features)


@pytest.mark.parametrize("protocol", [PAPER, RELEASED], ids=lambda p: p.name)
def test_how_many_are_drawn_at_once_is_a_matter_of_memory_alone(large_source, tmp_path, protocol):
    heads = [run(large_source, tmp_path, room=room, protocol=protocol) for room in (0, 200, 9999)]
    assert torch.equal(heads[0].fc6.weight, heads[2].fc6.weight)
    assert torch.equal(heads[1].fc6.weight, heads[2].fc6.weight)


@pytest.mark.parametrize("room", [0, 190, 250, 9999])
def test_as_many_batches_are_drawn_at_once_as_there_is_room_for_their_windows(large_source, tmp_path, room):
    head, batches = new_head(), []
    head.register_forward_pre_hook(lambda _, x: batches.append(set(map(tuple, x[0][:, :2].int().tolist()))))
    run(large_source, tmp_path, head=head, batches=8, room=room)
    chunks = [set()]
    for batch in batches:
        if chunks[-1] and len(chunks[-1] | batch) > room:
            chunks.append(set())
        chunks[-1] |= batch
    assert 1 < len(chunks) < 8 or room in (0, 9999)
    calls = [[(image, row) for row in rows] for image, rows, *_ in large_source.calls]
    assert [set(calls[k] + calls[k + 1] + calls[k + 2]) for k in range(0, len(calls), 3)] == chunks
    assert sum(map(len, calls)) == sum(map(len, chunks))  # none is pooled twice


def test_one_visit_to_an_image_serves_all_that_is_drawn_at_once(source, tmp_path):
    run(source, tmp_path, batches=6, flip=True)
    visits = [(image, flip) for image, _, flip, _ in source.calls]
    assert visits == [(image, flip) for image in range(3) for flip in (False, True)]


def test_scales_are_drawn_by_the_released_protocol_only(source, tmp_path):
    run(source, tmp_path, batches=1)
    assert all(scales is None for *_, scales in source.calls)
    source.calls.clear()
    run(source, tmp_path, batches=1, protocol=RELEASED)
    drawn = np.concatenate([scales for *_, scales in source.calls])
    assert set(drawn) == set(range(len(source.extractor.scales)))


@pytest.mark.parametrize("fc8_rate", [1, 10])
def test_one_step_by_hand(source, tmp_path, labels, fc8_rate):
    """v = g + .1 w and w -= .01 v; biases: twice the rate; fc8: `fc8_rate` times the rate, no decay of its bias."""
    head, batches = new_head(), []
    head.dropout = nn.Dropout(0.0)
    for layer in (head.fc6, head.fc7, head.fc8):
        nn.init.ones_(layer.bias)
    expected = copy.deepcopy(head)
    head.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    schedule = Schedule(((0.01, 1),), fc8_rate, weight_decay=0.1)
    trained = finetune(head, source, PAPER, schedule, flip=False, seed=0, max_gib=0.1, folder=tmp_path)
    x = F.relu(expected.fc6(batches[0] * expected.input_scale))
    loss = -expected.fc8(F.relu(expected.fc7(x))).log_softmax(1)[range(128), labels[0]].mean()
    loss.backward()
    rules = {"fc8.weight": (0.01 * fc8_rate, 0.1), "fc8.bias": (0.02 * fc8_rate, 0.0)}
    for name, before in expected.named_parameters():
        rate, decay = rules.get(name, (0.01 if name.endswith("weight") else 0.02, 0.1))
        after = before - rate * (before.grad + decay * before)
        torch.testing.assert_close(trained.get_parameter(name), after, rtol=2e-6, atol=2e-7)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_the_same_seed_gives_the_same_head(source, tmp_path):
    assert same(run(source, tmp_path, seed=5), run(source, tmp_path, seed=5))
    assert not same(run(source, tmp_path, seed=5), run(source, tmp_path, seed=6))


@pytest.mark.parametrize(("room", "every", "saved"), [(0, 300, 1), (9999, 2, 2), (9999, 300, 6)])
@pytest.mark.parametrize("stop", [0, 1, 3, 4, 5])
def test_a_run_that_was_cut_off_goes_on_to_the_same_head(
    source, tmp_path, monkeypatch, stop, room, every, saved
):
    """The state is saved after what was drawn at once, and every so many seconds, of which a batch takes one."""
    clock = []
    monkeypatch.setattr(finetuning, "time", SimpleNamespace(monotonic=lambda: len(clock)))
    monkeypatch.setattr(finetuning, "_SAVED_EVERY", every)
    whole = run(source, tmp_path)
    head, batches = new_head(), []

    def interrupt(*_):
        clock.append(None)
        batches.append(None)
        if len(batches) > stop:
            raise KeyboardInterrupt

    head.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path, head=head, room=room)
    # Without a checkpoint yet, the run starts over from the head it is given.
    resumed, rest = new_head(seed=0 if stop < saved else 99), []
    resumed.register_forward_pre_hook(lambda *_: rest.append(None))
    assert same(run(source, tmp_path, head=resumed, room=room), whole)
    assert len(rest) == 6 - stop // saved * saved


def test_a_run_that_was_cut_off_after_its_last_batch_trains_no_more(source, tmp_path):
    schedule = Schedule(((0.01, 3),))
    settings = {"flip": False, "seed": 0, "max_gib": 0.1, "folder": tmp_path}
    whole = finetune(new_head(), source, PAPER, schedule, **settings)
    head = new_head(seed=99)
    head.register_forward_pre_hook(lambda *_: pytest.fail("trained again"))
    assert same(finetune(head, source, PAPER, schedule, **settings), whole)


def test_the_head_is_returned_ready_for_use(source, tmp_path):
    assert not run(source, tmp_path, batches=1).training


def test_training_learns_the_classes(source, tmp_path):
    head = new_head()
    rows = torch.from_numpy(np.concatenate(source.features)[[0, 2, 6, 8, 12, 14]]).float()
    before = F.cross_entropy(head.eval()(rows), torch.tensor([1, 0, 2, 0, 3, 0]))
    trained = run(source, tmp_path, head=head, batches=150, rate=0.03)
    after = F.cross_entropy(trained(rows), torch.tensor([1, 0, 2, 0, 3, 0]))
    assert before.item() == pytest.approx(np.log(4), abs=0.1)
    assert after < 0.5


def test_a_loss_that_is_not_finite_ends_the_run(source, tmp_path):
    source.features[1][:, 3] = np.nan
    with pytest.raises(SppnetError, match=r"diverged.*lower the learning rate"):
        run(source, tmp_path)


def test_nothing_to_draw_from(source_of, windows_of, tmp_path):
    far = source_of([windows_of([[50, 50, 59, 59]], [TRUTH], with_truth=False)], [np.ones((1, DIMENSION))])
    with pytest.raises(DataError, match=r"^made: .*--proposals"):
        run(far, tmp_path)
    none = source_of([windows_of([TRUTH], [TRUTH])], [np.ones((2, DIMENSION))])  # no negatives
    with pytest.raises(DataError):
        run(none, tmp_path)


def test_a_broken_checkpoint_is_named(source, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint"):
        run(source, tmp_path)


def test_the_batch_and_its_share_are_the_protocols(source, tmp_path, monkeypatch):
    seen = []
    loss = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda s, y: (seen.append(y.tolist()), loss(s, y))[1])
    run(
        source,
        tmp_path,
        batches=1,
        protocol=replace(PAPER, finetune_batch=20, finetune_positive_fraction=0.4),
    )
    assert [sum(label > 0 for label in batch) for batch in seen] == [8]
    assert [len(batch) for batch in seen] == [20]


def test_a_pretrained_head_keeps_fc6_and_fc7():
    torch.manual_seed(0)
    pretrained = Head(50, 200, 1000, input_scale=0.5)
    head = head_for_detection(pretrained, 50, 77, 20, 3.0)
    for name in ("fc6", "fc7"):
        for kind in ("weight", "bias"):
            own, other = (getattr(getattr(h, name), kind) for h in (head, pretrained))
            assert torch.equal(own, other)
            assert own.data_ptr() != other.data_ptr()
    assert float(head.input_scale) == 0.5
    assert head.fc8.weight.shape == (21, 200)
    assert float(head.fc8.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(head.fc8.weight.detach().mean()) == pytest.approx(0, abs=0.001)
    assert not head.fc8.bias.any()


def test_a_new_head_starts_with_unit_variance():
    torch.manual_seed(0)
    head = head_for_detection(None, 3000, 400, 20, mean_norm=37.0)
    for layer, shape in ((head.fc6, (400, 3000)), (head.fc7, (400, 400)), (head.fc8, (21, 400))):
        assert layer.weight.shape == shape
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not layer.bias.any()
    pooled = torch.rand(50, 3000)
    pooled *= 37 / pooled.norm(dim=1).mean()
    before_relu = head.fc6(pooled * head.input_scale).detach()
    assert float(before_relu.std()) == pytest.approx(1, rel=0.05)


def test_difficult_boxes_count_as_any_other(source_of, windows_of):
    image = windows_of(OVERLAPPING, [TRUTH], [1], [True], with_truth=False)
    positives, negatives = candidates(source_of([image], [np.ones((6, 2))]), PAPER, flip=False)
    assert picks(positives) == [(0, 0, 2), (0, 1, 2)]
    assert picks(negatives) == [(0, 2, 0), (0, 3, 0)]


def test_images_without_windows_or_objects(source_of, windows_of):
    images = [windows_of(), windows_of([], [TRUTH], with_truth=False), windows_of([TRUTH])]
    images.append(windows_of(OVERLAPPING, [TRUTH], [1], with_truth=False))
    positives, negatives = candidates(source_of(images, [np.ones((6, 2))] * 4), PAPER, flip=False)
    assert picks(positives) == [(3, 0, 2), (3, 1, 2)]
    assert picks(negatives) == [(3, 2, 0), (3, 3, 0)]


@pytest.fixture
def kept(source, windows_of, monkeypatch):
    """What is put into the cache of five images, the second of which has nothing to draw; `kept.room` ends it."""

    class Kept(list):
        room = 99

    kept = Kept()
    source.images[1:1] = [windows_of([[50, 50, 59, 59]], [TRUTH], with_truth=False)]
    source.images.append(source.images[0])

    def keep(index, *, flip):
        kept.append((index, flip))
        return len(kept) < kept.room

    monkeypatch.setattr(source, "keep", keep, raising=False)
    return kept


def test_features_of_all_that_is_drawn_are_kept_ahead(source, kept):
    keep_features(source, PAPER, flip=False)
    assert kept == [(0, False), (2, False), (3, False), (4, False)]
    kept.clear()
    keep_features(source, PAPER, flip=True)
    assert kept == [(k, flip) for k in (0, 2, 3, 4) for flip in (False, True)]


def test_every_process_keeps_its_share(source, kept, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("0", [0, 2, 4]), ("1", [3])):
        monkeypatch.setenv("RANK", rank)
        kept.clear()
        keep_features(source, PAPER, flip=False)
        assert [index for index, _ in kept] == expected


def test_nothing_is_kept_ahead_once_there_is_no_room(source, kept):
    kept.room = 3
    keep_features(source, PAPER, flip=True)
    assert len(kept) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(batches=10**9),
        lambda state: state["head"]["fc6.weight"].fill_(torch.inf),
        lambda state: state["head"].pop("fc7.bias"),
        lambda state: state["optimizer"].pop("state"),
    ],
)
def test_a_spoilt_checkpoint_is_never_a_result(source, tmp_path, change):
    settings = {"flip": False, "seed": 0, "max_gib": 0.1, "folder": tmp_path}
    finetune(new_head(), source, PAPER, Schedule(((0.01, 3),)), **settings)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"checkpoint\.pt: broken checkpoint; remove it"):
        finetune(new_head(), source, PAPER, Schedule(((0.01, 3),)), **settings)
