"""Top-1 and top-5 errors of whole-image classification."""

from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer, squeezenet1_1

from sppnet_cli.data.imagenet import ImageFolder
from sppnet_cli.data.images import write_image
from sppnet_cli.distributed import World
from sppnet_cli.errors import DataError, SppnetError, UsageError
from sppnet_cli.evaluation import top_k
from sppnet_cli.evaluation.top_k import average_scores, rank_of, require_views, top_k_errors, view_scores
from sppnet_cli.evaluation.views import map_scales, views_of
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.names import CROP_VIEWS, VIEWS
from sppnet_cli.network.classifiers import Classifier
from sppnet_cli.network.preprocessing import resize_short
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.torchvision_trunks import torchvision_preprocessing


class MeanColour(nn.Module):
    """Knows class k by the k-th channel: red, green, blue."""

    def forward(self, images):
        return images.float().mean(dim=(2, 3)) / 10


@pytest.fixture
def folder(tmp_path):
    """Three images of one colour each; the last one is blue and called green."""
    paths = []
    for name, colour in zip("abc", ([200, 9, 5], [9, 200, 5], [5, 9, 200]), strict=True):
        paths.append(tmp_path / f"{name}.png")
        write_image(paths[-1], np.full((260, 280, 3), colour, dtype=np.uint8))
    return ImageFolder(tuple(paths), np.array([0, 1, 1]), ("red", "green", "blue"))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("views", ["10", "10central", "1crop", "1full", "8+2full"])
def test_errors_by_hand(folder, views, workers):
    error = top_k_errors(MeanColour(), folder, views, workers=workers)
    assert error.as_dict() == {"top1_error": pytest.approx(1 / 3), "top5_error": 0.0, "n": 3}
    assert error.wrong1.tolist() == [False, False, True]
    assert error.wrong5.tolist() == [False, False, False]
    assert not torch.is_inference_mode_enabled()


