"""Stand-ins for a window source: hand-made windows and features, no images and no network."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sppnet_cli.data.voc import Annotation
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.features.windows import ImageWindows
from sppnet_cli.network.receptive import Geometry
from sppnet_cli.protocols import PAPER


def plain_iou(a, b):
    """IoU of two boxes of inclusive pixels, in plain Python."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def image_windows(proposals=(), truth=(), labels=None, difficult=None, size=(400, 500), with_truth=True):
    """Windows of one image: `truth` boxes (of class 0 unless `labels` says otherwise), then `proposals`."""
    truth = np.array(truth, dtype=np.float32).reshape(-1, 4)
    proposals = np.array(proposals, dtype=np.float32).reshape(-1, 4)
    n_truth = len(truth) if with_truth else 0
    boxes = np.concatenate([truth[:n_truth], proposals])
    overlaps = [[plain_iou(box, other) for other in truth.tolist()] for box in boxes.tolist()]
    annotation = Annotation(
        boxes=truth,
        labels=np.array(labels if labels is not None else [0] * len(truth), dtype=np.int64),
        difficult=np.array(difficult if difficult is not None else [False] * len(truth), dtype=bool),
        size=size,
    )
    overlaps = np.array(overlaps, dtype=np.float64).reshape(len(boxes), len(truth))
    return ImageWindows("image", size, boxes, annotation, n_truth, overlaps)


def bare_extractor(protocol=PAPER, dimension=4, method="spp"):
    """An extractor on a network that has ZF-5's geometry and nothing else."""
    network = nn.Module()
    network.trunk = nn.Identity()
    network.spec = SimpleNamespace(levels=(1, 2, 3, 6))
    network.geometry = Geometry(16, 20.0, 139)
    network.pooled_size = dimension
    network.head = None
    if method == "rcnn":
        return RcnnWindows(network, protocol)
    return SppWindows(network, protocol, protocol.scales)


@dataclass
class FakeSource:
    """A `WindowSource` of given windows and features; `calls` holds what was pooled."""

    images: list
    features: list
    extractor: object
    class_names: tuple = ("a", "b", "c")
    calls: list = field(default_factory=list)

    @property
    def dataset(self):
        return SimpleNamespace(class_names=self.class_names, root=Path("made"))

    def __len__(self):
        return len(self.images)

    def windows(self, index):
        return self.images[index]

    def pooled(self, index, rows=None, *, flip=False, scales=None):
        self.calls.append((index, None if rows is None else rows.copy(), flip, scales))
        features = torch.from_numpy(np.asarray(self.features[index], dtype=np.float32))
        return features if rows is None else features[torch.from_numpy(rows)]


def stored_rows(store, slots):
    """Rows `(n, D)` float16 of a `RowStore`, by numpy alone."""
    rows = np.zeros((len(slots), store.dimension), dtype=np.float16)
    for row, slot in zip(rows, slots, strict=True):
        words = store.words[store.start[slot] : store.stop[slot]]
        mask = np.unpackbits(words[: store.mask].view(np.uint8), count=store.dimension, bitorder="little")
        row[mask.astype(bool)] = words[store.mask :].view(np.float16)
    return rows


@pytest.fixture
def rows_of():
    return stored_rows


@pytest.fixture
def windows_of():
    return image_windows


@pytest.fixture
def extractor_of():
    return bare_extractor


@pytest.fixture
def source_of():
    """Makes a `FakeSource` of images and their features `(N, D)`; see `bare_extractor` for the rest."""

    def make(images, features, protocol=PAPER, method="spp", class_names=("a", "b", "c")):
        dimension = np.asarray(features[0]).shape[1]
        return FakeSource(images, features, bare_extractor(protocol, dimension, method), class_names)

    return make


@pytest.fixture
def iou_of():
    return plain_iou
