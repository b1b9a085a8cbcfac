import numpy as np
import pytest
import torch

from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.network.geometry import choose_scales
from sppnet_cli.protocols import ALL_SCALES, PAPER, RELEASED

IMAGE = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)


def shifted(count=60):
    """Windows (N, 4) of which many differ by a pixel or two."""
    rng = np.random.default_rng(1)
    corners = rng.integers(0, (100, 70), (6, 2))
    boxes = np.concatenate([corners, corners + rng.integers(30, 75, (6, 2))], axis=1)
    return (boxes[rng.integers(0, 6, count)] + rng.integers(0, 3, (count, 4))).astype(np.float32)


@pytest.mark.parametrize("protocol", [PAPER, RELEASED, ALL_SCALES], ids=lambda p: p.name)
@pytest.mark.parametrize("scales", [(240,), (160, 240, 320)])
def test_every_window_has_the_vector_it_has_alone(network, protocol, scales):
    extractor = SppWindows(network, protocol, scales)
    prepared = extractor.prepare(IMAGE)
    boxes = shifted()
    vectors, rows = extractor.pool_distinct(prepared, boxes)
    assert torch.equal(vectors[torch.from_numpy(rows)], extractor.pool(prepared, boxes))
    # As many as there are sets of cells, counted in plain Python.
    cells = [extractor.cells(prepared, boxes, index).tolist() for index in range(len(scales))]
    if protocol is ALL_SCALES:
        keys = {tuple(tuple(of_scale[n]) for of_scale in cells) for n in range(len(boxes))}
    else:
        choice = choose_scales(boxes, prepared.size, scales, protocol)
        keys = {(k, *cells[k][n]) for n, k in enumerate(choice)}
    assert len(vectors) == len(keys) < len(boxes)
    assert sorted(set(rows.tolist())) == list(range(len(vectors)))


def test_no_windows(network):
    extractor = SppWindows(network, PAPER, (160, 240))
    vectors, rows = extractor.pool_distinct(extractor.prepare(IMAGE), np.empty((0, 4), np.float32))
    assert vectors.shape == (0, network.pooled_size)
    assert rows.shape == (0,)


def test_of_rcnn_each_has_its_own(network):
    extractor = RcnnWindows(network, PAPER)
    boxes = np.repeat(shifted(2), 2, axis=0)
    prepared = extractor.prepare(IMAGE)
    vectors, rows = extractor.pool_distinct(prepared, boxes)
    assert rows.tolist() == [0, 1, 2, 3]
    assert torch.equal(vectors, extractor.pool(prepared, boxes))
