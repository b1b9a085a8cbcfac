"""What the methods share, the numbers in which they differ, and what it takes to add one."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sppnet_cli.evaluation.timing import time_image
from sppnet_cli.features.cache import FeatureCache
from sppnet_cli.features.method import Extractor
from sppnet_cli.features.methods import METHODS, make_extractor
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.protocols import ALL_SCALES, PAPER, RELEASED, MappingRules, take

# The numbers of a protocol that R-CNN replaces by its own.
OWN = (
    "finetune_negative_iou",
    "bbox_iou",
    "bbox_iou_inclusive",
    "bbox_lambda",
    "finetune_schedule",
    "finetune_fc8_rate",
    "duplicate_rule",
)
RCNN = (0.0, 0.6, False, 1000.0, ((1e-3, 20_000), (1e-4, 20_000), (1e-5, 20_000), (1e-6, 10_000)), 10.0)


def test_spp_net_follows_the_protocol_as_it_is():
    for protocol in (PAPER, RELEASED, ALL_SCALES):
        assert SppWindows.protocol_of(protocol) == protocol
    assert [getattr(PAPER, name) for name in OWN] == [
        0.1, 0.5, True, 1000.0, ((1e-4, 250_000), (1e-5, 50_000)), 1.0, "iou",
    ]  # fmt: skip
    assert [getattr(RELEASED, name) for name in OWN] == [
        0.1, 0.5, False, 4000.0, ((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000)), 1.0, "cells",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "duplicates"), [(PAPER, "iou"), (RELEASED, "none")], ids=["paper", "released"]
)
def test_rcnn_keeps_its_own_numbers_under_either_protocol(protocol, duplicates):
    followed = RcnnWindows.protocol_of(protocol)
    assert tuple(getattr(followed, name) for name in OWN) == (*RCNN, duplicates)
    # It has neither scales nor cells.
    unused = ("scale_rule", "cell_slack", "finetune_scale")
    assert [getattr(followed, name) for name in unused] == ["closest-area", 0, "best"]
    ours, theirs = asdict(followed), asdict(protocol)
    assert {name for name in ours if ours[name] != theirs[name]} <= {*OWN, *unused}


def test_methods_by_name(network):
    assert {"spp": SppWindows, "rcnn": RcnnWindows} == METHODS
    assert (SppWindows.cascade, RcnnWindows.cascade) == (True, False)
    mapping = take(MappingRules, RELEASED)
    spp = make_extractor("spp", network, mapping, (480, 688), "cpu")
    assert (type(spp), spp.scales, spp.mapping) == (SppWindows, (480, 688), mapping)
    rcnn = make_extractor("rcnn", network, mapping, (480, 688), "cpu")
    assert (type(rcnn), rcnn.scales, rcnn.mapping) == (RcnnWindows, (), mapping)


class MeanColours(Extractor):
    """A third method: each window's mean colour.  It says nothing about caching, timing or equal windows."""

    method = "mean"
    prepared = 0

    def prepare(self, image):
        MeanColours.prepared += 1
        return SimpleNamespace(size=image.shape[:2], pixels=image)

    def pool(self, prepared, boxes, scales=None):
        means = [
            prepared.pixels[y1 : y2 + 1, x1 : x2 + 1].mean(axis=(0, 1))
            for x1, y1, x2, y2 in boxes.astype(int)
        ]
        return torch.tensor(np.array(means, np.float32).reshape(-1, 3))

    def pool_in_steps(self, image, boxes, lap):
        vectors = self.pool(self.prepare(image), boxes)
        lap("pool")
        return vectors

    def conv_flops(self, size, windows):
        return 0


def test_a_third_method_is_one_class_and_a_line_in_the_table(
    network, monkeypatch, tmp_path, dataset, proposals
):
    monkeypatch.setitem(METHODS, "mean", MeanColours)
    extractor = make_extractor("mean", network, take(MappingRules, PAPER), (), "cpu")
    assert METHODS["mean"].protocol_of(RELEASED) is RELEASED
    image, boxes = (
        dataset.image(dataset.ids[0]),
        np.array([[0, 0, 3, 1], [0, 0, 3, 1], [2, 2, 9, 9]], np.float32),
    )
    expected = np.stack(
        [
            image[:2, :4].mean(axis=(0, 1)),
            image[:2, :4].mean(axis=(0, 1)),
            image[2:10, 2:10].mean(axis=(0, 1)),
        ]
    )
    vectors, rows = extractor.pool_distinct(extractor.prepare(image), boxes)
    np.testing.assert_allclose(vectors[rows], expected, rtol=1e-6)
    sample = np.array([0, 2])
    shapes = []
    time_image(extractor, lambda pooled: shapes.append(pooled.shape), image, boxes, sample)
    assert shapes == [(3, 3)]  # measured on two windows, but all three go through the layers

    # Its vectors are cached by window.
    sources = [
        WindowSource(dataset, proposals, extractor, FeatureCache(tmp_path / "mean", 1, weighed=False), 9)
        for _ in range(2)
    ]
    MeanColours.prepared = 0
    first = sources[0].pooled(0, flip=True)
    again = sources[1].pooled(0, np.array([4, 2]), flip=True)
    assert MeanColours.prepared == 1
    assert torch.equal(again, first[[4, 2]])
    mirrored = dataset.image(dataset.ids[0])[:, ::-1]
    x1, y1, x2, y2 = sources[0].windows(0).boxes[4].astype(int)
    width = mirrored.shape[1]
    expected = mirrored[y1 : y2 + 1, width - 1 - x2 : width - x1].mean(axis=(0, 1))
    np.testing.assert_allclose(again[0], expected, rtol=1e-3)
