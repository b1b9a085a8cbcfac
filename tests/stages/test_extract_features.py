"""Features of whole images as a run directory."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sppnet_cli.data.caltech101 import load_caltech101
from sppnet_cli.data.images import find_images, read_image
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.features.extract import ImageFeatures, whole_image
from sppnet_cli.features.store import read_features
from sppnet_cli.network.weights import load_network
from sppnet_cli.runs import read_manifest
from sppnet_cli.stages.extract_features import ExtractConfig, ImageSet, extract, read_index

CONFIG = ExtractConfig(("conv5", "SPP pool5"), "crop", 224, None)

EXTRACT = """
import sys
from pathlib import Path
from sppnet_cli.chain import Cost, Resources, Stage
from sppnet_cli.making import build_stage
from sppnet_cli.stages.extract_features import ExtractConfig, extract

network, images, out = map(Path, sys.argv[1:])
config = ExtractConfig(("conv5", "SPP pool5"), "crop", 224, None)
files = tuple(sorted(images.glob("*.jpg")) * 6)
build_stage(Stage("stage", config, {"network": network}, out, extract, Cost, files), Resources())
"""


@pytest.fixture
def paths(tiny_data):
    return find_images([tiny_data / "VOCdevkit" / "VOC2007" / "JPEGImages"])


@pytest.fixture
def run_of(make, tiny_network):
    """Extracts features of files."""

    def run(paths, name="run", workers=1):
        return make(extract, CONFIG, {"network": tiny_network}, name, images=paths, workers=workers)

    return run


def test_files_and_manifest(run_of, tiny_network, paths):
    run = run_of(paths[:3], workers=2)
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
    assert manifest["config"] == {
        "layers": ["conv5", "SPP pool5"],
        "view": "crop",
        "size": 224,
        "images": None,
    }
    assert set(manifest["inputs"]) == {"network", "images"}


def test_the_same_call_returns_at_once_and_another_is_refused(run_of, paths):
    run = run_of(paths[:2])
    before = (run / "conv5.npy").stat().st_mtime_ns
    assert run_of(paths[:2]) == run
    assert (run / "conv5.npy").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="from other sources: images"):
        run_of(paths[:3])


@pytest.mark.parametrize(
    ("images", "folder"),
    [
        (ImageSet("VOC", "trainval"), "VOCdevkit"),
        (ImageSet("VOC", "test", 3), "VOCdevkit"),
        (ImageSet("Caltech101", None, 5), "caltech101"),
    ],
)
def test_the_images_of_a_set_in_its_order(make, tiny_network, tiny_data, images, folder):
    config = ExtractConfig(("SPP pool5",), "warp", 64, images)
    data = tiny_data / folder
    run = make(extract, config, {"network": tiny_network, "data": data})
    with (run / "index.csv").open(newline="") as file:
        listed = [row["image"] for row in csv.DictReader(file)]
    if images.dataset == "VOC":
        dataset = load_voc(data, images.split, images.limit)
        assert listed == [str(dataset.image_path(image_id)) for image_id in dataset.ids]
    else:
        assert listed == list(map(str, load_caltech101(data, images.limit).paths))
    assert len(listed) == len(read_features(run, "SPP pool5")) == (images.limit or 20)
    features = ImageFeatures(load_network(tiny_network), ("SPP pool5",), "warp", 64)
    expected = features(whole_image(read_image(Path(listed[-1])), 64, "warp"))
    np.testing.assert_array_equal(read_features(run, "SPP pool5")[-1], expected["SPP pool5"])


def test_files_that_hold_no_image_cost_no_other(run_of, paths, tmp_path, capsys):
    link, cut, latin = (tmp_path / name for name in ("link.jpg", "cut.jpg", "caf\udce9.jpg"))
    link.symlink_to("nowhere")
    cut.write_bytes(paths[0].read_bytes()[:500])
    latin.write_bytes(paths[2].read_bytes())
    run = run_of([paths[0], link, paths[1], cut, latin])
    assert read_index(run) == [str(paths[0]), str(paths[1]), f"{tmp_path}/caf\\udce9.jpg"]
    err = capsys.readouterr().err
    assert f"skipped: {link}: links to nowhere" in err
    assert f"skipped: {cut}: cannot be decoded" in err
    assert "2 of 5 images were skipped" in err
    without = run_of(paths[:3], "without")
    for layer in CONFIG.layers:
        np.testing.assert_array_equal(read_features(run, layer), read_features(without, layer))


def test_none_that_can_be_read(run_of, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 images could be read"):
        run_of([tmp_path / "a.jpg", tmp_path / "nowhere.jpg"])
    assert not list(tmp_path.glob("run*"))


def test_an_image_of_a_set_that_cannot_be_read_is_named(make, tiny_network, data):
    load_voc(data, "test").image_path(load_voc(data, "test").ids[1]).write_bytes(b"")
    config = ExtractConfig(("SPP pool5",), "warp", 64, ImageSet("VOC", "test", 3))
    with pytest.raises(DataError, match=r"\.jpg: is empty"):
        make(extract, config, {"network": tiny_network, "data": data})


@pytest.mark.parametrize(
    "fields",
    [(("fc9",), "full", 224), (("fc7",), "crop", 200), (("conv4",), "full", 224), (("fc7",), "all", 224)],
)
def test_what_no_network_can_give_is_told_before_any_work(fields):
    with pytest.raises(UsageError):
        ExtractConfig(*fields, None)


def test_an_extraction_that_is_killed_goes_on(run_of, tiny_network, paths, tmp_path):
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
    run, whole = run_of(paths * 6), run_of(paths * 6, "whole")
    assert read_manifest(run)["inputs"] == started["inputs"]
    for name in ("conv5.npy", "SPP-pool5.npy", "index.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert not (run / "progress").exists()
