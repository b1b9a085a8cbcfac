"""Features of whole images as a run directory."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sppnet_cli.stages.extract import ExtractConfig, extract_stage, images_fingerprint

from sppnet_cli.data.images import find_images, read_image
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.extract import ImageFeatures, whole_image
from sppnet_cli.features.store import read_features
from sppnet_cli.network.weights import load_network
from sppnet_cli.runs import read_manifest

CONFIG = ExtractConfig(("conv5", "SPP pool5"), "crop", 224)

EXTRACT = """
import sys
from pathlib import Path
from sppnet_cli.stages.extract import ExtractConfig, extract_stage

network, images, out = map(Path, sys.argv[1:])
extract_stage(ExtractConfig(("conv5", "SPP pool5"), "crop", 224), network, sorted(images.glob("*.jpg")) * 6, out)
"""


@pytest.fixture
def paths(tiny_data):
    return find_images([tiny_data / "VOCdevkit" / "VOC2007" / "JPEGImages"])


def test_files_and_manifest(tiny_network, paths, tmp_path):
    run = extract_stage(CONFIG, tiny_network, paths[:3], tmp_path / "run", workers=2)
    assert sorted(path.name for path in run.iterdir()) == [
        "SPP-pool5.npy", "conv5.npy", "index.csv", "manifest.json",
    ]  # fmt: skip
    with (run / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"row": str(k), "image": str(path)} for k, path in enumerate(paths[:3])]
    features = ImageFeatures(load_network(tiny_network), CONFIG.layers, "crop", 224)
    expected = features(whole_image(read_image(paths[1]), 224, "crop"))
    for layer in CONFIG.layers:
        np.testing.assert_array_equal(read_features(run, layer)[1], expected[layer])
    manifest = read_manifest(run)
    assert manifest["config"] == {"layers": ["conv5", "SPP pool5"], "view": "crop", "size": 224}
    assert set(manifest["inputs"]) == {"network", "images"}


def test_the_same_call_returns_at_once_and_another_is_refused(tiny_network, paths, tmp_path):
    run = extract_stage(CONFIG, tiny_network, paths[:2], tmp_path / "run")
    before = (run / "conv5.npy").stat().st_mtime_ns
    assert extract_stage(CONFIG, tiny_network, paths[:2], tmp_path / "run") == run
    assert (run / "conv5.npy").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="from other sources: images"):
        extract_stage(CONFIG, tiny_network, paths[:3], tmp_path / "run")


def test_what_stands_for_images(tmp_path):
    names = ("a/one.jpg", "a/two.jpg", "b/one.jpg")
    for copy in ("here", "there"):
        for size, name in enumerate(names):
            path = tmp_path / copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
    here, there = ([tmp_path / copy / name for name in names] for copy in ("here", "there"))
    assert images_fingerprint(here) == images_fingerprint(there)
    assert images_fingerprint(here) != images_fingerprint(here[::-1])
    assert images_fingerprint(here) != images_fingerprint(here[:2])
    here[1].write_bytes(b"other")
    assert images_fingerprint(here) != images_fingerprint(there)


def test_an_image_that_is_missing_is_named(tiny_network, paths, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jpg: no such image file"):
        extract_stage(CONFIG, tiny_network, [*paths[:2], tmp_path / "nowhere.jpg"], tmp_path / "run")
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize(
    "fields",
    [(("fc9",), "full", 224), (("fc7",), "crop", 200), (("conv4",), "full", 224), (("fc7",), "all", 224)],
)
def test_what_no_network_can_give_is_told_before_any_work(fields):
    with pytest.raises(UsageError):
        ExtractConfig(*fields)


def test_an_extraction_that_is_killed_goes_on(tiny_network, paths, tmp_path):
    script = tmp_path / "extract.py"
    script.write_text(EXTRACT)
    command = [sys.executable, script, tiny_network, paths[0].parent]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    mark = tmp_path / "run.partial" / "progress" / "0.npy"
    process = subprocess.Popen([*command, tmp_path / "run"], env=environment)
    deadline = time.monotonic() + 60
    while not mark.is_file() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = np.load(mark)
    assert 64 <= done.sum() < len(done) == 6 * len(paths)

    started = json.loads((tmp_path / "run.partial" / "started.json").read_text())
    run = extract_stage(CONFIG, tiny_network, paths * 6, tmp_path / "run")
    whole = extract_stage(CONFIG, tiny_network, paths * 6, tmp_path / "whole")
    assert read_manifest(run)["inputs"] == started["inputs"]
    for name in ("conv5.npy", "SPP-pool5.npy", "index.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "progress").exists()
