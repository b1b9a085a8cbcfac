"""The two protocols where the paper (P) and the authors' released code (R) differ, each as one frozen record.

`ALL_SCALES` is the paper's with the strategy that it tried and rejected.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

from sppnet_cli.errors import UsageError

ImageLoss = Literal["hinge", "squared-hinge"]
Lighting = Literal["variance", "deviation"]
NmsTies = Literal["first", "last"]


@dataclass(frozen=True)
class Protocol:
    """Every number of the detection method on which P and R differ, and those they share.

    Sources: P sections 4.1-4.2, R's `spp_config`, `spp_*` scripts and prototxt; see each field.
    """

    name: str

    # Scales, min(w, h) in pixels.  R: 874 in place of P's 864.
    scales: tuple[int, ...]
    single_scale: int
    # Scale of a window.  P: scaled window's pixel count closest to 224x224.  R: `spp_feat_to_pool5...`'s rounding.
    # All: P's rejected strategy (section 4.1), the maxima over the maps of all scales, channel by channel.
    scale_rule: Literal["closest-area", "rounded-side", "all"]
    # Scale of a window while fine-tuning.  P: the best one.  R: uniformly random.
    finetune_scale: Literal["best", "random"]
    # Window to cells.  P: centre strictly inside.  R: centre in (x1 - slack, x2 + slack), slack in strides.
    cell_slack: float
    # (learning rate, batches).  P section 4.1.  R's solver.
    finetune_schedule: tuple[tuple[float, int], ...]
    # Near-duplicate negatives of the SVM.  P: IoU > .7 to a kept negative.  R: same conv5 cell box and scale.
    duplicate_rule: Literal["iou", "cells", "none"]
    # A negative may overlap a box of the class by IoU at most (P "at most 30%") or strictly less (R).
    negative_iou_inclusive: bool
    # Box regression.  P: IoU >= .5, lambda of R-CNN (P is silent).  R: IoU > .5, lambda 4000.
    bbox_iou_inclusive: bool
    bbox_lambda: float
    # SVMs on whole images, C = 1, one against the rest.  P cites LIBSVM: hinge loss, the bias not regularised.  R has
    # no code for them; its detectors' liblinear has the squared hinge and a regularised bias as its default.
    whole_image_loss: ImageLoss
    # Colour altering while pre-training: N(0, .1) times this strength of each principal component of pixels in [0, 1].
    # P cites AlexNet, whose text says eigenvalues, which are variances: a deviation of 5.2 grey levels along
    # ImageNet's first component.  AlexNet's later code, cuda-convnet2, takes their roots: 11.5 grey levels.
    lighting: Lighting
    # Which of two windows of equal score NMS keeps.  P is silent: the first in the proposals' order.  R: the last, since
    # `nms_mex.cpp` puts the scores into a multimap, whose equal keys stay in their order, and reads it from its end.
    nms_ties: NmsTies

    # Shared by P and R.
    negative_iou: float = 0.3
    duplicate_iou: float = 0.7
    finetune_positive_iou: float = 0.5  # positives [.5, 1]
    finetune_negative_iou: float = 0.1  # negatives [.1, .5)
    finetune_batch: int = 128
    finetune_fc8_rate: float = 1.0  # times the rate of the other layers
    finetune_positive_fraction: float = 0.25
    bbox_iou: float = 0.5
    whole_image_c: float = 1.0
    feature_norm: float = 20.0  # R: mean L2 norm of the features after scaling
    svm_c: float = 1e-3
    svm_positive_weight: float = 2.0
    svm_bias: float = 10.0
    svm_tolerance: float = 1e-3  # of the dual's projected gradients; liblinear's own default is .1
    svm_hard_score: float = -1.0001
    svm_evict_score: float = -1.2
    svm_retrain_after: int = 2000
    score_threshold: float = -1.5
    nms_iou: float = 0.3
    max_per_image: int = 100  # per class

    # R-CNN's own numbers (its paper's section 2.3 and appendix C, its released code), under either protocol.
    rcnn_background_iou: float = 0.0  # fine-tuning's negatives: [0, .5)
    rcnn_bbox_iou: float = 0.6  # strictly above
    rcnn_bbox_lambda: float = 1000.0
    # Its solver divides the rate by 10 every 20,000 batches; its published VOC 2007 model is that of batch 70,000.
    rcnn_finetune_schedule: tuple[tuple[float, int], ...] = (
        (1e-3, 20_000),
        (1e-4, 20_000),
        (1e-5, 20_000),
        (1e-6, 10_000),
    )
    rcnn_fc8_rate: float = 10.0  # times that of the other layers (`fc8_pascal`)


PAPER = Protocol(
    name="paper",
    scales=(480, 576, 688, 864, 1200),
    single_scale=688,
    scale_rule="closest-area",
    finetune_scale="best",
    cell_slack=0.0,
    finetune_schedule=((1e-4, 250_000), (1e-5, 50_000)),
    duplicate_rule="iou",
    negative_iou_inclusive=True,
    bbox_iou_inclusive=True,
    bbox_lambda=1000.0,
    whole_image_loss="hinge",
    lighting="variance",
    nms_ties="first",
)

RELEASED = Protocol(
    name="released",
    scales=(480, 576, 688, 874, 1200),
    single_scale=688,
    scale_rule="rounded-side",
    finetune_scale="random",
    cell_slack=1.5 / 16,
    finetune_schedule=((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000)),
    duplicate_rule="cells",
    negative_iou_inclusive=False,
    bbox_iou_inclusive=False,
    bbox_lambda=4000.0,
    whole_image_loss="squared-hinge",
    lighting="deviation",
    nms_ties="last",
)

ALL_SCALES = replace(PAPER, name="all-scales", scale_rule="all")

PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, RELEASED, ALL_SCALES)}


def parse_scales(text: str, protocol: Protocol) -> tuple[int, ...]:
    """Detection scales from `480..1200` (the protocol's in that closed range), `480,688` or `688`.

    Raises `UsageError` for anything else, and for a range that holds none of the protocol's scales.
    """
    try:
        if ".." in text:
            low, high = (int(side) for side in text.split(".."))
            scales = tuple(s for s in protocol.scales if low <= s <= high)
        else:
            scales = tuple(sorted({int(side) for side in text.split(",")}))
    except ValueError:
        raise UsageError(f"scales {text!r}: write 480..1200, 480,576,688 or 688") from None
    if not scales or scales[0] < 1:
        known = ", ".join(map(str, protocol.scales))
        raise UsageError(f"scales {text!r}: none fits; protocol {protocol.name} has {known}")
    return scales


# What a stage takes of a protocol: its config holds these by value, so that a changed number makes anew the stages that
# it bears on and no others.  The fields are the protocol's, see there.


@dataclass(frozen=True)
class MappingRules:
    """From windows to cells of a map."""

    scale_rule: Literal["closest-area", "rounded-side", "all"]
    cell_slack: float


@dataclass(frozen=True)
class FinetuneRules:
    """Fine-tuning."""

    finetune_scale: Literal["best", "random"]
    finetune_positive_iou: float
    finetune_negative_iou: float
    finetune_batch: int
    finetune_positive_fraction: float


@dataclass(frozen=True)
class SvmRules:
    """The SVMs of a detector."""

    negative_iou: float
    negative_iou_inclusive: bool
    duplicate_rule: Literal["iou", "cells", "none"]
    duplicate_iou: float
    feature_norm: float
    svm_c: float
    svm_positive_weight: float
    svm_bias: float
    svm_hard_score: float
    svm_evict_score: float
    svm_retrain_after: int
    svm_tolerance: float


@dataclass(frozen=True)
class BboxRules:
    """Box regression."""

    bbox_iou: float
    bbox_iou_inclusive: bool
    bbox_lambda: float
    feature_norm: float


@dataclass(frozen=True)
class DetectRules:
    """From scores to detections."""

    score_threshold: float
    nms_iou: float
    nms_ties: NmsTies
    max_per_image: int


@dataclass(frozen=True)
class ImageSvmRules:
    """SVMs on whole images."""

    whole_image_loss: ImageLoss
    whole_image_c: float


Rules = TypeVar("Rules", MappingRules, FinetuneRules, SvmRules, BboxRules, DetectRules, ImageSvmRules)


def take(rules: type[Rules], protocol: Protocol) -> Rules:
    """The part of a protocol that a stage takes."""
    return rules(**{field.name: getattr(protocol, field.name) for field in fields(rules)})


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.  Raises `UsageError` for another."""
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
