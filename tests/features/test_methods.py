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
from sppnet_cli.network.sppnet import SPPNet
from sppnet_cli.protocols import PAPER, RELEASED, Protocol

RCNN = {
    "background_iou": 0.0,
    "bbox_iou": 0.6,
    "bbox_iou_inclusive": False,
    "bbox_lambda": 1000.0,
    "finetune_schedule": ((1e-3, 20_000), (1e-4, 20_000), (1e-5, 20_000), (1e-6, 10_000)),
    "fc8_rate": 10.0,
    "cascade": False,
}


def test_spp_rules_of_both_protocols() -> None:
    assert asdict(SppWindows.rules_of(PAPER)) == {
        "background_iou": 0.1,
        "bbox_iou": 0.5,
        "bbox_iou_inclusive": True,
        "bbox_lambda": 1000.0,
        "finetune_schedule": ((1e-4, 250_000), (1e-5, 50_000)),
        "fc8_rate": 1.0,
        "duplicates": "iou",
        "cascade": True,
    }
    assert asdict(SppWindows.rules_of(RELEASED)) == {
        "background_iou": 0.1,
        "bbox_iou": 0.5,
        "bbox_iou_inclusive": False,
        "bbox_lambda": 4000.0,
        "finetune_schedule": ((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000)),
        "fc8_rate": 1.0,
        "duplicates": "cells",
        "cascade": True,
    }


@pytest.mark.parametrize(("protocol", "duplicates"), [(PAPER, "iou"), (RELEASED, "none")])
def test_rcnn_keeps_its_own_rules_under_either_protocol(protocol: Protocol, duplicates: str) -> None:
    assert asdict(RcnnWindows.rules_of(protocol)) == {**RCNN, "duplicates": duplicates}


def test_extractors_carry_the_rules_of_their_method_and_protocol(network: SPPNet) -> None:
    assert SppWindows(network, RELEASED, (480,)).rules == SppWindows.rules_of(RELEASED)
    assert RcnnWindows(network, RELEASED).rules == RcnnWindows.rules_of(RELEASED)


def test_methods_by_name(network):
    assert {"spp": SppWindows, "rcnn": RcnnWindows} == METHODS
    spp = make_extractor("spp", network, RELEASED, (480, 688), "cpu")
    assert (type(spp), spp.scales, spp.protocol) == (SppWindows, (480, 688), RELEASED)
    rcnn = make_extractor("rcnn", network, RELEASED, (480, 688), "cpu")
    assert (type(rcnn), rcnn.scales, rcnn.protocol) == (RcnnWindows, (), RELEASED)


class MeanColours(Extractor):
    """A third method: each window's mean colour.  It says nothing about caching, timing or equal windows."""

    method = "mean"
    prepared = 0

    @staticmethod
    def rules_of(protocol):
        return SppWindows.rules_of(protocol)

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
    extractor = make_extractor("mean", network, PAPER, (), "cpu")
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
