"""Benchmarks on next to nothing: their seconds mean nothing, how their numbers follow from each other does."""

import json
import math
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sppnet_cli.benchmark import detect, images, neighbours, photos, pooling, scaling
from sppnet_cli.benchmark.detect import DetectSpeed, benchmark_detect
from sppnet_cli.benchmark.extract import ExtractSpeed, benchmark_extract
from sppnet_cli.benchmark.images import benchmark_images, benchmark_windows, drawn_image
from sppnet_cli.benchmark.neighbours import NeighbourSpeed, benchmark_neighbours
from sppnet_cli.benchmark.photos import PhotoSpeed, benchmark_photos
from sppnet_cli.benchmark.pooling import PoolingConfig, benchmark_pooling
from sppnet_cli.benchmark.pretrain import PretrainSpeed, benchmark_pretrain
from sppnet_cli.benchmark.result import Benchmark, write_benchmark
from sppnet_cli.benchmark.scaling import ScalingConfig, benchmark_scaling
from sppnet_cli.benchmark.stages import StagesSpeed, benchmark_stages
from sppnet_cli.benchmark.svm import SvmSpeed, benchmark_svm
from sppnet_cli.data.images import write_image
from sppnet_cli.data.proposals import METHODS
from sppnet_cli.detection.detector import Detector
from sppnet_cli.detection.fast import FastOptions, fast_options
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation import limits
from sppnet_cli.evaluation.timing import FeatureTime
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.kernels.pooling import pool_windows
from sppnet_cli.learning.svm import Svms
from sppnet_cli.libraries import linear_library
from sppnet_cli.network.backbones import build_trunk
from sppnet_cli.network.flops import flops
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.weights import load_network, save_network
from sppnet_cli.protocols import PAPER, MappingRules, take

SMALL = replace(PAPER, scales=(96, 128, 160), single_scale=128)
SPP = ("spp_1scale", "spp_5scale", "spp_1scale_fast", "spp_5scale_fast")
RCNN = ("rcnn", "rcnn_fast")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small products of matrices, small scales, and proposals that take no time."""
    monkeypatch.setitem(limits._GEMM_SIDE, "cpu", 64)
    for module in (detect, scaling):
        monkeypatch.setattr(module, "PAPER", SMALL)
    for module in (detect, images):
        monkeypatch.setattr(
            module, "propose", lambda image, method, seed: np.array([[0, 0, 49, 49.0]], np.float32)
        )


@pytest.fixture
def headed_network(tmp_path):
    """Run directory of a tiny network with fc layers."""
    folder = tmp_path / "network"
    folder.mkdir()
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 16, 5))
    network.initialise("he")
    save_network(network, folder)
    return folder


@pytest.fixture
def two_images(tmp_path):
    """A folder of two images of 60x80 and 90x60 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index, size in enumerate([(60, 80, 3), (90, 60, 3)]):
        write_image(folder / f"{index}.png", rng.integers(0, 256, size, dtype=np.uint8))
    return folder


def settings(record, *names):
    """Those of a record, which is of JSON types."""
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record, allow_nan=False))
    assert record["machine"]["threads"] == torch.get_num_threads()
    return [record[name] for name in names]


@pytest.mark.parametrize("threads", [1, 2])
def test_pooling(threads, torch_threads):
    torch_threads(threads)
    found = benchmark_pooling(PoolingConfig(windows=30, map_shape=(12, 16, 8), repeats=2))
    record = found.record
    assert settings(record, "windows", "map_shape", "bytes") == [30, [12, 16, 8], 4 * 30 * 50 * 8]
    assert record["bit_identical"] is True
    assert min(record["seconds"], record["roi_pool_seconds"], record["write_limit_seconds"]) > 0
    assert record["speedup_vs_roi_pool"] == record["roi_pool_seconds"] / record["seconds"]
    assert record["times_write_limit"] == record["seconds"] / record["write_limit_seconds"]
    assert ("roi_pool_threaded_seconds" in record) == (threads > 1)
    assert list(found.table["side"])[:3] == ["ours", "roi_pool", "write_limit"]


def test_pooling_notices_another_result(monkeypatch):
    monkeypatch.setattr(pooling, "pool_windows", lambda *given: pool_windows(*given).mul(2))
    found = benchmark_pooling(PoolingConfig(windows=3, map_shape=(12, 16, 8), repeats=1))
    assert found.record["bit_identical"] is False
    assert "NOT the same" in found.note


