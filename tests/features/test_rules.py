"""The numbers in which SPP-net and R-CNN differ, as published."""

from dataclasses import asdict

import pytest

from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.rules import rcnn_rules, spp_rules
from sppnet_cli.features.spp import SppWindows
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
    assert asdict(spp_rules(PAPER)) == {
        "background_iou": 0.1,
        "bbox_iou": 0.5,
        "bbox_iou_inclusive": True,
        "bbox_lambda": 1000.0,
        "finetune_schedule": ((1e-4, 250_000), (1e-5, 50_000)),
        "fc8_rate": 1.0,
        "duplicates": "iou",
        "cascade": True,
    }
    assert asdict(spp_rules(RELEASED)) == {
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
    assert asdict(rcnn_rules(protocol)) == {**RCNN, "duplicates": duplicates}


def test_extractors_carry_the_rules_of_their_method_and_protocol(network: SPPNet) -> None:
    assert SppWindows(network, RELEASED, (480,)).rules == spp_rules(RELEASED)
    assert RcnnWindows(network, RELEASED).rules == rcnn_rules(RELEASED)
