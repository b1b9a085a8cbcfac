"""`--dry-run` of every command names exactly the folders that the real call then writes."""

import json

import pytest

from sppnet_cli.runs import MANIFEST

TINY = ("--profile", "tiny", "--limit", "8", "--workers", "1", "-q", "--json")
COMMANDS = [
    ["pretrain", "--sizes", "224,180"],
    ["propose", "--split", "test"],
    ["propose", "--proposals", "ss-fast+edgeboxes"],
    ["extract-features", "--layer", "fc7"],
    ["finetune", "--scales", "480"],
    ["train-svm", "--scales", "480", "--layer", "ftfc6"],
    ["train-svm", "--method", "rcnn", "--layer", "pool5"],
    ["train-bbox"],
    ["detect"],
    ["detect", "--scales", "480"],
    ["visualize", "detections", "--count", "2"],
    ["visualize", "conv5", "--count", "1"],
    ["reproduce", "corners"],
    ["reproduce", "convergence"],
    ["reproduce", "complexity"],
    ["reproduce", "table7", "table8"],
]


def runs_in(folder):
    return {str(path.parent.relative_to(folder)) for path in folder.rglob(MANIFEST)}


@pytest.mark.slow
def test_the_folders_that_are_promised_are_those_that_are_made(sppnet, tmp_path):
    for command in COMMANDS:
        before = runs_in(tmp_path)
        code, out, err = sppnet(*command, *TINY, "--dry-run")
        assert code == 0, err
        assert runs_in(tmp_path) == before, command
        steps = json.loads(out)["steps"]
        code, _, err = sppnet(*command, *TINY)
        assert code == 0, err
        promised = {step["out"] for step in steps if not step["ready"]}
        assert runs_in(tmp_path) - before == promised, command
        again = json.loads(sppnet(*command, *TINY, "--dry-run")[1])["steps"]
        assert all(step["ready"] for step in again), command
