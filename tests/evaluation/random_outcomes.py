"""Outcomes of detections, at random."""

import numpy as np

from sppnet_cli.evaluation.outcomes import DetectionOutcome


def random_detections(rng, images=12, classes=3, count=150):
    order = np.sort(rng.integers(classes, size=count))
    return DetectionOutcome(
        rng.integers(images, size=count).astype(np.int32),
        order.astype(np.int16),
        rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=count).astype(np.int8),
        rng.integers(4, size=(images, classes)).astype(np.int32) + 3,
    )
