"""Proposals of a split as a run directory."""

import csv
import shutil

import numpy as np
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.stages import propose as module
from sppnet_cli.stages.propose import ProposeConfig, propose_stage

CONFIG = ProposeConfig("test", "ss-fast", 0, 4, 100)


@pytest.fixture
def proposed(monkeypatch):
    """Shapes of the images that were searched; `proposed.stop_at` ends the run there."""

    class Proposed(list):
        stop_at = None

    proposed = Proposed()
    original = module.propose

    def spy(image, *arguments):
        if len(proposed) == proposed.stop_at:
            raise KeyboardInterrupt
        proposed.append(image.shape)
        return original(image, *arguments)

    monkeypatch.setattr(module, "propose", spy)
    return proposed


def files_of(run):
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_run_that_was_cut_off_goes_on_with_the_image_in_hand(tiny_data, tmp_path, proposed):
    data = tiny_data / "VOCdevkit"
    whole = propose_stage(CONFIG, data, tmp_path / "whole", workers=1)
    assert len(proposed) == 4
    proposed.clear()
    proposed.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        propose_stage(CONFIG, data, tmp_path / "run", workers=1)
    proposed.stop_at = None
    run = propose_stage(CONFIG, data, tmp_path / "run", workers=1)
    assert len(proposed) == 4  # none twice
    assert files_of(run) == files_of(whole)
    with (run / "index.csv").open(newline="") as file:
        counts = {row["image"]: int(row["windows"]) for row in csv.DictReader(file)}
    ids = load_voc(data, "test", 4).ids
    assert list(counts) == list(ids)
    assert all(counts[i] == len(np.load(run / "boxes" / f"{i}.npy")) > 0 for i in ids)


def test_an_unreadable_image_gets_no_windows(tiny_data, tmp_path, capsys):
    data = shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")
    dataset = load_voc(data, "test", 4)
    dataset.image_path(dataset.ids[1]).write_bytes(b"")
    run = propose_stage(CONFIG, data, tmp_path / "run", workers=1)
    assert np.load(run / "boxes" / f"{dataset.ids[1]}.npy").shape == (0, 4)
    assert f"warning: no proposals: {dataset.image_path(dataset.ids[1])}" in capsys.readouterr().err
