"""What is wrong with the inputs is said before any work, in dry runs too; and what is said beside results."""

import math
import shutil

import pytest
import torch
from torchvision.models import squeezenet1_1

from sppnet_cli.cli.detect import below
from sppnet_cli.network.sppnet import NetworkSpec, SPPNet
from sppnet_cli.network.weights import save_network
from sppnet_cli.stages.cost import warn_of_bf16
from sppnet_cli.stages.profiles import PROFILES

TRUNK = ("--arch", "squeezenet1_1", "--weights")
TINY = ("--profile", "tiny")
WITH_WEIGHTS = (
    ("pretrain",),
    ("extract-features", "--data", "VOC"),
    ("train-svm", "--layer", "pool5", "--data", "VOC"),
    ("train-svm", "--task", "classification", "--layer", "pool5", "--data", "VOC"),
    ("finetune", "--data", "VOC"),
    ("visualize", "conv5", "--data", "VOC"),
    ("evaluate", "--data", "IMAGENET"),
    ("reproduce", "table6", "--data", "VOC"),
    ("detect",),
)


@pytest.fixture
def call(sppnet, tiny_data, tmp_path):
    """A command that must fail, in vain: nothing may have been made."""
    places = {"VOC": tiny_data / "VOCdevkit", "IMAGENET": tiny_data / "imagenet"}

    def run(*arguments, code=3):
        before = sorted(tmp_path.rglob("*"))
        found, out, err = sppnet(*(places.get(each, each) for each in arguments))
        assert found == code, err
        assert sorted(tmp_path.rglob("*")) == before
        assert err.splitlines()[-1].startswith("error: ")
        assert "Would make" not in out
        return err

    return run


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("command", WITH_WEIGHTS, ids=lambda command: "-".join(command[:2]))
def test_weights_that_are_not_there(call, command, dry):
    assert "nosuch.pth: no such" in call(*command, *TINY, *TRUNK, "nosuch.pth", *dry)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("command", WITH_WEIGHTS, ids=lambda command: "-".join(command[:2]))
def test_weights_of_another_net(call, tmp_path, command, dry):
    torch.save({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert "other.pth: weights of another architecture" in call(*command, *TINY, *TRUNK, "other.pth", *dry)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "command",
    [
        ("extract-features", "--layer", "fc7", "--data", "VOC"),
        ("extract-features", "--layer", "pool5,fc6"),
        ("train-svm", "--layer", "fc7", "--data", "VOC"),
        ("train-svm", "--task", "classification", "--layer", "fc7", "--size", "224", "--data", "VOC"),
    ],
)
def test_fc_layers_of_a_trunk_without(call, tmp_path, command, dry):
    torch.save(squeezenet1_1().state_dict(), tmp_path / "trunk.pth")
    assert "squeezenet1_1 has no fc" in call(*command, *TINY, *TRUNK, "trunk.pth", *dry, code=2)
    network = tmp_path / "net"
    network.mkdir()
    save_network(SPPNet(NetworkSpec("zf5", 0.0625, (1, 2, 3, 6))), network)
    assert "zf5 has no fc" in call(*command, *TINY, "--network", network, *dry, code=2)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("profile", ["tiny", "paper"])
@pytest.mark.parametrize("command", [("pretrain", "--data"), ("reproduce", "table1", "--imagenet")])
def test_too_few_images_for_a_batch(call, tiny_data, tmp_path, command, profile, dry):
    for folder in sorted((tiny_data / "imagenet/train").iterdir())[:5]:
        (tmp_path / "five/train" / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), tmp_path / "five/train" / folder.name)
    batch = PROFILES[profile].recipe.batch
    message = call(*command, "five", "--profile", profile, *dry)
    assert f"five: 5 images to train on, fewer than a batch of {batch}" in message


@pytest.mark.parametrize("score", [-0.784, -0.78, 0.0, 0.5, 0.129, -1.0, 12.3456])
def test_the_score_that_is_named_shows_the_best(score):
    found = below(score)
    assert score - 0.0100001 <= found < score
    assert float(f"{found:g}") == found
    assert math.isclose(100 * found, round(100 * found), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("width", "device", "warned"), [(0.25, "cpu", True), (1.0, "cpu", False), (0.25, "cuda", False)]
)
def test_bf16_on_a_small_network(capsys, width, device, warned):
    warn_of_bf16("--amp", NetworkSpec("zf5", width), device)
    assert ("warning: --amp: on a CPU" in capsys.readouterr().err) == warned


def test_the_images_of_a_limit_are_said(sppnet, tiny_data, tmp_path):
    data = ("--data", tiny_data / "imagenet")
    code, _, err = sppnet("pretrain", *TINY, *data, "--limit", "25", "--dry-run")
    assert code == 0, err
    assert "--limit 25: images are taken from all classes in turn" in err
    code, _, err = sppnet("pretrain", *TINY, *data, "--dry-run")
    assert "in turn" not in err


def test_numbers_of_tiny_say_that_they_mean_nothing(sppnet, tiny_data, tmp_path):
    (tmp_path / "none.csv").write_text("image,class,score,x1,y1,x2,y2\n")
    given = ("evaluate", "--detections", "none.csv", "--data", tiny_data / "VOCdevkit")
    for profile, said in (("tiny", True), ("mini", False)):
        code, out, err = sppnet(*given, "--profile", profile)
        assert code == 0, err
        assert "AP (%), 20 images" in out
        assert ("(tiny: means nothing)" in out) == said
