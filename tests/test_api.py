"""The public API: light to import, arrays in and out, one line for what is wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import sppnet_cli
from sppnet_cli import SpatialPyramidPooling, average_precision, pool_windows, propose, read_image
from sppnet_cli.errors import DataError, UsageError

TUNED = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}


def in_new_process(program, **variables):
    """What a program prints as JSON, in a process whose environment has none of the variables of `TUNED`."""
    environment = {name: value for name, value in os.environ.items() if name not in TUNED}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    done = subprocess.run(
        [sys.executable, "-c", f"import json, os, sys\n{program}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_changes_nothing_of_the_process():
    changed, loaded = in_new_process(
        "import signal\n"
        "state = lambda: [dict(os.environ), list(sys.path), signal.getsignal(signal.SIGTERM)]\n"
        "before = state()\n"
        "from sppnet_cli import read_image, propose\n"
        "print(json.dumps([state() != before, sorted({'torch', 'click', 'pandas', 'cv2'} & set(sys.modules))]))"
    )
    assert not changed
    assert loaded == []


def test_reading_an_image_loads_no_torch(tmp_path):
    Image.new("L", (4, 3), 7).save(tmp_path / "grey.png")
    shape, loaded = in_new_process(
        "from sppnet_cli import propose, read_image\n"
        f"image = read_image({str(tmp_path / 'grey.png')!r})\n"
        "assert propose(image, 'edgeboxes').shape == (0, 4)\n"
        "print(json.dumps([image.shape, 'torch' in sys.modules]))"
    )
    assert (shape, loaded) == ([3, 4, 3], False)


def test_tuning_sets_what_is_not_set():
    program = "import sppnet_cli\nsppnet_cli.tune_process()\nprint(json.dumps(dict(os.environ)))"
    assert in_new_process(program).items() >= TUNED.items()
    found = in_new_process(program, OMP_WAIT_POLICY="ACTIVE")
    assert found.items() >= (TUNED | {"OMP_WAIT_POLICY": "ACTIVE"}).items()


def test_the_command_line_and_its_workers_are_tuned():
    found = in_new_process(
        "from sppnet_cli import processes\n"
        "processes._start(os.getppid(), lambda: None, ())\n"
        "print(json.dumps(dict(os.environ)))"
    )
    assert found.items() >= TUNED.items()
    found = in_new_process(
        "import click\nfrom sppnet_cli.cli import run\n"
        "run(click.command()(lambda: print(json.dumps(dict(os.environ)))), 'x')"
    )
    assert found.items() >= TUNED.items()


def test_every_name_is_there_and_no_other():
    assert set(sppnet_cli.__all__) <= set(dir(sppnet_cli))
    for name in sppnet_cli.__all__:
        assert getattr(sppnet_cli, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'pool_window'"):
        _ = sppnet_cli.pool_window


@pytest.mark.parametrize("levels", [(1, 2, 3, 6), (1,), (4, 2)])
def test_windows_are_pooled_as_the_layer_pools_them(levels):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 9, 13)).astype(np.float32)
    cells = [[0, 0, 12, 8], [3, 2, 3, 2], [4, 1, 10, 7]]
    pooled = pool_windows(maps, cells, levels)
    pyramid = SpatialPyramidPooling(levels)
    for vector, (x1, y1, x2, y2) in zip(pooled, cells, strict=True):
        part = torch.from_numpy(maps[None, :, y1 : y2 + 1, x1 : x2 + 1])
        assert vector.tolist() == pyramid(part)[0].tolist()
    assert pyramid.bins * 5 == pooled.shape[1]
    assert pool_windows(maps, [], levels).shape == (0, pooled.shape[1])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 0, 4, 1]], "4 wide and 3 high"),
        ([[0, 0, 1, 3]], "inside the map"),
        ([[-1, 0, 1, 1]], "inside the map"),
        ([[2, 0, 1, 1]], "x1 <= x2"),
        ([[0.5, 0, 1, 1]], "whole numbers"),
        ([0, 0, 1, 1], "whole numbers"),
    ],
)
def test_cells_outside_of_the_map(cells, message):
    maps = np.zeros((2, 3, 4), np.float32)
    assert pool_windows(maps, [[0, 0, 3, 2]]).shape == (1, 100)
    with pytest.raises(UsageError, match=message):
        pool_windows(maps, cells)


def test_maps_that_cannot_be_pooled():
    cells = [[0, 0, 0, 0]]
    for maps, levels in (
        (np.zeros((3, 4), np.float32), (1,)),
        (np.full((1, 1, 1), np.nan, np.float32), (1,)),
        (np.zeros((1, 1, 1), np.float32), ()),
        (np.zeros((1, 1, 1), np.float32), (0, 2)),
    ):
        with pytest.raises(UsageError):
            pool_windows(maps, cells, levels)


def test_windows_lie_in_the_image_and_no_other_array_is_taken():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:50, 30:70] = (200, 30, 90)
    boxes = propose(image, seed=1)
    assert boxes.dtype == np.float32
    assert len(boxes)
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] < [80, 60]).all()
    for wrong in (image[:, :, 0], image.astype(np.float32), image[:, :, :2]):
        with pytest.raises(UsageError, match="an image is RGB"):
            propose(wrong)
    with pytest.raises(UsageError, match="unknown method"):
        propose(image, "guess")


def test_average_precision_by_hand():
    boxes = [[[0, 0, 9, 9]], [[0, 0, 9, 9]]]
    right, wrong = [0, 0, 9, 9], [50, 50, 59, 59]
    # Right at rank 1 (recall 1/2, precision 1), wrong, right at rank 3 (recall 1, precision 2/3).
    found = [[[*right, 0.9], [*wrong, 0.8]], [[*right, 0.7]]]
    assert average_precision(found, boxes) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # The second object is difficult: its detection and it itself do not count.
    assert average_precision(found, boxes, [[False], [True]]) == pytest.approx(1)
    assert average_precision([[], []], boxes) == 0
    assert np.isnan(average_precision(found, [[], []]))
    with pytest.raises(UsageError, match="2 images, boxes of 1"):
        average_precision(found, boxes[:1])
    with pytest.raises(UsageError, match="flags"):
        average_precision(found, boxes, [[], []])


def test_images_are_read_from_text_and_paths(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    for path in (tmp_path / "x.png", str(tmp_path / "x.png")):
        assert (read_image(path) == pixels).all()
    with pytest.raises(DataError, match=r"gone\.png"):
        read_image("gone.png")


def test_features_are_what_the_svms_see(random_detector):
    detector = sppnet_cli.Detector.load(str(random_detector))
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 119, 89], [10, 20, 60, 70], [10, 20, 60, 70]], np.float32)
    detector.set_image(image)
    features = detector.features(boxes)
    assert features.dtype == np.float32
    svms = detector.svms
    scores = features.astype(np.float64) @ (svms.weights * svms.scale).T + svms.bias
    np.testing.assert_allclose(detector.score(boxes), scores, rtol=1e-4, atol=1e-4)
    assert (features[1] == features[2]).all()
    assert (features[0] != features[1]).any()
