import errno

import numpy as np
import pytest
import torch

from sppnet_cli.errors import DataError
from sppnet_cli.features.cache import FeatureCache
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, RELEASED

SCALES = (240, 320)
WINDOWS = 9


@pytest.fixture
def source_of(tmp_path, dataset, proposals):
    def make(extractor, with_truth=False, max_windows=WINDOWS, cache="cache", gigabytes=1.0):
        kept = FeatureCache(tmp_path / cache / "spp", gigabytes, weighed=False)
        return WindowSource(dataset, proposals, extractor, kept, max_windows, with_truth=with_truth)

    return make


def spp(network, protocol=PAPER):
    return SppWindows(network, protocol, SCALES)


def proposals_of(source, index):
    return np.load(source.proposals / "boxes" / f"{source.dataset.ids[index]}.npy")


def test_ground_truth_comes_first_then_the_proposals(network, source_of, dataset):
    source = source_of(spp(network), with_truth=True, max_windows=4)
    assert len(source) == 2
    for index, image_id in enumerate(dataset.ids):
        truth = dataset.annotation(image_id)
        windows = source.windows(index)
        assert windows.image_id == image_id
        assert windows.size == truth.size
        assert windows.n_truth == len(truth.boxes) > 0
        expected = np.concatenate([truth.boxes, proposals_of(source, index)[:4]])
        np.testing.assert_array_equal(windows.boxes, expected)
        assert windows.iou.shape == (len(truth.boxes) + 4, len(truth.boxes))
        assert np.diag(windows.iou).tolist() == [1] * len(truth.boxes)


def test_without_the_ground_truth(network, source_of):
    source = source_of(spp(network))
    windows = source.windows(1)
    assert windows.n_truth == 0
    np.testing.assert_array_equal(windows.boxes, proposals_of(source, 1))
    assert windows.iou.shape == (WINDOWS, len(windows.truth.boxes))


def test_missing_proposals(network, source_of, dataset):
    source = source_of(spp(network))
    path = source.proposals / "boxes" / f"{dataset.ids[1]}.npy"
    path.unlink()
    with pytest.raises(DataError, match="sppnet propose") as caught:
        source.windows(1)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("side", ["left", "right", "below"])
def test_proposals_of_another_image_set(network, source_of, dataset, side):
    source = source_of(spp(network))
    height, width = dataset.annotation(dataset.ids[0]).size
    box = {"left": [-1, 0, 30, 30], "right": [0, 0, width, 30], "below": [0, 0, 30, height]}[side]
    path = source.proposals / "boxes" / f"{dataset.ids[0]}.npy"
    np.save(path, np.array([box], np.float32))
    with pytest.raises(DataError, match="of another image set") as caught:
        source.windows(0)
    assert str(path) in str(caught.value)
    box = {"left": [0, 0, 30, 30], "right": [0, 0, width - 1, 30], "below": [0, 0, 30, height - 1]}[side]
    np.save(path, np.array([box], np.float32))
    assert len(source.windows(0).boxes) == 1


@pytest.mark.parametrize("bad", [[9, 0, 8, 9], [0, 9, 9, 8], [0, 0, np.nan, 9], [0, -np.inf, 9, 9]], ids=str)
def test_boxes_without_an_area(network, source_of, dataset, bad):
    source = source_of(spp(network))
    path = source.proposals / "boxes" / f"{dataset.ids[0]}.npy"
    np.save(path, np.array([[0, 0, 9, 9], [3, 3, 3, 3], bad], np.float32))
    with pytest.raises(DataError, match="not x1 <= x2 and y1 <= y2; make its windows") as caught:
        source.windows(0)
    assert str(path) in str(caught.value)
    np.save(path, np.array([[0, 0, 9, 9], [3, 3, 3, 3]], np.float32))
    assert len(source_of(spp(network)).windows(0).boxes) == 2  # a pixel has an area


def test_a_cached_map_of_another_image_is_made_anew(network, source_of):
    source = source_of(spp(network))
    expected = source.pooled(0)
    for number, path in enumerate(sorted(source.cache.folder.rglob("*.npy"))):
        stored = np.load(path)
        other = (stored[:-1], stored[..., :-1], stored.astype(np.int8), stored.reshape(-1))[number % 4]
        np.save(path, other)
        assert torch.equal(source_of(spp(network)).pooled(0), expected)
        np.testing.assert_array_equal(np.load(path), stored)


def test_cached_vectors_of_other_windows_are_made_anew(network, source_of):
    rcnn = RcnnWindows(network, PAPER)
    expected = source_of(rcnn).pooled(0)
    (path,) = source_of(rcnn).cache.folder.rglob("*.npy")
    for other in (expected[1:], expected[:, 1:]):
        np.save(path, other.half().numpy())
        assert torch.equal(source_of(rcnn).pooled(0), expected)


def halved(maps):
    return tuple(one.half().float() for one in maps)


