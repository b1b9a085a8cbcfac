"""The authors' windows as a run of proposals."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from sppnet_cli.data.proposals import read_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.stages import workspace
from sppnet_cli.stages.profiles import PROFILES
from sppnet_cli.stages.workspace import Workspace


def cells(entries, shape):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array.reshape(shape)


@pytest.fixture
def folder(tiny_data, tmp_path):
    """Both files, with a window (2, 3)-(30, 40) in every image, 1-based y1, x1, y2, x2."""
    for split in ("trainval", "test"):
        ids = list(load_voc(tiny_data / "VOCdevkit", split).ids)
        boxes = [np.array([[3.0, 2, 40, 30], [1, 1, 50 + k, 50]]) for k in range(len(ids))]
        content = {"boxes": cells(boxes, (1, -1)), "images": cells(ids, (-1, 1))}
        scipy.io.savemat(tmp_path / f"voc_2007_{split}.mat", content)
    return tmp_path


@pytest.fixture
def ws(tiny_data, tmp_path, folder):
    return Workspace(
        PROFILES["tiny"], root=tmp_path / "runs", data=tiny_data / "VOCdevkit", proposals_method=str(folder)
    )


@pytest.mark.parametrize("split", ["trainval", "test"])
@pytest.mark.parametrize("damage", ["broken", "gone"])
def test_a_bad_file_is_told_before_any_training(ws, folder, monkeypatch, split, damage):
    def stage(*_arguments, **_options):
        raise AssertionError("a network was trained")

    monkeypatch.setattr(workspace, "pretrain_stage", stage)
    path = folder / f"voc_2007_{split}.mat"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"cut")
    with pytest.raises(DataError, match=r"voc_2007_.*\.mat"):
        ws.detections("spp", (480,), "ftfc7")
    if split == "trainval":
        for make in (ws.head, lambda *spp: ws.detector(*spp, "pool5")):
            with pytest.raises(DataError, match="voc_2007_trainval"):
                make("spp", (480,))


def test_a_run_of_proposals_of_other_images_is_told_before_any_training(ws, monkeypatch, tmp_path):
    def stage(*_arguments, **_options):
        raise AssertionError("a network was trained")

    monkeypatch.setattr(workspace, "pretrain_stage", stage)
    run = ws.proposals("test")
    given = replace(ws, proposals_method=str(run), root=tmp_path / "other")
    assert given.proposals("test") == run
    message = (
        "holds proposals of none of the images of trainval; give --proposals a run of `sppnet propose --split"
    )
    with pytest.raises(DataError, match=message):
        given.detections("spp", (480,), "ftfc7")


def test_the_folder_of_both_files(ws):
    for split in ("trainval", "test"):
        run = ws.proposals(split)
        ids = load_voc(ws.data, split).ids
        assert len((run / "index.csv").read_text().splitlines()) == len(ids) + 1
        assert read_boxes(run / "boxes" / f"{ids[1]}.npy").tolist() == [[1, 2, 29, 39], [0, 0, 49, 50]]


def test_the_file_of_another_split_is_refused(ws, folder):
    ws = replace(ws, proposals_method=str(folder / "voc_2007_test.mat"))
    assert ws.proposals("test").is_dir()
    with pytest.raises(
        DataError, match=r"voc_2007_test\.mat: has no windows of .* and 19 more images of trainval"
    ):
        ws.proposals("trainval")


def test_a_folder_without_the_file_of_a_split(ws, folder):
    (folder / "voc_2007_test.mat").unlink()
    with pytest.raises(DataError, match=r"0 files are called \*_test\.mat"):
        ws.proposals("test")


def test_a_missing_file(ws, folder):
    with pytest.raises(DataError, match=r"gone\.mat: no such file of proposals"):
        replace(ws, proposals_method=str(folder / "gone.mat")).proposals("test")