def test_detect(headed_network, two_images):
    config = DetectSpeed(images=2, windows=20, rcnn_windows=5, repeats=2)
    found = benchmark_detect(config, data=two_images, network=headed_network)
    record = found.record
    assert settings(record, "images", "device", "precision") == [2, "cpu", "float32"]
    assert record["image_sizes"] == [[60, 80], [90, 60]]
    assert set(record["proposals"]) == set(METHODS)
    assert record["machine"]["linear_library"] == linear_library()
    assert set(found.table["fc_library"]) == {linear_library()}
    assert set(found.table["processor"]) == {record["machine"]["cpu"]}
    assert record["machine"]["cpu"] in found.note
    assert list(found.table["side"]) == [*SPP, *RCNN]
    for side in (*SPP, *RCNN):
        own = record[side]
        parts = [own[f"{part}_seconds"] for part in ("conv", "pool", "fc")]
        assert min(parts) > 0
        assert own["total_seconds"] == sum(parts)
        assert own["windows"] == 20
        assert own["measured_windows"] == (5 if side in RCNN else 20)
        assert own["fc_windows"] <= own["distinct_windows"] <= 20
        assert own["conv_gflops_per_second"] == pytest.approx(own["conv_flops"] / own["conv_seconds"] / 1e9)
        assert own["conv_share_of_gemm"] == pytest.approx(
            own["conv_gflops_per_second"] / record["gemm_gflops"]
        )
    head = nn.Sequential(nn.Linear(16 * 50, 16), nn.Linear(16, 16))
    fc_flops = flops(head, (20, 16 * 50))
    for side in SPP:
        own, theirs = record[side], record["rcnn_fast" if side.endswith("_fast") else "rcnn"]
        assert own["speedup_vs_rcnn"] == theirs["total_seconds"] / own["total_seconds"]
        assert own["conv_speedup_vs_rcnn"] == theirs["conv_seconds"] / own["conv_seconds"]
        assert own["conv_flops_ratio"] == theirs["conv_flops"] / own["conv_flops"]
        floor = (own["conv_flops"] + fc_flops) / (1e9 * record["gemm_gflops"])
        assert own["times_gemm_floor"] == pytest.approx(own["total_seconds"] / floor)
    for side in ("rcnn", "rcnn_fast"):
        assert record[side]["distinct_windows"] == record[side]["fc_windows"] == 20
    assert record["rcnn"]["fc_flops"] == fc_flops
    # fc6 by way of 6 of its 16 outputs, fc7 whole.
    fast_flops = 2 * (6 * (800 + 16) + 16 * 16)
    assert record["rcnn_fast"]["fc_flops"] == 20 * fast_flops
    for scales in ("1scale", "5scale"):
        exact, fast = record[f"spp_{scales}"], record[f"spp_{scales}_fast"]
        assert exact["fc_windows"] == exact["distinct_windows"] == fast["distinct_windows"]
        assert fast["fc_windows"] < fast["distinct_windows"]
        assert exact["fc_flops"] == fc_flops * exact["distinct_windows"] / 20
        assert fast["fc_flops"] == fast["fc_windows"] * fast_flops
    assert "measured on 5 of the windows" in found.note

    # 60x80 and 90x60 with a short side of s are s x 4s/3, rounded up, and 3s/2 x s.
    trunk, _ = build_trunk("zf5", 0.0625)

    def work(*sides):
        return np.mean(
            [
                sum(flops(trunk, (1, 3, s, -(-4 * s // 3))) for s in sides),
                sum(flops(trunk, (1, 3, 3 * s // 2, s)) for s in sides),
            ]
        )

    assert record["spp_1scale"]["conv_flops"] == work(128)
    assert record["spp_5scale"]["conv_flops"] == work(96, 128, 160)
    assert record["rcnn"]["conv_flops"] == 20 * flops(trunk, (1, 3, 224, 224))


def test_fast_sides_are_what_fast_means(headed_network, two_images):
    network = load_network(headed_network)
    head = network.require_head()
    sides = detect.contenders(network, head, DetectSpeed(), "cpu")
    options = fast_options("fc7", head)
    assert options == FastOptions((6,), 0.2)
    assert tuple(sides) == (*SPP, *RCNN)
    for name, (extractor, detector) in sides.items():
        fast = name.endswith("_fast")
        assert extractor is sides[name.removesuffix("_fast")].extractor
        if not fast:
            assert detector.fast == FastOptions()
        elif name in RCNN:
            assert detector.fast == FastOptions(options.fc_rank)
        else:
            assert detector.fast == options
        vectors = torch.rand(11, network.pooled_size)
        passed = 3 if fast and name in SPP else 11  # the 0.2 of them, rounded up
        assert sides[name].layers(vectors).shape == (passed, 16)
    for axes, mean in sides["rcnn_fast"].detector.shortcuts.axes.values():
        torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]))
        assert mean.shape == (16,)


def test_all_sides_get_the_same_and_the_sample_is_spread(two_images, headed_network, monkeypatch):
    """What every timed pass is given: an image and the windows that are pooled there."""
    calls = []

    def watch(extractor):
        original = extractor.pool_in_steps

        def spy(self, image, boxes, lap):
            calls.append((self.method, self.scales, image.shape[:2], boxes.tolist()))
            return original(self, image, boxes, lap)

        monkeypatch.setattr(extractor, "pool_in_steps", spy)

    watch(SppWindows)
    watch(RcnnWindows)
    monkeypatch.setattr(
        images,
        "propose",
        lambda image, method, seed: np.array([[k, 0, 49, 49.0] for k in range(9)], np.float32),
    )
    config = DetectSpeed(images=2, windows=9, rcnn_windows=3, repeats=2)
    benchmark_detect(config, data=two_images, network=headed_network)
    sides = [
        ("spp", (128,), (60, 80)),
        ("spp", (96, 128, 160), (60, 80)),
        ("spp", (128,), (60, 80)),
        ("spp", (96, 128, 160), (60, 80)),
        ("rcnn", (), (60, 80)),
        ("rcnn", (), (60, 80)),
    ]
    twice = [side for side in sides for _ in range(2)]  # one to warm up, and the one that counts
    assert [call[:3] for call in calls[:24]] == twice * 2
    assert len(calls) == 2 * 2 * 12  # images, repeats and sides
    boxes = [[k, 0, 49, 49] for k in range(9)]
    for method, _, _, pooled in calls:
        assert pooled == (boxes[::4] if method == "rcnn" else boxes)


def test_detect_without_fc_layers_and_with_all_of_rcnns_windows(window_network, two_images):
    config = DetectSpeed(windows=4, rcnn_windows=None, repeats=1)
    found = benchmark_detect(config, data=two_images, network=window_network)
    assert found.record["rcnn"]["measured_windows"] == 4
    assert "measured on" not in found.note


def test_photos(monkeypatch):
    head = Head(800, 16, 1)  # of the narrowest ZF-5
    network = SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6), 16, 5)).eval()
    network.initialise("he")
    monkeypatch.setattr(photos, "benchmark_network", lambda *_: (network, head))
    monkeypatch.setattr(photos, "drawn_image", lambda seed, index: drawn_image(seed, index, (90, 120)))
    found = benchmark_photos(PhotoSpeed(images=2, workers=0, repeats=1))
    assert found.table["side"].tolist() == ["ss-fast", "ss-fast_fast", "edgeboxes", "edgeboxes_fast"]
    parts = [f"{part}_seconds" for part in ("read", "proposals", "conv", "pool", "score", "nms", "draw")]
    assert (found.table[parts] > 0).all(axis=None)
    np.testing.assert_allclose(found.table[parts].sum(axis=1), found.table["alone_seconds"])
    assert (found.table["overlapped_seconds"] > 0).all()
    assert settings(found.record, "detector", "images", "workers") == ["zf5, random weights", 2, 0]


def test_photos_of_a_detector_without_fc_layers(window_network, two_images, tmp_path, monkeypatch):
    network = load_network(window_network)
    extractor = SppWindows(network, take(MappingRules, PAPER), (64,))
    svms = Svms(np.ones((1, network.pooled_size), np.float32), np.zeros(1, np.float32), 1.0)
    (tmp_path / "svm").mkdir()
    Detector(extractor, "pool5", ("thing",), svms).save(tmp_path / "svm")
    seen = []
    monkeypatch.setattr(photos, "draw", lambda path, image, found, *_: seen.append((path.stem, len(found))))
    found = benchmark_photos(
        PhotoSpeed(images=2, workers=0, repeats=2), data=two_images, detector=tmp_path / "svm"
    )
    assert found.table["side"].tolist() == ["ss-fast", "edgeboxes"]
    assert "--fast is exact" in found.note
    # By part and as `sppnet detect` goes: a first image, two repeats of two images by two sides, two rounds by each.
    assert len(seen) == 2 + 8 + 8
    assert len(set(seen)) <= 4  # an image and windows by one method always give the same


def test_stages():
    found = benchmark_stages(StagesSpeed(), lambda ws: [ws.trained_network()], profile="tiny")
    rows = found.table.set_index("stage")
    assert [name.partition("-")[0] for name in rows.index] == ["data", "network"]
    drawn, trained = rows.iloc[0], rows.iloc[1]
    assert math.isnan(drawn["share_of_gemm"])
    # 40 images, forward and twice as much backward: the trunk at 224 px, and 800 -> 32 -> 32 of the head.
    trunk = flops(build_trunk("zf5", 0.0625)[0], (1, 3, 224, 224))
    assert trained["gflops"] == pytest.approx(3 * 40 * (trunk + 2 * (800 + 32) * 32) / 1e9)
    assert trained["gflops_per_second"] == pytest.approx(trained["gflops"] / trained["seconds"])
    assert trained["share_of_gemm"] > 0
    assert settings(found.record, "profile", "images") == ["tiny", 24]


def test_neighbours(monkeypatch):
    beside, started = [], []

    class Popen(subprocess.Popen):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            started.append(self)

    def step(network, *_, **__):
        beside.append((torch.get_num_threads(), network.parts, sum(each.poll() is None for each in started)))

    monkeypatch.setattr(neighbours, "cores", lambda: 2)
    monkeypatch.setattr(neighbours.subprocess, "Popen", Popen)
    monkeypatch.setattr(neighbours, "training_step", step)
    found = benchmark_neighbours(NeighbourSpeed(batch=2, width=0.0625, fc=8, repeats=1))
    ways = [(1, 1), (2, 1), (1, 2)]  # threads, parts
    assert beside == [(*way, 0) for way in 2 * ways] + [(*way, 2) for way in 2 * ways]  # once to warm up
    assert [each.poll() is not None for each in started] == [True, True]
    assert found.table["side"].tolist() == ["1_thread", "2_threads", "2_parts"] * 2
    assert found.table["neighbours"].tolist() == [0, 0, 0, 2, 2, 2]
    assert settings(found.record, "batch") == [2]


def test_pretrain():
    found = benchmark_pretrain(PretrainSpeed(batch=2, batches=2, width=0.0625, fc=16, repeats=1))
    record = found.record
    assert settings(record, "images", "batch") == [4, 2]
    sides = (
        "single_size",
        "multi_size",
        "from_files",
        "tensors_in_memory",
        "tensors_in_memory_multi_size",
        "decoding",
    )
    assert tuple(found.table["side"]) == sides
    assert all(record[side]["images_per_second"] > 0 for side in sides)
    assert record["multi_size"]["share_of_tensors"] == pytest.approx(
        record["multi_size"]["images_per_second"]
        / record["tensors_in_memory_multi_size"]["images_per_second"]
    )


def test_pretrain_on_a_data_set(tiny_data):
    config = PretrainSpeed(batch=2, batches=1, width=0.0625, fc=16, repeats=1)
    assert benchmark_pretrain(config, data=tiny_data / "imagenet").record["images"] == 2
    with pytest.raises(DataError, match="40 images are fewer than 50"):
        benchmark_pretrain(replace(config, batch=50), data=tiny_data / "imagenet")


@pytest.mark.parametrize("with_head", [True, False])
def test_extract(with_head, headed_network, window_network, two_images):
    found = benchmark_extract(
        ExtractSpeed(images=2, repeats=1),
        data=two_images,
        network=headed_network if with_head else window_network,
    )
    record = found.record
    assert record["layers"] == ["SPP pool5", *(["fc6", "fc7"] if with_head else [])]
    sides = ["crop_224", "full_224", "full_392", "batched_crop_224"]
    assert list(found.table["side"]) == sides
    for side in sides:
        assert record[side]["images_per_second"] == pytest.approx(1 / record[side]["seconds"])
    ratio = record["crop_224"]["images_per_second"] / record["batched_crop_224"]["images_per_second"]
    assert record["share_of_batched"] == ratio
    # The same crops on both sides: as much work.
    work = [record[side]["gflops_per_second"] * record[side]["seconds"] for side in (sides[0], sides[3])]
    assert work[0] == pytest.approx(work[1])


def test_svms_agree_with_scikit_learns():
    found = benchmark_svm(SvmSpeed(windows=200, images=60, dimension=64, repeats=1))
    for svm in ("detector", "transfer"):
        own = found.record[svm]
        assert own["sklearn_seconds"] == min(own["sklearn_dense_seconds"], own["sklearn_sparse_seconds"])
        assert own["speedup_vs_sklearn"] == own["sklearn_seconds"] / own["seconds"]
        assert own["score_difference"] < 0.02


def test_scaling(window_network):
    config = ScalingConfig(windows=8, scales=(96, 128), rcnn_windows=3, repeats=1)
    found = benchmark_scaling(config, network=window_network)
    table = found.table
    assert {axis: sorted(set(own["value"])) for axis, own in table.groupby("axis")} == {
        "windows": [1, 2, 4, 8],
        "scales": [1, 2],
        "short_side": [96, 128],
        "threads": [1],
    }
    assert set(table[table["side"] == "rcnn"]["axis"]) == {"windows", "threads"}
    parts = table[["conv_seconds", "pool_seconds", "fc_seconds"]]
    assert (parts > 0).all(axis=None)
    np.testing.assert_allclose(table["total_seconds"], parts.sum(axis=1))
    assert found.record["measured_windows"] == 1


def test_scaling_takes_powers_of_two_and_all_threads(window_network, torch_threads, monkeypatch):
    torch_threads(6)
    seen = []

    def spy(extractor, head, image, boxes, sample):
        seen.append((extractor.method, torch.get_num_threads()))
        return FeatureTime(1, 2, 3, 4)

    monkeypatch.setattr(scaling, "time_image", spy)
    monkeypatch.setattr(scaling, "gemm_gflops", lambda device: 100.0)
    config = ScalingConfig(windows=8, scales=(96, 128), repeats=1)
    table = benchmark_scaling(config, network=window_network).table
    of_threads = table[table["axis"] == "threads"]
    assert of_threads["value"].tolist() == [1, 1, 2, 2, 4, 4, 6, 6]
    assert seen[-8:] == [(method, count) for count in (1, 2, 4, 6) for method in ("spp", "rcnn")]
    assert all(count == 6 for _, count in seen[: len(table) - 8])
    assert torch.get_num_threads() == 6


def test_drawn_images_and_windows_are_the_same_each_time():
    image = drawn_image(3, 1)
    assert image.shape == (375, 500, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    np.testing.assert_array_equal(image, drawn_image(3, 1))
    assert not np.array_equal(image, drawn_image(3, 0))
    windows = benchmark_windows(image, 50, 3)
    assert windows.shape == (50, 4)
    assert windows[0].tolist() == [0, 0, 49, 49]  # of `propose`
    np.testing.assert_array_equal(windows, benchmark_windows(image, 50, 3))


def test_images_of_voc_of_a_folder_or_drawn(tiny_data, two_images):
    assert len(benchmark_images(tiny_data / "VOCdevkit", 3, 0)) == 3
    assert [image.shape for image in benchmark_images(two_images, 5, 0)] == [(60, 80, 3), (90, 60, 3)]
    np.testing.assert_array_equal(benchmark_images(None, 2, 7)[1], drawn_image(7, 1))
    with pytest.raises(DataError, match="no such folder"):
        benchmark_images(two_images / "gone", 1, 0)


def test_files(tmp_path, window_network, two_images):
    config = DetectSpeed(windows=4, rcnn_windows=1, repeats=1)
    found = benchmark_detect(config, data=two_images, network=window_network)
    paths = write_benchmark(found, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["detect.csv", "detect.json", "detect.png"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), found.table)
    assert json.loads(paths[1].read_text()) == found.record | {"note": found.note}
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    plain = Benchmark("x", {}, found.table, "")
    assert [path.name for path in write_benchmark(plain, tmp_path)] == ["x.csv", "x.json"]