def mirrored(image, boxes):
    boxes = boxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - 1 - boxes[:, [2, 0]]
    return image[:, ::-1].copy(), boxes


def test_spp_windows_of_the_image_and_of_its_mirror(network, source_of, dataset):
    extractor = spp(network)
    source = source_of(extractor, with_truth=True)
    for index, image_id in enumerate(dataset.ids):
        plain = dataset.image(image_id), source.windows(index).boxes
        for flip, (image, boxes) in ((False, plain), (True, mirrored(*plain)), (False, plain)):
            prepared = extractor.prepare(image)
            expected = extractor.pool(FeatureMaps(prepared.size, halved(prepared.maps)), boxes)
            assert torch.equal(source.pooled(index, flip=flip), expected)


@pytest.mark.parametrize("method", [spp, lambda network: RcnnWindows(network, PAPER)], ids=["spp", "rcnn"])
@pytest.mark.parametrize("flip", [False, True])
def test_what_is_read_back_is_what_was_returned(network, source_of, monkeypatch, method, flip):
    extractor = method(network)
    source = source_of(extractor)
    first = [source.pooled(index, flip=flip) for index in (0, 1)]
    again = [source.pooled(index, flip=flip) for index in (0, 1)]
    monkeypatch.setattr(extractor, "conv5", None)  # not to be called again
    fresh = source_of(extractor)
    read = [fresh.pooled(index, flip=flip) for index in (0, 1)]
    for index in (0, 1):
        assert first[index].dtype == torch.float32
        assert first[index].shape == (WINDOWS, 800)
        assert torch.equal(again[index], first[index])
        assert torch.equal(read[index], first[index])


@pytest.mark.parametrize("method", [spp, lambda network: RcnnWindows(network, PAPER)], ids=["spp", "rcnn"])
def test_some_rows(network, source_of, method):
    source = source_of(method(network))
    rows = np.array([7, 0, 3])
    for flip in (False, True):
        assert torch.equal(source.pooled(1, rows, flip=flip), source.pooled(1, flip=flip)[[7, 0, 3]])


def test_rcnn_windows_of_the_image_and_of_its_mirror(network, source_of, dataset):
    extractor = RcnnWindows(network, PAPER)
    source = source_of(extractor, max_windows=3)
    plain = dataset.image(dataset.ids[0]), source.windows(0).boxes
    for flip, (image, boxes) in ((False, plain), (True, mirrored(*plain)), (False, plain)):
        expected = extractor.pool(extractor.prepare(image), boxes).half().float()
        assert torch.equal(source.pooled(0, flip=flip), expected)


def test_scales_that_are_given(network, source_of):
    source = source_of(spp(network, RELEASED))
    choice = np.arange(WINDOWS) % 2
    drawn = source.pooled(0, scales=choice)
    for row, scale in enumerate(choice):
        one = source_of(SppWindows(network, RELEASED, (SCALES[scale],)))
        assert torch.equal(drawn[row], one.pooled(0)[row])


def test_features_beyond_16_bits_stay_whole(source_of):
    torch.manual_seed(0)
    strong = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    strong.initialise("he")
    with torch.no_grad():
        strong.trunk.conv5.bias.fill_(1e5)
    source = source_of(spp(strong))
    first = source.pooled(0)
    assert first.isfinite().all()
    assert first.max() > 65504
    assert torch.equal(source_of(spp(strong)).pooled(0), first)


def test_an_image_without_windows(network, source_of, dataset):
    for number, extractor in enumerate((spp(network), RcnnWindows(network, PAPER))):
        source = source_of(extractor, cache=f"cache{number}")
        path = source.proposals / "boxes" / f"{dataset.ids[0]}.npy"
        np.save(path, np.empty((0, 4), np.float32))
        assert source.windows(0).boxes.shape == (0, 4)
        assert source.pooled(0).shape == (0, 800)
        assert source.pooled(0).shape == (0, 800)


class Counted:
    """Calls `conv5` of an extractor and counts."""

    def __init__(self, extractor):
        self.conv5 = extractor.conv5
        self.count = 0
        extractor.conv5 = self

    def __call__(self, network_input):
        self.count += 1
        return self.conv5(network_input)


def files_below(folder):
    return list(folder.rglob("*.npy"))


def bytes_below(folder):
    return sum(path.stat().st_size for path in files_below(folder))


@pytest.mark.parametrize("flip", [False, True])
def test_any_budget_gives_the_same_features(network, source_of, tmp_path, capsys, flip):
    extractor = spp(network)
    expected = [source_of(extractor, cache="large").pooled(index, flip=flip) for index in (0, 1)]
    large = bytes_below(tmp_path / "large")
    assert len(files_below(tmp_path / "large")) == 4
    computed = {}
    for name, gigabytes in (("none", 0.0), ("some", 0.6 * large / 1e9), ("all", 1.1 * large / 1e9)):
        capsys.readouterr()
        for _ in range(2):
            counted = Counted(spp(network))
            source = source_of(spp(network), cache=name, gigabytes=gigabytes)
            source.extractor.conv5 = counted
            for index in (0, 1):
                assert torch.equal(source.pooled(index, flip=flip), expected[index])
        computed[name] = counted.count  # in the second pass
        notices = capsys.readouterr().err.count("no room for more cached features")
        assert notices == {"none": 0, "some": 2, "all": 0}[name]  # once a source
        assert bytes_below(tmp_path / name) <= 1e9 * gigabytes
    assert not (tmp_path / "none").exists()
    assert computed["none"] == 4
    assert 0 < computed["some"] < 4
    assert computed["all"] == 0


