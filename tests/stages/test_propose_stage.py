"""Proposals of a split as a run directory."""

import csv
import shutil

import numpy as np
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.stages import propose as module
from sppnet_cli.stages.propose import JoinConfig, ProposeConfig, join_windows, propose_windows

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


@pytest.fixture
def propose(make, tiny_data):
    def run(name="run", data=tiny_data / "VOCdevkit", config=CONFIG, workers=1):
        return make(propose_windows, config, {"data": data}, name, workers=workers)

    return run


def test_a_run_that_was_cut_off_goes_on_with_the_image_in_hand(tiny_data, propose, proposed):
    data = tiny_data / "VOCdevkit"
    whole = propose("whole")
    assert len(proposed) == 4
    proposed.clear()
    proposed.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        propose()
    proposed.stop_at = None
    run = propose()
    assert len(proposed) == 4  # none twice
    assert files_of(run) == files_of(whole)
    with (run / "index.csv").open(newline="") as file:
        counts = {row["image"]: int(row["windows"]) for row in csv.DictReader(file)}
    ids = load_voc(data, "test", 4).ids
    assert list(counts) == list(ids)
    assert all(counts[i] == len(np.load(run / "boxes" / f"{i}.npy")) > 0 for i in ids)


def test_an_unreadable_image_gets_no_windows(tiny_data, tmp_path, propose, capsys):
    data = shutil.copytree(tiny_data / "VOCdevkit", tmp_path / "VOCdevkit")
    dataset = load_voc(data, "test", 4)
    dataset.image_path(dataset.ids[1]).write_bytes(b"")
    run = propose(data=data)
    assert np.load(run / "boxes" / f"{dataset.ids[1]}.npy").shape == (0, 4)
    assert f"warning: no proposals: {dataset.image_path(dataset.ids[1])}" in capsys.readouterr().err


def test_windows_of_several_methods_together(make, tmp_path, tiny_data):
    """Those of the first in their order, then what the second adds."""
    ids = load_voc(tiny_data / "VOCdevkit", "test", 2).ids
    first, second = [[0, 0, 9, 9], [5, 5, 20, 20]], [[1, 1, 9, 9], [5, 5, 20, 20], [2, 2, 30, 30]]
    sources = {}
    for k, boxes in enumerate((first, second), 1):
        folder = tmp_path / f"source{k}" / "boxes"
        folder.mkdir(parents=True)
        for image_id in ids:
            np.save(folder / f"{image_id}.npy", np.array(boxes, np.float32))
        sources[f"proposals {k}"] = folder.parent
    inputs = {"data": tiny_data / "VOCdevkit", **sources}
    run = make(join_windows, JoinConfig("test", 2), inputs)
    expected = [*first, [1, 1, 9, 9], [2, 2, 30, 30]]
    assert [np.load(run / "boxes" / f"{i}.npy").tolist() for i in ids] == [expected] * 2
    assert (run / "index.csv").read_text().splitlines() == ["image,windows", *(f"{i},4" for i in ids)]
