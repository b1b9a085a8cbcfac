"""Features, classifiers and their scores, as a user would type them."""

import json

import numpy as np
import pytest
from PIL import Image

TINY = ("--profile", "tiny", "--workers", "1", "-q")
CLASSIFICATION = ("train-svm", *TINY, "--task", "classification")


@pytest.fixture
def caltech(tmp_path):
    """Two categories of 33 small images, bright and dark, and one image of another kind."""
    rng = np.random.default_rng(0)
    for name, low in (("day", 120), ("night", 0)):
        folder = tmp_path / "101_ObjectCategories" / name
        folder.mkdir(parents=True)
        for k in range(33):
            pixels = rng.integers(low, low + 120, (20, 24 + k % 3, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"image_{k:04d}.png")
    return tmp_path / "101_ObjectCategories"


def test_from_pretraining_to_map_and_accuracy(sppnet, tmp_path, caltech):
    code, out, _ = sppnet("pretrain", *TINY, "--limit", "8", "--epochs", "1", "--out", "net", "--json")
    assert code == 0

    # VOC: on the embedded data.
    own = ("--network", "net", "--layer", "fc7", "--view", "warp", "--size", "180")
    code, out, err = sppnet(*CLASSIFICATION, *own, "--out", "voc", "--json")
    assert (code, json.loads(out)["classifier"]) == (0, "voc"), err
    code, out, _ = sppnet("evaluate", *TINY, "--classifier", "voc", "--json")
    result = json.loads(out)
    assert code == 0
    assert list(result) == ["mAP", "AP", "n"]
    assert 0 <= result["mAP"] <= 1
    assert (len(result["AP"]), result["n"]) == (20, 20)
    code, out, _ = sppnet("evaluate", *TINY, "--classifier", "voc")
    assert "AP (%), 20 images" in out

    # The same with the data named, and the network moved.
    code, _, err = sppnet("evaluate", *TINY, "--classifier", "voc", "--data", caltech)
    assert code == 3
    assert "not a VOC set, which voc was trained on" in err
    (devkit,) = (tmp_path / "runs" / "tiny").glob("data-*/VOCdevkit")
    (tmp_path / "net").rename(tmp_path / "moved")
    code, _, err = sppnet("evaluate", *TINY, "--classifier", "voc", "--data", devkit)
    assert code == 3
    assert "name it with --network" in err
    code, out, _ = sppnet(
        "evaluate", *TINY, "--classifier", "voc", "--data", devkit, "--network", "moved", "--json"
    )
    assert (code, json.loads(out)) == (0, result)

    # Caltech101: the user's, thirty images to train; and the embedded, two.
    own = ("--network", "moved", "--layer", "SPP pool5", "--splits", "3", "--profile", "mini")
    code, out, err = sppnet(*CLASSIFICATION, *own, "--data", caltech, "--out", "caltech", "--json")
    assert code == 0, err
    code, out, _ = sppnet(
        "evaluate", *TINY, "--profile", "mini", "--classifier", "caltech", "--data", caltech.parent, "--json"
    )
    assert (code, json.loads(out)) == (0, {"accuracy": 1.0, "std": 0.0, "splits": 3})
    embedded = ("--network", "moved", "--dataset", "caltech101", "--out", "embedded")
    assert sppnet(*CLASSIFICATION, *embedded)[0] == 0
    code, out, _ = sppnet("evaluate", *TINY, "--classifier", "embedded", "--json")
    assert (code, list(json.loads(out))) == (0, ["accuracy", "std", "splits"])

    # Another network than the classifier's.
    assert sppnet("pretrain", *TINY, "--limit", "16", "--epochs", "1", "--out", "other")[0] == 0
    code, _, err = sppnet("evaluate", *TINY, "--classifier", "embedded", "--network", "other", "--out", "x")
    assert code == 3
    assert "features that embedded was not trained on: network" in err

    # Features: several layers of any kind of data.
    extract = ("extract-features", *TINY, "--network", "moved", "--json")
    code, out, _ = sppnet(*extract, "--layer", "conv4, fc7", "--view", "crop", "--data", caltech)
    found = json.loads(out)
    assert (code, found["n"]) == (0, 66)
    assert {layer: np.load(path).shape for layer, path in found["features"].items()} == {
        "conv4": (66, 24 * 13 * 13),
        "fc7": (66, 32),
    }
    code, out, _ = sppnet(*extract, "--layer", "pool5", "--data", caltech / "day")
    assert (code, json.loads(out)["n"]) == (0, 33)
    code, out, _ = sppnet(*extract, "--split", "test", "--data", devkit, "--limit", "3")
    assert (code, json.loads(out)["n"]) == (0, 3)
    code, out, _ = sppnet(*extract, caltech / "day" / "image_0001.png", "--out", "one")
    assert (code, json.loads(out)["n"]) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract-features", "--layer", "conv4,conv5,pool5,SPP pool5,fc6,fc7", "--view", "crop"],
        ["extract-features", "--dataset", "caltech101"],
        ["train-svm", "--task", "classification"],
        ["train-svm", "--task", "classification", "--dataset", "caltech101", "--splits", "3"],
    ],
)
def test_a_dry_run_tells_and_does_nothing(sppnet, tmp_path, arguments):
    code, out, err = sppnet(*arguments, *TINY, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["seconds"] > 0
    assert all(step["files"] for step in plan["steps"])
    assert not list(tmp_path.iterdir())


def test_a_dry_run_knows_the_bytes(sppnet, caltech):
    arguments = ("--layer", "conv5,fc6", "--view", "crop", "--data", caltech, "--dry-run", "--json")
    steps = json.loads(sppnet("extract-features", *TINY, *arguments)[1])["steps"]
    assert steps[-1]["files"] == {
        "conv5.npy": 4 * 66 * 16 * 13 * 13,
        "fc6.npy": 4 * 66 * 32,
        "index.csv": 60 * 66,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract-features", "--layer", "fc9"], 2, "unknown layer 'fc9'; layers are conv4, conv5, pool5"),
        (["extract-features", "--layer", "fc6,fc6"], 2, "name each once"),
        (["extract-features", "--layer", "conv5"], 2, "conv5 has another length for each shape of image"),
        (["extract-features", "--view", "crop", "--size", "200"], 2, "a crop of 224 px does not fit"),
        (["extract-features", "--data", "nowhere"], 3, "nowhere: no such folder"),
        (["extract-features", "a.jpg", "--data", "x"], 2, "give IMAGES, or a data set"),
        (["extract-features", "--data", ".", "--dataset", "voc"], 2, "--dataset chooses from the embedded"),
        (["train-svm", "--view", "crop"], 2, "--view goes with --task classification"),
        (["train-svm", "--splits", "3"], 2, "--splits goes with --task classification"),
        (["train-svm", "--layer", "conv4"], 2, "--task detection takes pool5, fc6, fc7, ftfc6, ftfc7"),
        ([*CLASSIFICATION, "--scales", "480"], 2, "--scales goes with --task detection"),
        ([*CLASSIFICATION, "--method", "spp"], 2, "--method goes with --task detection"),
        ([*CLASSIFICATION, "--layer", "ftfc7"], 2, "--task classification takes conv4, conv5"),
        ([*CLASSIFICATION, "--splits", "3"], 2, "--splits goes with Caltech101"),
        ([*CLASSIFICATION, "--data", "."], 3, "neither a VOC devkit nor Caltech101"),
        ([*CLASSIFICATION, "--profile", "pretrained"], 3, "needs VOC 2007"),
        (["evaluate", "--classifier", "nowhere"], 3, "this is not a classifier"),
        (["evaluate", "--classifier", "a", "--detections", "b"], 2, "one of them"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(sppnet, tmp_path, arguments, code, message):
    found, out, err = sppnet(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (3, "category night has 30 images, but 31 are needed"),
        (33, "night: class folder without images"),
    ],
)
def test_a_category_that_is_too_small_is_told(sppnet, caltech, remove, message):
    for path in sorted((caltech / "night").iterdir())[:remove]:
        path.unlink()
    assert sppnet("pretrain", *TINY, "--limit", "8", "--epochs", "1", "--out", "net")[0] == 0
    code, _, err = sppnet(*CLASSIFICATION, "--profile", "mini", "--network", "net", "--data", caltech)
    assert code == 3
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "val"], "the 10 images to train on hold no "),
        (["--dataset", "caltech101", "--limit", "8"], "--limit 8 leaves "),
        (["--limit", "8"], "--limit 8 leaves 0 images of "),
    ],
)
def test_too_few_images_are_told_before_any_training(sppnet, tmp_path, arguments, message):
    code, _, err = sppnet(*CLASSIFICATION, *arguments)
    assert code == 3
    assert message in err
    assert {path.name.split("-")[0] for path in (tmp_path / "runs" / "tiny").iterdir()} <= {"data"}


def test_an_image_that_cannot_be_read_is_told(sppnet, caltech):
    (caltech / "day" / "image_0007.png").write_bytes(b"")
    assert sppnet("pretrain", *TINY, "--limit", "8", "--epochs", "1", "--out", "net")[0] == 0
    code, _, err = sppnet("extract-features", *TINY, "--network", "net", "--data", caltech)
    assert code == 3
    assert "image_0007.png: is empty" in err
