import numpy as np
import pytest
import torch

from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.features.rcnn import RcnnWindows
from sppnet_cli.features.spp import FeatureMaps, SppWindows
from sppnet_cli.features.windows import WindowSource
from sppnet_cli.network.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.protocols import PAPER, RELEASED

SCALES = (240, 320)
WINDOWS = 9


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    net.initialise("he")
    return net


@pytest.fixture
def dataset(tiny_data):
    return load_voc(tiny_data / "VOCdevkit", "trainval", limit=2)


@pytest.fixture
def proposals(tmp_path, dataset):
    """Nine random windows for each of two images."""
    rng = np.random.default_rng(0)
    (tmp_path / "proposals" / "boxes").mkdir(parents=True)
    for image_id in dataset.ids:
        height, width = dataset.annotation(image_id).size
        corners = rng.integers(0, (width // 2, height // 2), (WINDOWS, 2))
        sides = rng.integers(20, (width // 2, height // 2), (WINDOWS, 2))
        boxes = np.concatenate([corners, corners + sides - 1], axis=1).astype(np.float32)
        np.save(tmp_path / "proposals" / "boxes" / f"{image_id}.npy", boxes)
    return tmp_path / "proposals"


@pytest.fixture
def source_of(tmp_path, dataset, proposals):
    def make(extractor, with_truth=False, max_windows=WINDOWS, cache="cache"):
        return WindowSource(
            dataset, proposals, extractor, tmp_path / cache, max_windows, with_truth=with_truth
        )

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


@pytest.mark.gpu
def test_on_a_gpu_features_lie_there(source_of):
    torch.manual_seed(0)
    net = SPPNet(NetworkSpec("zf5", 0.0625, SPP6))
    for number, extractor in enumerate(
        (SppWindows(net, PAPER, SCALES, "cuda"), RcnnWindows(net, PAPER, "cuda"))
    ):
        source = source_of(extractor, cache=f"cache{number}")
        first = source.pooled(0)
        assert first.device.type == "cuda"
        assert torch.equal(source_of(extractor, cache=f"cache{number}").pooled(0), first)