class Fixed(nn.Module):
    """The same scores for every view."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = torch.tensor(scores, dtype=torch.float32)

    def forward(self, images):
        return self.scores.expand(len(images), -1)


@pytest.mark.parametrize("views", CROP_VIEWS)
def test_a_network_of_zeros_is_always_wrong(folder, views):
    assert top_k_errors(Fixed(*[0] * 6), folder, views).as_dict() == {
        "top1_error": 1.0,
        "top5_error": 1.0,
        "n": 3,
    }


@pytest.mark.parametrize("views", CROP_VIEWS)
@pytest.mark.parametrize("scale", [1, 1e6])
def test_classes_whose_softmax_underflows_keep_their_ranks(folder, views, scale):
    scores = [scale * score for score in (200, *range(0, -19, -1))]
    for label in range(20):
        images = ImageFolder(folder.paths[:1], np.array([label]), tuple("abcdefghijklmnopqrst"))
        errors = top_k_errors(Fixed(*scores), images, views)
        assert (errors.top1, errors.top5) == (label >= 1, label >= 5)


def test_a_tie_counts_against_the_label(folder):
    # Labels 0, 1, 1.  Five classes score higher than class 0; four score higher than class 1, none as high.
    errors = top_k_errors(Fixed(0, 1, 2, 2, 2, 2), folder, "1crop")
    assert errors.wrong1.tolist() == [True, True, True]
    assert errors.wrong5.tolist() == [True, False, False]
    # Class 0 is as high as class 2, class 1 is alone; then class 1 shares the fifth place.
    assert top_k_errors(Fixed(1, 2, 1), folder, "10").wrong1.tolist() == [True, False, False]
    assert top_k_errors(Fixed(3, 1, 1, 2, 2, 2), folder, "1crop").wrong5.tolist() == [False, True, True]


def rank_by_decimals(scores, label):
    """The rank by the average softmax, in 400 digits."""
    with localcontext() as context:
        context.prec = 400
        average = [Decimal(0)] * len(scores[0])
        for view in scores:
            exponentials = [Decimal(score).exp() for score in view]
            average = [a + e / sum(exponentials) for a, e in zip(average, exponentials, strict=True)]
    return sum(a >= average[label] for k, a in enumerate(average) if k != label)


@pytest.mark.parametrize("seed", range(20))
def test_ranks_agree_with_long_arithmetic(seed):
    rng = np.random.default_rng(seed)
    views, classes = rng.integers(1, 4), rng.integers(2, 9)
    scores = rng.normal(0, rng.choice([1, 6]), size=(views, classes)).astype(np.float32)
    average = average_scores(torch.from_numpy(scores))
    for label in range(classes):
        assert rank_of(average, label) == rank_by_decimals(scores.tolist(), label)


@pytest.mark.parametrize("classes", [13, 100, 1003])
def test_classes_of_equal_scores_in_all_views_are_a_tie_wherever_they_stand(classes):
    generator = torch.Generator().manual_seed(classes)
    for _ in range(50):
        scores = torch.randn(10, classes, generator=generator)
        first, second = torch.randperm(classes, generator=generator)[:2]
        scores[:, second] = scores[:, first]
        average = average_scores(scores)
        assert average[first] == average[second]


@pytest.mark.parametrize(("highest", "views"), [(1e12, 1), (100.0, 2)])
def test_scores_that_differ_in_their_last_bit_are_no_tie(highest, views):
    # A single view is not rounded at all; the logarithms of several are double precision.
    scores = torch.tensor([[highest, 1.0, 1.0000001]] * views)
    assert [rank_of(average_scores(scores), label) for label in range(3)] == [0, 2, 1]


def test_views_are_averaged_after_the_softmax(folder):
    # Averages .3333, .5 and .1667 or so; the mean scores would put class 0 first.
    scores = torch.tensor([[5.0, 5, -5], [-5, 5, 5], [9, -5, -5]])
    probabilities = scores.double().softmax(dim=1).mean(dim=0)
    assert [rank_of(average_scores(scores), k) for k in range(3)] == [0, 1, 2]
    assert probabilities.argsort(descending=True).tolist() == [0, 1, 2]
    scores = torch.tensor([[30.0, 0], [-1, 0], [-1, 0]])  # the mean score is highest for class 0
    assert [rank_of(average_scores(scores), k) for k in range(2)] == [0, 1]
    scores = torch.tensor([[30.0, 0], [-3, 0], [-3, 0]])  # mean softmax .365 and .635
    assert [rank_of(average_scores(scores), k) for k in range(2)] == [1, 0]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
@pytest.mark.parametrize("views", ["1crop", "10"])
def test_scores_that_are_no_numbers(folder, score, views):
    with pytest.raises(SppnetError, match=r"a\.png: the network's scores are not numbers"):
        top_k_errors(Fixed(0, score, 0), folder, views)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named(folder, workers):
    folder.paths[1].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png: is not an image"):
        top_k_errors(MeanColour(), folder, "1crop", workers=workers)


class Gathered(Exception):
    """Stops a process where it would wait for the others."""


@pytest.mark.parametrize(("size", "shares"), [(2, [2, 1]), (5, [1, 1, 1, 0, 0])])
def test_processes_share_the_images_and_merge_in_order(folder, monkeypatch, size, shares):
    alone = top_k_errors(MeanColour(), folder, "1crop")
    parts = []

    def give(value):
        parts.append(value)
        raise Gathered

    monkeypatch.setattr(top_k, "gather", give)
    for rank in range(size):
        monkeypatch.setattr(top_k, "world", lambda rank=rank: World(rank, size))
        with pytest.raises(Gathered):
            top_k_errors(MeanColour(), folder, "1crop")
    assert [len(part) for part in parts] == shares
    monkeypatch.setattr(top_k, "gather", lambda value: parts)
    merged = top_k_errors(MeanColour(), folder, "1crop")
    np.testing.assert_array_equal(merged.wrong1, alone.wrong1)
    np.testing.assert_array_equal(merged.wrong5, alone.wrong5)


def narrow(levels=SPP6, arch="zf5"):
    torch.manual_seed(0)
    network = SPPNet(NetworkSpec(arch, 0.0625, levels, fc=16, classes=5))
    network.initialise("he")
    return network.eval()


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def of_maps(network, image, views):
    with torch.inference_mode():
        return view_scores(network, [resize_short(image, s) for s in map_scales(views)], views)


# A ZF-5 map of 256 px has 15 cells, centred at 20, 36, .. 244.  Strictly inside 0..223 lie those of cells 0..12
# (20 .. 212), inside 16..239 0..13 (20 .. 228), inside 32..255 1..14 (36 .. 244).
CELLS_OF_TEN = [(0, 0, 13, 13), (0, 0, 12, 12), (1, 0, 14, 12), (0, 1, 12, 14), (1, 1, 14, 14)]


def test_ten_views_of_the_maps_by_hand():
    network, image = narrow(), picture(256, 256)
    found = of_maps(network, image, "maps:10")
    mirrored = [CELLS_OF_TEN[k] for k in (0, 2, 1, 4, 3)]  # left is right there
    expected = []
    with torch.inference_mode():
        for pixels, boxes in ((image, CELLS_OF_TEN), (image[:, ::-1].copy(), mirrored)):
            maps = network.maps(torch.from_numpy(pixels).permute(2, 0, 1)[None], "conv5")
            assert maps.shape[2:] == (15, 15)
            for x1, y1, x2, y2 in boxes:
                window = maps[:, :, y1 : y2 + 1, x1 : x2 + 1]
                pooled = [F.adaptive_max_pool2d(window, n).flatten(1) for n in (1, 2, 3, 6)]
                expected.append(network.head(torch.cat(pooled, dim=1)))
    torch.testing.assert_close(found, torch.cat(expected))


@pytest.mark.parametrize("views", ["maps:10", "maps:96+2full", "10", "1full"])
def test_all_views_are_minus_the_mean_image(views):
    network = narrow()
    network.mean_image = torch.full((3, 224, 224), 28.0)
    # Pixels less than 156 can be 100 brighter: minus 128 then, they are what they were minus 28.
    image = picture(100, 120) // 2
    pictures = (
        [resize_short(image, s) for s in map_scales(views)]
        if views not in CROP_VIEWS
        else views_of(image, views)
    )
    with torch.inference_mode():
        found = view_scores(network, pictures, views)
        network.mean_image = None
        expected = view_scores(network, [each + np.uint8(100) for each in pictures], views)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("views", "count"), [("maps:10", 10), ("maps:96", 96), ("maps:96+2full", 98)])
def test_number_of_views_and_their_symmetry(views, count):
    network, image = narrow(), picture(60, 71)
    found = of_maps(network, image, views)
    mirrored = of_maps(network, image[:, ::-1].copy(), views)
    assert found.shape == (count, 5)
    # The views of an image and of its mirror image are the same, in another order.
    torch.testing.assert_close(found.sort(dim=0).values, mirrored.sort(dim=0).values, atol=1e-4, rtol=1e-4)
    assert (found[:5] - found[5:10]).abs().max() > 1e-4  # yet a view is not its mirror image


def test_a_window_that_is_all_of_a_map_is_the_image():
    network, image = narrow(), picture(224, 224)
    found = of_maps(network, image, "maps:96")[:6]
    with torch.inference_mode():
        expected = view_scores(network, [image, image[:, ::-1]], "1full")
    torch.testing.assert_close(found, expected.repeat_interleave(3, dim=0))


def test_the_two_full_views_are_those_of_short_side_256():
    network, image = narrow(), picture(64, 80)
    many, full = of_maps(network, image, "maps:96"), of_maps(network, image, "maps:96+2full")
    # After those of 224 (6) and of 256 (18).
    torch.testing.assert_close(torch.cat([full[:24], full[26:]]), many)
    with torch.inference_mode():
        (whole,) = views_of(image, "1full")
        expected = view_scores(network, [whole, whole[:, ::-1]], "1full")
    torch.testing.assert_close(full[24:26], expected)


@pytest.mark.parametrize("arch", ["convnet5", "overfeat7"])
def test_other_geometries_are_pooled_by_their_own_cells(arch):
    network = narrow(arch=arch)
    assert of_maps(network, picture(100, 120), "maps:10").shape == (10, 5)


def test_errors_over_windows_of_the_maps(folder):
    network = narrow()
    error = top_k_errors(network, folder, "maps:10")
    image = np.full((260, 280, 3), (200, 9, 5), dtype=np.uint8)
    likeliest = int(of_maps(network, image, "maps:10").softmax(dim=1).mean(dim=0).argmax())
    assert error.wrong1[0] == (likeliest != 0)
    assert not error.wrong5.any()


def transformer():
    net = VisionTransformer(224, 32, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=5)
    return Classifier("vit_b_32", net, 5, torchvision_preprocessing("vit_b_32")).eval()


PLAIN = partial(narrow, None)


@pytest.mark.parametrize(
    ("make", "views", "message"),
    [
        (narrow, "12", "unknown views '12'"),
        (PLAIN, "maps:10", "takes a pyramid; give --views 10, 10central or 1crop"),
        (PLAIN, "1full", "plain net takes crops of 224x224 only; give --views 10"),
        (PLAIN, "8+2full", "plain net takes crops"),
        (transformer, "1full", "vit_b_32 cannot take whole images; give --views 10, 10central or 1crop"),
        (transformer, "8+2full", "vit_b_32 cannot"),
        (transformer, "maps:96", "takes a pyramid"),
        (MeanColour, "maps:96+2full", "takes a pyramid"),
    ],
)
def test_views_that_a_model_cannot_take(make, views, message):
    with pytest.raises(UsageError, match=message):
        require_views(make(), views)


def test_classifiers_of_torchvision_see_images_resized_its_way(tmp_path):
    write_image(tmp_path / "a.png", picture(512, 600))
    images = ImageFolder((tmp_path / "a.png",), np.array([0]), tuple("abcde"))
    seen = []
    for model in (
        Classifier(
            "squeezenet1_1", squeezenet1_1(num_classes=5), 5, torchvision_preprocessing("squeezenet1_1")
        ),
        narrow(),
    ):
        model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        top_k_errors(model, images, "1crop")
    smooth, rough = (pixels.float().std() for pixels in seen)
    assert smooth < 0.8 * rough  # noise, halved


def test_views_that_a_model_can_take():
    for views in VIEWS:
        require_views(narrow(), views)
    for views in ("10", "10central", "1crop"):
        require_views(narrow(None), views)
        require_views(transformer(), views)
    convolutional = Classifier(
        "squeezenet1_1", squeezenet1_1(num_classes=5), 5, torchvision_preprocessing("squeezenet1_1")
    ).eval()
    for views in ("10", "1full", "8+2full"):
        require_views(convolutional, views)
