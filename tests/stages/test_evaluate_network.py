"""Networks and classifiers are measured on the classes that they know."""

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_1

from sppnet_cli.chain import Resources
from sppnet_cli.data.imagenet import load_image_folder
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.kernels.pyramid import SPP6
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import save_network
from sppnet_cli.stages.cost import forward_work
from sppnet_cli.stages.evaluate_network import (
    EvaluateConfig,
    classifier_error,
    evaluate,
    evaluate_cost,
    network_error,
    read_errors,
)

HOW = Resources()


@pytest.fixture
def names(tiny_data):
    return load_image_folder(tiny_data / "imagenet" / "val").class_names


def network_of(folder, classes, names=None):
    folder.mkdir()
    save_network(SPPNet(NetworkSpec("zf5", 0.0625, SPP6, fc=16, classes=classes)), folder)
    if names is not None:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_a_network_of_the_same_classes(tiny_data, tmp_path, names):
    for known in (names, None):  # a network of another origin has no list
        network = network_of(tmp_path / f"net-{known is None}", len(names), known)
        data = tiny_data / "imagenet"
        error = network_error(network, data, "1crop", 5, HOW)
        assert len(error.wrong1) == error.images == 5
        assert (
            network_error(network, data / "val", "1crop", 5, Resources(workers=2)).as_dict()
            == error.as_dict()
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: ["x", *names[1:]], "class 1 is {0}, but {net} was trained with x;"),
        (lambda names: [*names[:-1], "y"], "class {n} is {last}, but {net} was trained with y;"),
        (lambda names: [*names, "z"], "class {more} is missing, but {net} was trained with z;"),
        (lambda names: names[:-1], "class {n} is {last}, but {net} was trained with no more classes;"),
    ],
)
def test_the_first_class_that_differs_is_named(tiny_data, tmp_path, names, change, message):
    known = change(list(names))
    network = network_of(tmp_path / "net", len(known), known)
    n = len(names)
    expected = message.format(names[0], net=network, n=n, more=n + 1, last=names[-1])
    with pytest.raises(DataError) as caught:
        network_error(network, tiny_data / "imagenet", "1crop", None, HOW)
    assert expected in str(caught.value)
    assert str(caught.value).endswith("give --data of the same classes")


def test_another_number_of_classes(tiny_data, tmp_path, names):
    network = network_of(tmp_path / "net", len(names) + 1)
    with pytest.raises(UsageError, match=f"knows {len(names) + 1} classes, but .* holds {len(names)}"):
        network_error(network, tiny_data / "imagenet", "1crop", None, HOW)


def test_a_classifier_of_torchvision(tiny_data, tmp_path, names):
    data, path = tiny_data / "imagenet", tmp_path / "net.pth"
    torch.save(squeezenet1_1(num_classes=len(names)).state_dict(), path)
    error = classifier_error("squeezenet1_1", str(path), data, "8+2full", 3, HOW)
    assert len(error.wrong5) == 3
    torch.save(squeezenet1_1(num_classes=3).state_dict(), path)
    with pytest.raises(UsageError, match=rf"squeezenet1_1 .*net\.pth: knows 3 classes, .* {len(names)}$"):
        classifier_error("squeezenet1_1", str(path), data, "1crop", None, HOW)


def test_a_run_keeps_which_images_are_wrong(make, tiny_data, tmp_path, names):
    network = network_of(tmp_path / "net", len(names), names)
    data = tiny_data / "imagenet"
    run = make(evaluate, EvaluateConfig("1crop", 5), {"network": network, "data": data})
    expected = network_error(network, data, "1crop", 5, HOW)
    assert read_errors(run).wrong1.tolist() == expected.wrong1.tolist()
    assert read_errors(run).wrong5.tolist() == expected.wrong5.tolist()
    path = run / "wrong.npz"
    path.write_bytes(b"cut")
    with pytest.raises(DataError, match=r"wrong\.npz: holds no arrays .*; remove .* and evaluate again"):
        read_errors(run)
    for other in ({}, {"wrong1": np.ones(3)}, {"wrong1": np.ones(3, bool), "wrong5": np.ones((3, 1), bool)}):
        np.savez(path, **other)
        with pytest.raises(DataError, match=r"wrong\.npz: does not say which images were wrong; remove"):
            read_errors(run)
    path.unlink()
    with pytest.raises(DataError, match=r"wrong\.npz: no such \.npz file; remove"):
        read_errors(run)


def test_views_on_maps_cost_two_passes_a_scale():
    """Of an image of 256x341: the image and its mirror image at each short side, the long side rounded up."""
    spec = NetworkSpec("zf5", 0.0625, SPP6, fc=16, classes=5)

    def cost(views):
        return evaluate_cost(EvaluateConfig(views), spec, 10, "cpu").seconds

    shapes = [(224, 299), (256, 341), (300, 400), (360, 480), (448, 597), (560, 746)]
    passes = [forward_work(spec, 10, *shape, "cpu").seconds for shape in shapes]
    assert cost("maps:96") == cost("maps:96+2full") == pytest.approx(2 * sum(passes))
    assert cost("maps:10") == pytest.approx(2 * cost("1full")) == pytest.approx(2 * passes[1])
    assert cost("10") == pytest.approx(10 * cost("1crop"))
    assert cost("8+2full") == pytest.approx(8 * cost("1crop") + 2 * cost("1full"))
