"""The rules in which the detection methods differ: which windows they learn from, and how they fine-tune."""

from dataclasses import dataclass
from typing import Literal


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
