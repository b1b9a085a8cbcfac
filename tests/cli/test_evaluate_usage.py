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
        (["--network", "nowhere"], 3, "nowhere: not a network folder"),
        (
            ["--network", "nowhere", "--out", "no/x.json"],
            1,
            "no/x.json: cannot be written (there is no such folder)",
        ),
        (
            ["--detections", "nowhere", "--out", "", "--dry-run"],
            1,
            "is no name for a file; choose another place",
        ),
        (
            ["--detections", "nowhere", "--out", "/dev/null"],
            1,
            "/dev/null: cannot be written (it is no regular file)",
        ),
        (
            ["--detections", "nowhere"],
            3,
            "nowhere: no such file or folder; make detections with `sppnet detect`",
        ),
        (
            ["--arch", "squeezenet1_1", "--weights", "net.pth"],
            3,
            "net.pth: no such weights file",
        ),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(sppnet, tmp_path, arguments, code, message):
    found, out, err = sppnet("evaluate", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_dry_run_is_an_object_for_scripts_and_makes_nothing(sppnet, tmp_path, tiny_network, tiny_data):
    (tmp_path / "detections.csv").write_text("image,class,score,x1,y1,x2,y2\n")
    voc = tiny_data / "VOCdevkit"
    for given, steps in (
        (("--detections", "detections.csv"), ["data"]),
        (("--detections", "detections.csv", "--data", voc), []),
        (("--network", tiny_network), ["data"]),
        (("--network", tiny_network, "--data", tiny_data / "imagenet"), []),
    ):
        code, out, err = sppnet("evaluate", "--profile", "tiny", *given, "--dry-run", "--json")
        assert code == 0, err
        plan = json.loads(out)
        assert [step["step"] for step in plan["steps"]] == steps
        assert plan["config"]["profile"]["name"] == "tiny"
        assert "would " in err
    assert [path.name for path in tmp_path.iterdir()] == ["detections.csv"]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_report_goes_to_a_folder_of_its_own(sppnet, tmp_path, tiny_data, dry):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "street.jpg").write_bytes(b"mine")
    (tmp_path / "detections.csv").write_text("image,class,score,x1,y1,x2,y2\n")
    given = ("--detections", "detections.csv", "--data", tiny_data / "VOCdevkit", *dry)
    code, _, err = sppnet("evaluate", *given, "--report", "photos")
    assert code == 2
    assert "photos: holds street.jpg, which is no report's; give --report a folder of its own" in err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["street.jpg"]
    code, _, err = sppnet("evaluate", *given, "--report", "detections.csv")
    assert (code, "detections.csv: is a file; give --report a folder" in err) == (2, True)


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
