import dataclasses
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from sppnet_cli.evaluation.timing import FeatureTime, take_turns, time_extractors, time_image
from sppnet_cli.features.layers import Layer
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((60, 80, 3), (90, 70, 3))]
BOXES = [
    np.array([[0, 0, 59, 59], [10, 5, 70, 50], [3, 3, 40, 30]], dtype=np.float32),
    np.array([[0, 0, 69, 89], [20, 20, 60, 80]], dtype=np.float32),
]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), fc=16, classes=2)).eval()


class Clock:
    """Stands in for the module `time`; what is called on it or through it moves its hands."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def taking(self, seconds, function):
        def slowly(*args, **kwargs):
            self.now += seconds
            return function(*args, **kwargs)

        return slowly


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("sppnet_cli.clock.time", clock)
    return clock


def slow_fc7(network, clock, seconds):
    """fc7 of the network's head, on a clock."""
    return clock.taking(seconds, Layer("fc7", network.head))


def test_what_counts_as_what_for_spp(network, clock, monkeypatch):
    spp = SppWindows(network, PAPER, (64, 96, 128))
    for name, seconds in (("network_input", 1), ("conv5", 10), ("pool", 100)):
        monkeypatch.setattr(spp, name, clock.taking(seconds, getattr(spp, name)))
    time = time_image(spp, slow_fc7(network, clock, 1000), IMAGES[0], BOXES[0])
    assert time == FeatureTime(conv=30, pool=100, layers=1000, preparation=3)
    assert time.fc == 1100  # as the paper counts
    assert time.total == 1130


@pytest.fixture
def slow_rcnn(network, clock, monkeypatch):
    """R-CNN on a clock: an image takes 10 s, to warp a window 1, a batch 1000 and to pool it 10,000."""
    rcnn = RcnnWindows(network, PAPER)
    monkeypatch.setattr(
        "sppnet_cli.features.rcnn.warp_window",
        clock.taking(1, lambda *_: np.zeros((224, 224, 3), np.float32)),
    )
    monkeypatch.setattr(rcnn, "prepare", clock.taking(10, rcnn.prepare))
    monkeypatch.setattr(rcnn, "conv5", clock.taking(1000, lambda crops: torch.zeros(len(crops), 16, 13, 13)))
    monkeypatch.setattr(network.pool, "forward", clock.taking(10_000, network.pool.forward))
    return rcnn


def test_what_counts_as_what_for_rcnn(slow_rcnn, network, clock):
    boxes = np.tile(BOXES[0][:1], (70, 1))  # two batches
    time = time_image(slow_rcnn, slow_fc7(network, clock, 100_000), IMAGES[0], boxes)
    assert time == FeatureTime(conv=2000, pool=20_000, layers=100_000, preparation=80)


def test_a_sample_of_rcnns_windows_stands_for_all_but_in_the_fc_layers(slow_rcnn, network, clock):
    rows = []
    fc7 = slow_fc7(network, clock, 100_000)

    def layers(pooled):
        rows.append(len(pooled))
        return fc7(pooled)

    boxes = np.tile(BOXES[0][:1], (70, 1))
    time = time_image(slow_rcnn, layers, IMAGES[0], boxes, np.arange(0, 70, 2))  # half of them, one batch
    assert time == FeatureTime(conv=2000, pool=20_000, layers=100_000, preparation=80)
    assert rows == [70]


def test_of_spp_a_sample_is_ignored(network, clock, monkeypatch):
    spp = SppWindows(network, PAPER, (64,))
    monkeypatch.setattr(spp, "pool", clock.taking(100, spp.pool))
    sizes = []
    time = time_image(spp, lambda pooled: sizes.append(len(pooled)), IMAGES[0], BOXES[0], np.array([0]))
    assert time == FeatureTime(conv=0, pool=100, layers=0, preparation=0)
    assert sizes == [len(spp.pool_distinct(spp.prepare(IMAGES[0]), BOXES[0]).vectors)]


def test_every_image_after_a_warm_up(network, clock, monkeypatch):
    seconds = iter([500.0, 1.0, 4.0])  # the first image, first for warming up
    spp = SppWindows(network, PAPER, (64,))
    conv5 = spp.conv5

    def slower(network_input):
        clock.now += next(seconds)
        return conv5(network_input)

    monkeypatch.setattr(spp, "conv5", slower)
    times = time_extractors({"SPP": (spp, Layer("fc7", network.head))}, IMAGES, BOXES)
    assert times == {
        "SPP": [FeatureTime(conv=seconds, pool=0, layers=0, preparation=0) for seconds in (1, 4)]
    }


def test_all_get_the_same_images_and_windows(network, monkeypatch):
    seen = []
    extractors = {
        "1-scale": SppWindows(network, PAPER, (64,)),
        "2-scale": SppWindows(network, PAPER, (64, 96)),
        "R-CNN": RcnnWindows(network, PAPER),
    }

    def noted(name, pool_in_steps):
        def noting(image, boxes, lap):
            seen.append((name, image.shape[:2], boxes.tolist()))
            return pool_in_steps(image, boxes, lap)

        return noting

    for name, extractor in extractors.items():
        monkeypatch.setattr(extractor, "pool_in_steps", noted(name, extractor.pool_in_steps))
    times = time_extractors(
        {name: (e, Layer("fc7", network.head)) for name, e in extractors.items()}, IMAGES, BOXES
    )
    assert list(times) == list(extractors)
    for time in itertools.chain.from_iterable(times.values()):
        assert all(math.isfinite(part) and part > 0 for part in dataclasses.astuple(time))
        assert time.total == time.conv + time.fc
    turns = [
        (name, image.shape[:2], boxes.tolist())
        for image, boxes in zip(IMAGES, BOXES, strict=True)
        for name in extractors
    ]
    assert seen == turns[:3] + turns  # the warm-up, then image by image


def slow_side(clock, calls, name, seconds):
    """A side whose calls take these seconds, one after the other, and are noted."""
    left = iter(seconds)

    def call():
        calls.append(name)
        clock.now += next(left)

    return call


def test_sides_take_turns_after_a_warm_up(clock):
    calls = []
    side = partial(slow_side, clock, calls)
    sides = {"ours": side("ours", (90, 1, 5, 2)), "theirs": side("theirs", (80, 7, 3, 30))}
    assert take_turns(sides, 3) == {"ours": 2, "theirs": 7}
    assert calls == ["ours", "theirs"] * 4


def test_warm_sides_are_called_before_each_call_that_counts(clock):
    calls = []
    side = partial(slow_side, clock, calls)
    sides = {"ours": side("ours", (90, 50, 1, 60, 3)), "theirs": side("theirs", (80, 70, 7, 70, 9))}
    assert take_turns(sides, 2, warm=True) == {"ours": 2, "theirs": 8}
    assert calls == ["ours", "theirs", *["ours", "ours", "theirs", "theirs"] * 2]
