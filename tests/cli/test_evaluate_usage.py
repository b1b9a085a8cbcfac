"""What `sppnet evaluate` says about networks, classifiers and views before any work is done."""

import json

import pytest
import torch
from torchvision.models import squeezenet1_1

from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import save_network


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "or --network, one of them, or --arch and --weights"),
        (["--arch", "squeezenet1_1"], 2, "or --arch and --weights"),
        (["--network", "a", "--detections", "b"], 2, "one of them"),
        (["--weights", "net.pth"], 2, "zf5 is no torchvision classifier"),
        (["--arch", "overfeat7", "--weights", "net.pth"], 2, "overfeat7 is no torchvision classifier"),
        (["--network", "nowhere", "--views", "12"], 2, "'12' is not one of '10', '10central'"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(sppnet, tmp_path, arguments, code, message):
    found, out, err = sppnet("evaluate", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("views", ["1full", "maps:10", "maps:96+2full"])
def test_a_plain_net_takes_crops_only(sppnet, tmp_path, tiny_data, views):
    (tmp_path / "net").mkdir()
    classes = len(list((tiny_data / "imagenet" / "val").iterdir()))
    save_network(SPPNet(NetworkSpec("zf5", 0.0625, None, fc=16, classes=classes)), tmp_path / "net")
    given = ("--network", "net", "--data", tiny_data / "imagenet", "--views", views)
    code, out, err = sppnet("evaluate", *given)
    assert (code, out) == (2, "")
    assert f"--views {views}" in err
    assert "give --views 10, 10central or 1crop" in err


def test_a_classifier_by_arch_and_weights(sppnet, tmp_path, tiny_data):
    classes = len(list((tiny_data / "imagenet" / "val").iterdir()))
    torch.save(squeezenet1_1(num_classes=classes).state_dict(), tmp_path / "net.pth")
    given = ("--arch", "squeezenet1_1", "--weights", "net.pth", "--data", tiny_data / "imagenet")
    assert sppnet("evaluate", *given, "--dry-run")[:2] == (0, "")
    code, out, _ = sppnet("evaluate", *given, "--views", "1crop", "--limit", "4", "--workers", "1", "--json")
    assert code == 0
    assert json.loads(out)["n"] == 4
    code, _, err = sppnet("evaluate", *given, "--views", "maps:10")
    assert code == 2
    assert "--views maps:10 pools windows of feature maps" in err
