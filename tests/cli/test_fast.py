"""`sppnet detect` with the options that make it quick, as a user would type them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sppnet_cli.data.voc import load_voc
from sppnet_cli.detection.detector import Detector
from sppnet_cli.features.spp import SppWindows
from sppnet_cli.learning.shortcuts import Shortcuts
from sppnet_cli.learning.svm import Svms
from sppnet_cli.network.low_rank import principal_axes
from sppnet_cli.network.weights import load_network
from sppnet_cli.protocols import PAPER, MappingRules, take

TINY = ("--profile", "tiny", "--limit", "4", "--workers", "1", "-q")


@pytest.fixture
def detect(sppnet, tiny_network, tiny_data, tmp_path):
    """Detects with a detector `svm` that has learnt nothing."""
    data = tiny_data / "VOCdevkit"

    def run(*options, layer="fc6"):
        if not (tmp_path / "svm").is_dir():
            (tmp_path / "svm").mkdir()
            extractor = SppWindows(load_network(tiny_network), take(MappingRules, PAPER), (240,))
            names, pooled_size = load_voc(data, "test").class_names, extractor.network.pooled_size
            rng = np.random.default_rng(0)
            svms, cascade = (
                Svms(rng.normal(size=(20, width)).astype(np.float32), np.zeros(20, np.float32), 0.1)
                for width in (pooled_size if layer == "pool5" else 24, pooled_size)
            )
            axes = {"fc6": principal_axes(torch.from_numpy(rng.normal(size=(30, 24)).astype(np.float32)))}
            shortcuts = Shortcuts(cascade, axes) if layer == "fc6" else None
            Detector(extractor, layer, names, svms, shortcuts=shortcuts).save(tmp_path / "svm")
        return sppnet("detect", *TINY, "--data", data, "--detector", "svm", *options, "--json")

    return run


def test_fast_runs_lie_beside_the_exact_one(detect, sppnet, tmp_path):
    results = {}
    for options in (
        (),
        ("--fast",),
        ("--fc-rank", "5"),
        ("--fast", "--cascade", "1"),
        ("--fc-rank", "5,3", "--cascade", "0.25"),
    ):
        code, out, err = detect(*options)
        assert code == 0, err
        result = json.loads(out)
        assert result["n"] == 4
        assert result["skipped"] == {}
        folder = Path(result["detections"]).parent
        config = json.loads((folder / "manifest.json").read_text())["config"]
        stem = folder.name.removeprefix("detections-svm").rpartition("-test-seed0-")[0]
        results[stem] = config["fast"]
    assert results == {
        "": None,
        "-fast": {"fc_rank": [9], "cascade": 0.2},
        "-rank5": {"fc_rank": [5], "cascade": None},
        "-fast-cascade1": {"fc_rank": [9], "cascade": 1.0},
        "-rank5,3-cascade0.25": {"fc_rank": [5, 3], "cascade": 0.25},
    }

    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "street.png")
    code, out, _ = sppnet("detect", "--detector", "svm", "--fast", "street.png", "--json", "-q")
    assert code == 0
    found = Path(json.loads(out)["out"])
    assert found.name.startswith("photos-fast-")
    assert (tmp_path / found / "street.jpg").is_file()


def test_detectors_of_one_name_have_results_of_their_own(detect, tmp_path):
    assert detect()[0] == 0
    folders = set()
    for seed in ("a", "b"):
        shutil.copytree(tmp_path / "svm", tmp_path / seed / "svm")
        about = tmp_path / seed / "svm" / "detector.json"
        about.write_text(about.read_text() + "\n" * len(folders))  # another one
        code, out, err = detect("--detector", f"{seed}/svm")
        assert code == 0, err
        folders.add(Path(json.loads(out)["detections"]).parent.name)
    assert len(folders) == 2


def test_images_that_were_skipped_are_told_and_tried_again(detect, tiny_data, tmp_path):
    data = load_voc(tiny_data / "VOCdevkit", "test", 4)
    assert detect("--out", "found")[0] == 0
    proposals = next(tmp_path.glob("runs/**/proposals-test-*")) / "boxes" / f"{data.ids[1]}.npy"
    whole = proposals.read_bytes()
    proposals.write_bytes(whole[:90])
    code, out, err = detect("--out", "again")
    assert code == 0
    assert list(json.loads(out)["skipped"]) == [data.ids[1]]
    assert "1 of 4 images were skipped" in err
    assert "4 images, 1 of them skipped" in err
    proposals.write_bytes(whole)
    code, out, _ = detect("--out", "again")
    assert json.loads(out)["skipped"] == {}
    first, second = (tmp_path / name / "detections.csv" for name in ("found", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_detector_without_fc_layers(detect, tmp_path):
    for options in (["--fc-rank", "4"], ["--cascade", "0.3"]):
        code, out, err = detect(*options, layer="pool5")
        assert (code, out) == (2, "")
        assert "its SVMs are on pool5: no fc layers" in err
    assert not list(tmp_path.glob("runs/**/detections-*"))
    found = []
    for options in ((), ("--fast",)):
        code, out, err = detect(*options, layer="pool5")
        assert code == 0, err
        found.append(json.loads(out)["detections"])
    assert found[0] == found[1]  # the exact run
    assert "--fast: the SVMs of svm score pool5, without fc layers: exact as ever" in err


def test_a_rank_that_saves_nothing(detect):
    code, out, err = detect("--fc-rank", "13")
    assert (code, out) == (2, "")
    assert "rank 13 of fc6: of 800 x 24 numbers a rank of 1 to 12 spares some" in err


@pytest.mark.parametrize("damage", ["cut", "of another"])
def test_shortcuts_that_cannot_be_used(detect, tmp_path, damage):
    assert detect()[0] == 0
    path = tmp_path / "svm" / "shortcuts.safetensors"
    path.write_bytes(
        path.read_bytes()[:-9] if damage == "cut" else (tmp_path / "svm" / "svm.safetensors").read_bytes()
    )
    code, out, err = detect("--fast")
    assert (code, out) == (3, "")
    assert str(Path("svm") / "shortcuts.safetensors") in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fc-rank", "big"], "--fc-rank big: write 1024 or 1024,256"),
        (["--fc-rank", "1,2,3"], "--fc-rank 1,2,3: write 1024 or 1024,256"),
        (["--fc-rank", "0"], "--fc-rank 0: write 1024"),
        (["--cascade", "0"], "0"),
        (["--cascade", "1.5"], "1.5"),
        (["--precision", "int8"], "int8"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(sppnet, tmp_path, options, message):
    code, out, err = sppnet("detect", "--profile", "tiny", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(tmp_path.iterdir())
