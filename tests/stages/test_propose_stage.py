"""Proposals of a split as a run directory."""

import csv
import shutil

import numpy as np
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
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


@pytest.fixture
def join(make, tmp_path, tiny_data):
    """Joins the windows of sources, the same in both images; returns those of the images."""
    ids = load_voc(tiny_data / "VOCdevkit", "test", 2).ids

    def run(*sources, lacking=None):
        inputs = {"data": tiny_data / "VOCdevkit"}
        for k, boxes in enumerate(sources, 1):
            inputs[f"proposals {k}"] = folder = tmp_path / f"source{k}"
            (folder / "boxes").mkdir(parents=True)
            for image_id in ids:
                if (k, image_id) != (lacking, ids[1]):
                    np.save(folder / "boxes" / f"{image_id}.npy", np.array(boxes, np.float32).reshape(-1, 4))
        joined = make(join_windows, JoinConfig("test", 2), inputs)
        found = [np.load(joined / "boxes" / f"{i}.npy").tolist() for i in ids]
        counts = [f"{i},{len(boxes)}" for i, boxes in zip(ids, found, strict=True)]
        assert (joined / "index.csv").read_text().splitlines() == ["image,windows", *counts]
        return found

    return run


def test_windows_of_several_methods_together(join):
    """One of each by turns, none twice, so that a cut keeps as many of either."""
    first, second = [[0, 0, 9, 9], [5, 5, 20, 20]], [[1, 1, 9, 9], [5, 5, 20, 20], [2, 2, 30, 30]]
    expected = [[0, 0, 9, 9], [1, 1, 9, 9], [5, 5, 20, 20], [2, 2, 30, 30]]
    assert join(first, [], second) == [expected] * 2


def test_eleven_methods_keep_their_order(join):
    boxes = [[k, 0, 30, 30] for k in range(11)]
    assert join(*([box] for box in boxes)) == [boxes] * 2


def test_an_image_that_one_source_lacks_is_named(join):
    with pytest.raises(DataError, match=r"source2/boxes/.*\.npy: .* with `sppnet propose`"):
        join([[0, 0, 9, 9]], [[1, 1, 9, 9]], lacking=2)
