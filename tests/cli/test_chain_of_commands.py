"""The commands one after another on the tiny profile, as a user would type them."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.images import read_image

TINY = ("--profile", "tiny", "--limit", "8", "--workers", "1", "-q")


def test_from_pretraining_to_detections_in_photographs(sppnet, tmp_path):
    code, out, _ = sppnet("pretrain", *TINY, "--sizes", "224,180", "--epochs", "2", "--json")
    assert code == 0
    network = json.loads(out)["network"]
    sizes = [
        json.loads(line)["size"] for line in (tmp_path / network / "metrics.jsonl").read_text().splitlines()
    ]
    assert sizes == [224, 180]

    code, out, _ = sppnet("evaluate", *TINY, "--network", network, "--views", "1full", "--json")
    assert code == 0
    assert json.loads(out)["n"] == 8
    assert 0 <= json.loads(out)["top5_error"] <= json.loads(out)["top1_error"] <= 1

    code, out, _ = sppnet("extract-features", *TINY, "--network", network, "--layer", "SPP pool5", "--json")
    assert code == 0
    features = np.load(json.loads(out)["features"]["SPP pool5"], mmap_mode="r")
    index = pd.read_csv(json.loads(out)["index"])
    assert len(features) == len(index) == 8

    train = ("--network", network, "--scales", "480")
    code, out, _ = sppnet("train-svm", *TINY, *train, "--layer", "pool5", "--out", "svm", "--json")
    assert (code, json.loads(out)["detector"]) == (0, "svm")
    code, out, _ = sppnet("train-bbox", *TINY, "--detector", "svm", "--dry-run", "--json")
    assert [step["step"] for step in json.loads(out)["steps"]] == ["train-bbox"]
    assert json.loads(out)["steps"][-1]["out"] == "svm-bb"
    assert sppnet("train-bbox", *TINY, "--detector", "svm", "--out", "detector")[0] == 0

    # On a data set: a CSV and a score; the same call again returns the same at once.
    code, out, _ = sppnet("detect", *TINY, "--detector", "detector", "--json")
    assert code == 0
    first = json.loads(out)
    assert first["n"] == 8
    assert json.loads(sppnet("detect", *TINY, "--detector", "detector", "--json")[1]) == first
    steps = json.loads(sppnet("detect", *TINY, "--detector", "detector", "--dry-run", "--json")[1])["steps"]
    assert f"{steps[-1]['out']}/detections.csv" == first["detections"]
    assert all(step["ready"] for step in steps)
    code, out, _ = sppnet("evaluate", *TINY, "--detections", first["detections"], "--json")
    assert json.loads(out)["mAP"] == first["mAP"]

    # On files: pictures beside a CSV; one that cannot be read is told, not hidden.
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "street.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    code, out, err = sppnet("detect", "--detector", "detector", "photos", "--json", "--out", "found")
    assert code == 0
    result = json.loads(out)
    assert [image["path"] for image in result["images"]] == ["photos/street.png"]
    assert list(result["skipped"]) == ["photos/broken.jpg"]
    assert "1 of 2 images were skipped" in err
    assert read_image(tmp_path / "found" / "street.jpg").shape == (90, 120, 3)
    assert (tmp_path / "found" / "detections.csv").is_file()


def test_each_command_ends_with_the_next_one(sppnet, random_proposals):
    """As a line that can be pasted: it finds what was made, on the same profile, and needs no other network."""
    short = ("--profile", "tiny", "--limit", "8", "--workers", "1")
    chain = [
        ("pretrain", "--out", "my network"),
        ("finetune", "--network", "my network", "--scales", "480", "--proposals", random_proposals, "--out", "head"),
        ("train-svm", "--network", "my network", "--layer", "pool5", "--scales", "480", "--proposals", random_proposals,
         "--out", "svm"),
    ]  # fmt: skip
    following = []
    for words in chain:
        code, _, err = sppnet(*words, *short)
        assert code == 0, err
        (then,) = re.findall(r"^next: sppnet (.*)$", err, re.MULTILINE)
        code, out, err = sppnet(*shlex.split(then), "--dry-run", "--json")
        assert code == 0, err
        following.append((then.split()[0], [step["step"] for step in json.loads(out)["steps"]]))
    assert following == [
        ("evaluate", ["data"]),
        ("train-svm", ["propose", "train-svm"]),  # the proposals are the user's
        ("detect", ["propose", "detect"]),
    ]


def test_detect_trains_the_embedded_detector_first_and_says_so(sppnet):
    code, out, err = sppnet("detect", *TINY[:-1], "--scales", "480..500")
    assert code == 0
    assert "making first what is missing: data, " in err
    assert "train-bbox, about " in err
    assert "mAP" in out
    steps = json.loads(sppnet("detect", *TINY, "--scales", "480..500", "--dry-run", "--json")[1])["steps"]
    assert all(step["ready"] for step in steps)


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "--sizes", "224,180"],
        ["propose"],
        ["extract-features"],
        ["finetune", "--scales", "480"],
        ["train-svm", "--scales", "480", "--layer", "pool5"],
        ["train-bbox"],
        ["detect", "--scales", "480..500"],
    ],
)
def test_a_dry_run_tells_and_does_nothing(sppnet, tmp_path, arguments):
    code, out, err = sppnet(*arguments, *TINY, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["config"]["profile"]["name"] == "tiny"
    assert plan["seconds"] > 0
    assert all(step["files"] for step in plan["steps"])
    assert not list(tmp_path.iterdir())


def test_another_setting_into_the_same_folder_is_refused(sppnet):
    assert sppnet("propose", *TINY, "--out", "boxes")[0] == 0
    code, _, err = sppnet("propose", *TINY, "--out", "boxes", "--seed", "1")
    assert code == 2
    assert "seed was 0, not 1" in err
