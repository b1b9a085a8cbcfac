"""`sppnet propose`, the folders that are given in place of a method, and methods together."""

import json

import numpy as np
import pytest
import scipy.io

from sppnet_cli.data.voc import load_voc
from sppnet_cli.runs import read_manifest

TINY = ("--profile", "tiny", "--workers", "1", "-q", "--json")


@pytest.fixture
def run(sppnet, tmp_path):
    assert sppnet("propose", *TINY, "--limit", "2", "--out", "run")[0] == 0
    return tmp_path / "run"


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_run_in_place_of_a_method(sppnet, tmp_path, run, more):
    code, out, err = sppnet(
        "propose", *TINY, "--split", "test", "--proposals", "run", "--out", "other", *more
    )
    assert (code, out) == (2, "")
    assert "--proposals run: a run of `sppnet propose` already" in err
    assert "give a method" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", ["propose", "finetune", "train-svm", "detect"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_folder_that_is_no_run(sppnet, tmp_path, command, more):
    (tmp_path / "empty").mkdir()
    code, out, err = sppnet(command, *TINY, "--proposals", "empty", *more)
    assert (code, out) == (3, "")
    assert (
        "empty: neither a run of `sppnet propose` (it has no boxes folder) nor a folder of .mat files" in err
    )
    assert not list(tmp_path.rglob("*.partial"))


def test_a_method_is_no_folder_of_its_name(sppnet, tmp_path):
    code, out, err = sppnet("propose", *TINY, "--limit", "2", "--out", "ss-fast")
    assert code == 0, err
    assert len(list((tmp_path / "ss-fast" / "boxes").iterdir())) == 2
    code, out, err = sppnet("propose", *TINY, "--limit", "3", "--out", "more")
    assert (code, json.loads(out)["proposals"]) == (0, "more"), err
    assert len(list((tmp_path / "more" / "boxes").iterdir())) == 3


def boxes_of(run):
    return {path.stem: np.load(path).tolist() for path in sorted((run / "boxes").iterdir())}


def by_turns(first, second):
    """One of each in turn, without those that came already."""
    found = []
    for k in range(max(len(first), len(second))):
        for boxes in (first, second):
            if k < len(boxes) and boxes[k] not in found:
                found.append(boxes[k])
    return found


@pytest.fixture
def propose(sppnet, tmp_path):
    """`sppnet propose` on two images of trainval: the boxes of each."""

    def call(method, name, *more):
        code, out, err = sppnet("propose", *TINY, "--limit", "2", "--proposals", method, "--out", name, *more)
        assert code == 0, err
        assert json.loads(out)["proposals"] == name
        return boxes_of(tmp_path / name)

    return call


def test_methods_runs_and_mat_files_together(propose, tmp_path, tiny_data):
    fast, edges = propose("ss-fast", "fast"), propose("edgeboxes", "edges")
    expected = {image_id: by_turns(fast[image_id], edges[image_id]) for image_id in fast}
    assert len(expected) == 2
    assert propose("ss-fast+edgeboxes", "both") == expected
    assert propose("fast+edges", "of-runs") == expected
    assert propose("fast+edgeboxes", "mixed") == expected
    # The authors' file, 1-based y1, x1, y2, x2, or the folder that holds it.
    ids = list(load_voc(tiny_data / "VOCdevkit", "trainval").ids)
    boxes, images = np.empty((1, len(ids)), object), np.empty((len(ids), 1), object)
    boxes[0], images[:, 0] = [np.array([[3.0, 2, 40, 30]])] * len(ids), ids
    (tmp_path / "mat").mkdir()
    scipy.io.savemat(tmp_path / "mat" / "voc_2007_trainval.mat", {"boxes": boxes, "images": images})
    expected = {image_id: by_turns([[1, 2, 29, 39]], edges[image_id]) for image_id in edges}
    for given, name in (("mat/voc_2007_trainval.mat+edges", "of-file"), ("mat+edges", "of-folder")):
        assert propose(given, name) == expected


def test_training_on_both_and_testing_on_one(sppnet, tmp_path, window_network):
    """As the journal edition: selective search and EdgeBoxes in training, EdgeBoxes alone in the test."""
    given = (*TINY, "--limit", "6")
    train = ("--network", window_network, "--layer", "pool5", "--scales", "240", "--out", "detector")
    assert sppnet("train-svm", *given, *train, "--proposals", "ss-fast+edgeboxes", "--dry-run")[0] == 0
    assert not (tmp_path / "detector").exists()
    code, _, err = sppnet("train-svm", *given, *train, "--proposals", "ss-fast+edgeboxes")
    assert code == 0, err
    (joined,) = (tmp_path / "runs" / "tiny").glob("proposals-trainval-joined-*")
    (fast,) = (tmp_path / "runs" / "tiny").glob("proposals-trainval-ss-fast-*")
    (edges,) = (tmp_path / "runs" / "tiny").glob("proposals-trainval-edgeboxes-*")
    assert read_manifest(tmp_path / "detector")["inputs"]["proposals"] == read_manifest(joined)["fingerprint"]
    sides = [boxes_of(run) for run in (fast, edges)]
    assert boxes_of(joined) == {
        image_id: by_turns(*(side[image_id] for side in sides)) for image_id in sides[0]
    }
    code, out, err = sppnet("detect", *given, "--detector", "detector", "--proposals", "edgeboxes")
    assert (code, json.loads(out)["n"]) == (0, 6), err
    assert not list((tmp_path / "runs" / "tiny").glob("proposals-test-[!e]*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ss-fast+", "--proposals ss-fast+: write a method or a path on both sides of a plus, as in A+B"),
        ("ss-fast+nothing", "--proposals nothing: neither ss-fast, ss-paper, edgeboxes nor a run of"),
    ],
)
def test_half_a_sum(sppnet, tmp_path, given, message):
    code, out, err = sppnet("propose", *TINY, "--proposals", given)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_a_sum_with_an_empty_folder(sppnet, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = sppnet("propose", *TINY, "--proposals", "ss-fast+empty")
    assert (code, out) == (3, "")
    assert "empty: neither a run of `sppnet propose` (it has no boxes folder)" in err
    assert not (tmp_path / "runs").exists()
