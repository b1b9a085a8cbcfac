"""`sppnet propose` and the folders that are given in place of a method."""

import json

import pytest

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
