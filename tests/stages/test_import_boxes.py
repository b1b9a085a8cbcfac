"""The authors' windows as a run of proposals."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from sppnet_cli.data.proposals import read_boxes
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
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
        PROFILES["tiny"],
        root=tmp_path / "runs",
        data=tiny_data / "VOCdevkit",
        proposals_method=str(folder),
        jobs=1,
    )


def made(ws, stage):
    ws.make(stage)
    return stage.folder


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_a_file_that_is_gone_is_named_before_anything_is_described(ws, folder, split):
    (folder / f"voc_2007_{split}.mat").unlink()
    with pytest.raises(DataError, match=rf"0 files are called \*_{split}\.mat"):
        ws.detections("spp", (480,), "ftfc7")
    if split == "trainval":
        for describe in (ws.head, lambda *spp: ws.detector(*spp, "pool5")):
            with pytest.raises(DataError, match=r"0 files are called \*_trainval\.mat"):
                describe("spp", (480,))


def test_a_run_of_proposals_of_other_images_is_refused_before_any_training(ws, tmp_path):
    run = made(ws, ws.proposals("test"))
    given = replace(ws, proposals_method=str(run), root=tmp_path / "other")
    assert given.proposals("test") == run
    message = (
        "holds proposals of none of the images of trainval; give --proposals a run of `sppnet propose --split"
    )
    with pytest.raises(DataError, match=message):
        given.detections("spp", (480,), "ftfc7")


def test_the_folder_of_both_files(ws):
    for split in ("trainval", "test"):
        run = made(ws, ws.proposals(split))
        ids = load_voc(ws.data, split).ids
        assert len((run / "index.csv").read_text().splitlines()) == len(ids) + 1
        assert read_boxes(run / "boxes" / f"{ids[1]}.npy").tolist() == [[1, 2, 29, 39], [0, 0, 49, 50]]


def test_the_file_of_another_split_is_refused(ws, folder):
    ws = replace(ws, proposals_method=str(folder / "voc_2007_test.mat"))
    assert made(ws, ws.proposals("test")).is_dir()
    with pytest.raises(
        DataError, match=r"voc_2007_test\.mat: has no windows of .* and 19 more images of trainval"
    ):
        ws.make(ws.proposals("trainval"))


def test_a_missing_file(ws, folder):
    gone = replace(ws, proposals_method=str(folder / "gone.mat"))
    with pytest.raises(DataError, match=r"gone\.mat: no such file"):
        gone.proposals("test")  # its folder's name needs the file's hash


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_a_broken_file_is_named_before_any_training(ws, folder, split):
    (folder / f"voc_2007_{split}.mat").write_bytes(b"cut")
    with pytest.raises(DataError, match=rf"voc_2007_{split}\.mat"):
        ws.make(ws.detections("spp", (480,), "ftfc7"))
    assert not [path.name for path in ws.runs.iterdir() if path.name.startswith("network")]
