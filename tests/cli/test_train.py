"""`sppnet train`: from an export of a labelling tool to a detector that is tested and used."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.images import read_image
from sppnet_cli.data.voc import load_voc

sys.path.append(str(Path(__file__).parents[1] / "data" / "imports"))
from exporters import Photo, coco, labelimg

TINY = ("--profile", "tiny", "--workers", "1")
NAMES = ("kind one", "Köter", "a/b")  # a class is any word


@pytest.fixture(scope="module")
def photos(tiny_data):
    """The tiny data as photographs of things of three kinds; the last has three objects."""
    found, rare = [], 0
    for split in ("trainval", "test"):
        dataset = load_voc(tiny_data / "VOCdevkit", split)
        for image_id in dataset.ids:
            truth = dataset.annotation(image_id)
            objects = []
            for box, label in zip(truth.boxes, truth.labels, strict=True):
                kind = 2 if rare < 3 and len(found) % 9 == 0 else label % 2
                rare += kind == 2
                objects.append((NAMES[kind], *map(int, box)))
            found.append(Photo(dataset.image_path(image_id), truth.size[::-1], tuple(objects)))
    return found


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A folder in which a detector was trained: what the call printed."""
    folder = tmp_path_factory.mktemp("trained")
    coco(photos, folder / "export")
    from sppnet_cli import cli

    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context():
        patch.chdir(folder)
        patch.setenv("SPPNET_JOBS", "1")
        patch.setattr(sys, "argv", ["sppnet", "train", "export", *TINY, "--out", "mine", "--json"])
        with (folder / "out.json").open("w") as out, (folder / "err.txt").open("w") as err:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as stop:
                cli.main()
    assert stop.value.code == 0, (folder / "err.txt").read_text()
    return folder


@pytest.fixture
def here(trained, sppnet, monkeypatch):
    monkeypatch.chdir(trained)
    return sppnet


def test_what_it_prints(trained):
    result = json.loads((trained / "out.json").read_text())
    assert list(result) == ["detector", "mAP", "AP", "images", "seconds", "calibration_error"]
    assert result["detector"] == "mine"
    assert set(result["AP"]) == {"kind one", "Köter", "a_b"}
    known = [ap for ap in result["AP"].values() if ap is not None]
    assert result["mAP"] == pytest.approx(np.mean(known))
    assert result["images"] == 40
    assert result["seconds"] > 1
    said = (trained / "err.txt").read_text()
    assert "32 images to learn 3 classes from, 8 to test on; zf5" in said
    assert "GiB of memory" in said
    assert "fewer than 5 objects to learn from: a_b (" in said
    assert "95% interval" in said
    assert "use it: sppnet detect --detector mine PHOTOS" in said


def test_what_it_leaves(trained):
    description = json.loads((trained / "mine/detector.json").read_text())
    assert description["class_names"] == sorted(["Köter", "a_b", "kind one"])
    assert len(description["calibration"]["slope"]) == 3
    report = {path.name for path in (trained / "mine/report").iterdir()}
    assert {
        "ap.csv",
        "contact-sheet.jpg",
        "precision_recall.png",
        "reliability.csv",
        "reliability.png",
    } <= report
    assert read_image(trained / "mine/report/contact-sheet.jpg").shape[1] > 300


def test_the_same_call_again_returns_the_same_at_once(here, trained):
    before = (trained / "mine/manifest.json").stat().st_mtime_ns
    code, out, err = here("train", "export", *TINY, "--out", "mine", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((trained / "out.json").read_text())
    assert (trained / "mine/manifest.json").stat().st_mtime_ns == before
    assert "GiB of memory" not in err  # nothing is left to do


def test_a_dry_run_of_an_export_does_nothing(sppnet, photos, tmp_path):
    labelimg(photos, tmp_path / "export")
    code, out, _ = sppnet("train", "export", *TINY, "--out", "mine", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    steps = [step["step"] for step in plan["steps"]]
    assert steps[-1] == "detect"
    assert steps.count("train-svm") == 5  # four folds and the whole
    assert [step["out"] for step in plan["steps"] if step["step"] == "calibrate"] == ["mine"]
    assert plan["seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_dry_run_plans_what_is_made(here, trained):
    code, out, _ = here("train", "export", *TINY, "--out", "mine", "--dry-run", "--json")
    assert code == 0
    assert all(step["ready"] for step in json.loads(out)["steps"])


def test_photographs_with_confidences(here, trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "street.png")
    given = ("detect", "--detector", "mine", tmp_path / "street.png", "--out", tmp_path / "found", "--json")
    code, out, err = here(*given, "--format", "coco", "--format", "yolo")
    assert code == 0
    (image,) = json.loads(out)["images"]
    rows = pd.read_csv(tmp_path / "found/detections.csv")
    assert list(rows.columns[:4]) == ["image", "class", "score", "confidence"]
    assert [d["confidence"] for d in image["detections"]] == pytest.approx(rows["confidence"].tolist())
    found = json.loads((tmp_path / "found/detections.json").read_text())
    assert [entry["score"] for entry in found] == pytest.approx(rows["score"].tolist())
    assert "Detections of confidence 0.5 or more" in err
    assert (tmp_path / "found/yolo/labels/street.txt").is_file()


def test_a_limit_that_the_detector_cannot_keep(sppnet, random_detector, tmp_path):
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    code, _, err = sppnet("detect", "--detector", random_detector, "a.png", "--min-confidence", "0.3")
    assert code == 2
    assert "takes one detector that is calibrated" in err


def test_a_set_in_the_layout_is_taken_as_it_is(here, trained):
    (folder,) = (trained / "runs/tiny").glob("set-export-*")
    code, out, _ = here("train", folder / "VOCdevkit", *TINY, "--out", "mine", "--dry-run", "--json")
    assert code == 0
    steps = {step["step"]: step["ready"] for step in json.loads(out)["steps"]}
    assert "import" not in steps
    assert all(steps.values())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "no such file or folder"),
        (lambda folder: folder.mkdir(), "no labels found"),
    ],
    ids=["nothing", "empty"],
)
def test_what_is_no_data(sppnet, tmp_path, make, words):
    make(tmp_path / "export")
    code, out, err = sppnet("train", "export", *TINY)
    assert (code, out) == (3, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_one_photograph(sppnet, photos, tmp_path):
    labelimg(photos[:1], tmp_path / "export")
    code, _, err = sppnet("train", "export", *TINY)
    assert code == 3
    assert "error: " in err
    assert err.strip().splitlines()[-1].count("label more") == 1