@pytest.mark.parametrize("written", [b"", b"half"])
def test_a_disk_that_fills(network, source_of, tmp_path, monkeypatch, capsys, written):
    extractor = spp(network)
    expected = [source_of(extractor, cache="whole").pooled(index) for index in (0, 1)]
    source = source_of(extractor, cache="full")
    save, calls = np.save, []

    def full(file, array, **options):
        calls.append(file)
        if len(calls) < 3:
            return save(file, array, **options)
        file.write(written)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    for _ in range(2):
        for index in (0, 1):
            assert torch.equal(source.pooled(index), expected[index])
    assert len(calls) == 3  # not tried again
    assert len(files_below(tmp_path / "full")) == 2
    notices = capsys.readouterr().err
    assert notices.count("warning: features are no longer cached but computed each time") == 1
    assert "No space left on device" in notices


@pytest.mark.parametrize("broken", [lambda b: b[:-7], lambda b: b[:20], lambda b: b"", lambda b: b"x" * 300])
def test_a_broken_file_is_made_anew(network, source_of, tmp_path, broken):
    extractor = spp(network)
    expected = source_of(extractor).pooled(0)
    files = {path: path.read_bytes() for path in files_below(tmp_path / "cache")}
    for path, content in files.items():
        path.write_bytes(broken(content))
    assert torch.equal(source_of(extractor).pooled(0), expected)
    assert {path: path.read_bytes() for path in files_below(tmp_path / "cache")} == files


def test_features_are_kept_ahead(network, source_of):
    counted = Counted(extractor := spp(network))
    source = source_of(extractor)
    assert source.keep(0)
    assert source.keep(0, flip=True)
    assert counted.count == 4
    assert source.keep(0)
    for flip in (False, True):
        assert torch.equal(source.pooled(0, flip=flip), source_of(extractor).pooled(0, flip=flip))
    assert counted.count == 4
    full = source_of(extractor, cache="none", gigabytes=0.0)
    assert not full.keep(0)
    assert counted.count == 4


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("given", [False, True])
def test_distinct_vectors_are_those_of_the_windows(network, source_of, monkeypatch, method, given):
    extractor = spp(network) if method == "spp" else RcnnWindows(network, PAPER)
    source = source_of(extractor)
    path = source.proposals / "boxes" / f"{source.dataset.ids[0]}.npy"
    np.save(path, np.repeat(np.load(path), 2, axis=0)[: 2 * WINDOWS - 1])
    source = source_of(extractor, max_windows=2 * WINDOWS)
    expected = source_of(extractor, cache="other", max_windows=2 * WINDOWS).pooled(0)
    windows, image = source.windows(0), source.dataset.image(source.dataset.ids[0])
    assert source.wants_image(0)
    if given:  # nothing is read twice
        monkeypatch.setattr(type(source.dataset), "image", None)
        monkeypatch.setattr(type(source), "windows", None)
    for _ in range(2):
        vectors, rows = source.pooled_distinct(0, windows, image if given else None)
        assert len(rows) == 2 * WINDOWS - 1
        assert len(vectors) == (WINDOWS if method == "spp" else 2 * WINDOWS - 1)
        assert torch.equal(vectors[torch.from_numpy(rows)], expected)
    assert not source.wants_image(0)
    assert source.wants_image(1)


@pytest.mark.parametrize("method", ["spp", "rcnn"])
@pytest.mark.parametrize("factor", [1.0, 1e6])
def test_bf16_comes_back_from_the_cache(network, source_of, monkeypatch, bf16_anywhere, method, factor):
    extractor = (
        SppWindows(network, PAPER, SCALES, precision="bf16")
        if method == "spp"
        else RcnnWindows(network, PAPER, precision="bf16")
    )
    original = extractor.conv5
    monkeypatch.setattr(extractor, "conv5", lambda pixels: original(pixels) * factor)
    source, windows = source_of(extractor), source_of(extractor).windows(0)
    first, again = (source.pooled_distinct(0, windows).vectors for _ in range(2))
    assert not source.wants_image(0)
    assert first.dtype == again.dtype == torch.bfloat16
    assert torch.equal(first, again)
    prepared = extractor.prepare(source.dataset.image(source.dataset.ids[0]))
    torch.testing.assert_close(source.pooled(0), extractor.pool(prepared, windows.boxes))
