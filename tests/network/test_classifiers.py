"""Classifiers of torchvision with weights from a file."""

import re

import pytest
import torch
import torchvision
from torchvision.models import get_model
from torchvision.transforms.v2.functional import normalize

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.network.classifiers import load_classifier


def saved(tmp_path, arch, classes=7, **settings):
    """A net with random weights, and the file that holds them."""
    torch.manual_seed(0)
    net = get_model(arch, weights=None, num_classes=classes, **settings).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    return net, str(tmp_path / "net.pth")


def images(height=96, width=96):
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


def prepared(pixels):
    return normalize(pixels.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("arch", ["squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5"])
def test_scores_are_torchvisions(tmp_path, arch):
    net, path = saved(tmp_path, arch)
    classifier = load_classifier(arch, path)
    assert (classifier.arch, classifier.classes, classifier.training) == (arch, 7, False)
    pixels = images()
    with torch.inference_mode():
        torch.testing.assert_close(classifier(pixels), net(prepared(pixels)), rtol=1e-4, atol=1e-5)


def test_a_thousand_classes(tmp_path):
    _, path = saved(tmp_path, "squeezenet1_1", 1000)
    assert load_classifier("squeezenet1_1", path).classes == 1000


@pytest.mark.parametrize(("size", "fits"), [((224, 224), True), ((256, 300), True), ((8, 8), False)])
def test_sizes_are_tried(tmp_path, size, fits):
    _, path = saved(tmp_path, "squeezenet1_1")
    assert load_classifier("squeezenet1_1", path).takes(*size) == fits


def test_files_older_than_the_batch_counters(tmp_path):
    net, path = saved(tmp_path, "resnet18")
    old = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, path)
    torch.testing.assert_close(load_classifier("resnet18", path).net.fc.weight, net.fc.weight)


def test_files_older_than_the_names_of_densenets_layers(tmp_path):
    net, path = saved(tmp_path, "densenet121")
    old = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", k): v for k, v in net.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, path)
    loaded = load_classifier("densenet121", path).net.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("aux_logits", [True, False])
def test_auxiliary_heads_are_left_out_and_the_input_is_the_nets_own(tmp_path, aux_logits):
    # As `googlenet(weights=...)`, whose published file has the heads and wants pixels in -1..1.
    net, path = saved(tmp_path, "googlenet", aux_logits=aux_logits, init_weights=False)
    classifier = load_classifier("googlenet", path)
    pixels = images()
    with torch.inference_mode():
        expected = net(pixels.float() / 127.5 - 1)
        torch.testing.assert_close(classifier(pixels), expected, rtol=1e-4, atol=1e-5)


def test_published_weights(monkeypatch):
    state = get_model("squeezenet1_1", weights=None).state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: state)
    classifier = load_classifier("squeezenet1_1", "DEFAULT")
    assert torch.equal(classifier.net.classifier[1].weight, state["classifier.1.weight"])


def test_weights_of_another_arch(tmp_path):
    _, path = saved(tmp_path, "squeezenet1_0")
    with pytest.raises(DataError, match=r"net\.pth: weights of another architecture: ") as caught:
        load_classifier("squeezenet1_1", path)
    assert "\n" not in str(caught.value)


def test_features_alone_are_no_classifier(tmp_path):
    net, path = saved(tmp_path, "squeezenet1_1")
    torch.save({k: v for k, v in net.state_dict().items() if k.startswith("features.")}, path)
    with pytest.raises(DataError, match=r"classifier\.1\.weight is missing; classifier\.1\.bias is missing$"):
        load_classifier("squeezenet1_1", path)


@pytest.mark.parametrize("arch", ["zf5", "fasterrcnn_resnet50_fpn", ""])
def test_other_names(arch):
    with pytest.raises(UsageError, match=r"no torchvision classifier such as squeezenet1_0.*--network"):
        load_classifier(arch, "weights.pth")


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such weights file"):
        load_classifier("squeezenet1_1", str(tmp_path / "none.pth"))
