"""The rules in which the detection methods differ: which windows they learn from, and how they fine-tune."""

from dataclasses import dataclass
from typing import Literal

from sppnet_cli.protocols import Protocol


@dataclass(frozen=True)
class MethodRules:
    """What a method prescribes beyond its features, each by value; the sources are at the protocol's fields."""

    background_iou: float  # fine-tuning's negatives overlap an object at least by this IoU
    bbox_iou: float  # box regression learns from windows that overlap an object by this IoU
    bbox_iou_inclusive: bool  # by this IoU or more; False: by more
    bbox_lambda: float  # ridge penalty of box regression
    finetune_schedule: tuple[tuple[float, int], ...]  # (learning rate, batches), one after the other
    fc8_rate: float  # factor of fc8's learning rate while fine-tuning
    # Near-duplicate negatives of the SVMs: IoU above the protocol's, equal conv5 cells and scale, or all are kept.
    duplicates: Literal["iou", "cells", "none"]
    cascade: bool  # whether the detector may skip the fc layers of windows that a linear guess rules out


def spp_rules(protocol: Protocol) -> MethodRules:
    """SPP-net's (paper section 4.1, released code)."""
    return MethodRules(
        background_iou=protocol.finetune_negative_iou,
        bbox_iou=protocol.bbox_iou,
        bbox_iou_inclusive=protocol.bbox_iou_inclusive,
        bbox_lambda=protocol.bbox_lambda,
        finetune_schedule=protocol.finetune_schedule,
        fc8_rate=1.0,
        duplicates=protocol.duplicate_rule,
        cascade=True,
    )


def rcnn_rules(protocol: Protocol) -> MethodRules:
    """R-CNN's own.  Its windows have no cells of a shared map, so the released code's rule drops none of them."""
    return MethodRules(
        background_iou=protocol.rcnn_background_iou,
        bbox_iou=protocol.rcnn_bbox_iou,
        bbox_iou_inclusive=False,
        bbox_lambda=protocol.rcnn_bbox_lambda,
        finetune_schedule=protocol.rcnn_finetune_schedule,
        fc8_rate=protocol.rcnn_fc8_rate,
        duplicates="iou" if protocol.duplicate_rule == "iou" else "none",
        cascade=False,  # warping and the conv layers take nearly all of R-CNN's time
    )


RULES = {"spp": spp_rules, "rcnn": rcnn_rules}
