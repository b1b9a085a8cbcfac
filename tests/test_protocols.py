import dataclasses

import pytest

from sppnet_cli.errors import UsageError
from sppnet_cli.protocols import ALL_SCALES, PAPER, PROTOCOLS, RELEASED, parse_scales


def test_the_protocols_by_name():
    assert PROTOCOLS == {"paper": PAPER, "released": RELEASED, "all-scales": ALL_SCALES}


def test_pooling_over_all_scales_is_the_papers_protocol_but_for_that():
    paper, ours = dataclasses.asdict(PAPER), dataclasses.asdict(ALL_SCALES)
    differing = {name: ours[name] for name in ours if ours[name] != paper[name]}
    assert differing == {"name": "all-scales", "scale_rule": "all"}


@pytest.mark.parametrize(
    ("name", "paper", "released"),
    [
        # SPEC section 0, row by row.
        ("scales", (480, 576, 688, 864, 1200), (480, 576, 688, 874, 1200)),
        ("single_scale", 688, 688),
        ("scale_rule", "closest-area", "rounded-side"),
        ("finetune_scale", "best", "random"),
        ("duplicate_rule", "iou", "cells"),
        ("negative_iou_inclusive", True, False),
        ("bbox_iou_inclusive", True, False),
        ("bbox_lambda", 1000, 4000),
        ("nms_ties", "first", "last"),
        ("cell_slack", 0, 1.5 / 16),
        ("whole_image_loss", "hinge", "squared-hinge"),
        ("lighting", "variance", "deviation"),
        # Sections 4 to 6, the same in both.
        ("whole_image_c", 1, 1),
        ("rcnn_background_iou", 0, 0),
        ("rcnn_bbox_iou", 0.6, 0.6),
        ("rcnn_bbox_lambda", 1000, 1000),
        ("rcnn_fc8_rate", 10, 10),
        ("feature_norm", 20, 20),
        ("negative_iou", 0.3, 0.3),
        ("duplicate_iou", 0.7, 0.7),
        ("svm_c", 0.001, 0.001),
        ("svm_positive_weight", 2, 2),
        ("svm_bias", 10, 10),
        ("svm_hard_score", -1.0001, -1.0001),
        ("svm_evict_score", -1.2, -1.2),
        ("svm_retrain_after", 2000, 2000),
        ("finetune_positive_iou", 0.5, 0.5),
        ("finetune_negative_iou", 0.1, 0.1),
        ("finetune_batch", 128, 128),
        ("finetune_positive_fraction", 0.25, 0.25),
        ("bbox_iou", 0.5, 0.5),
        ("score_threshold", -1.5, -1.5),
        ("nms_iou", 0.3, 0.3),
        ("max_per_image", 100, 100),
    ],
)
def test_numbers_of_the_specification(name, paper, released):
    assert getattr(PAPER, name) == paper
    assert getattr(RELEASED, name) == released


def test_fine_tuning_schedules():
    assert PAPER.finetune_schedule == ((1e-4, 250_000), (1e-5, 50_000))
    assert RELEASED.finetune_schedule == ((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000))
    assert sum(batches for _, batches in RELEASED.finetune_schedule) == 200_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("480..1200", (480, 576, 688, 864, 1200)),
        ("576..864", (576, 688, 864)),
        ("500..700", (576, 688)),
        ("688..688", (688,)),
        ("480,576,688", (480, 576, 688)),
        ("1200, 480", (480, 1200)),
        ("480,480", (480,)),
        ("688", (688,)),
        ("600", (600,)),
    ],
)
def test_scales(text, expected):
    assert parse_scales(text, PAPER) == expected


def test_a_range_names_the_scales_of_its_protocol():
    assert parse_scales("700..1000", PAPER) == (864,)
    assert parse_scales("700..1000", RELEASED) == (874,)
    assert parse_scales("480..1200", RELEASED) == (480, 576, 688, 874, 1200)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "large",
        "480-1200",
        "480...1200",
        "480..",
        "..",
        "480..688..1200",
        "480,",
        "480;688",
        "688.0",
        "1e3",
    ],
)
def test_what_is_no_list_of_scales(text):
    with pytest.raises(UsageError, match=r"write 480\.\.1200, 480,576,688 or 688") as caught:
        parse_scales(text, PAPER)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["1200..480", "10..20", "600..650", "0", "-480", "0,688"])
def test_scales_that_do_not_fit(text):
    with pytest.raises(UsageError, match="protocol released has 480, 576, 688, 874, 1200"):
        parse_scales(text, RELEASED)
