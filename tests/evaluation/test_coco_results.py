"""COCO results: by hand, back again, and scored by an independent COCO tool."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from sppnet_cli.data.imports.placing import PlacedObject
from sppnet_cli.data.imports.voc_layout import ImportedImage, write_voc_set
from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.coco_results import (
    CocoIds,
    coco_ground_truth,
    coco_ids,
    read_coco_results,
    write_coco_results,
)
from sppnet_cli.evaluation.curves import class_curves

IDS = CocoIds({"a": 7, "b": 9}, {"cat": 3, "dog": 1})
COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]
FRAME = pd.DataFrame(
    [("b", "dog", 0.25, 10.0, 20.0, 14.5, 20.0), ("a", "cat", -1.5, 0.0, 0.0, 59.0, 39.0)], columns=COLUMNS
)


def test_two_detections_by_hand(tmp_path):
    write_coco_results(tmp_path / "detections.json", FRAME, IDS)
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"image_id": 9, "category_id": 1, "bbox": [10.0, 20.0, 5.5, 1.0], "score": 0.25},
        {"image_id": 7, "category_id": 3, "bbox": [0.0, 0.0, 60.0, 40.0], "score": -1.5},
    ]


def test_back_again(tmp_path):
    write_coco_results(tmp_path / "detections.json", FRAME, IDS)
    pd.testing.assert_frame_equal(read_coco_results(tmp_path / "detections.json", IDS), FRAME)
    write_coco_results(tmp_path / "none.json", FRAME.iloc[:0], IDS)
    assert list(read_coco_results(tmp_path / "none.json", IDS).columns) == COLUMNS


def test_numbers_of_a_category_and_of_an_image_that_are_not_there(tmp_path, capsys):
    path = tmp_path / "detections.json"
    entry = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}
    path.write_text(json.dumps([entry, entry | {"category_id": 55}]))
    assert len(read_coco_results(path, IDS)) == 1
    assert "left out category_id 55" in capsys.readouterr().err
    path.write_text(json.dumps([entry | {"category_id": "x" * 9000}]))
    read_coco_results(path, IDS)
    path.write_text(json.dumps([entry | {"image_id": "x" * 9000}]))
    with pytest.raises(DataError, match=r"is of image_id 'x+") as caught:
        read_coco_results(path, IDS)
    assert max(len(capsys.readouterr().err), len(str(caught.value))) < 300 + len(str(path))
    path.write_text(json.dumps([entry, entry | {"image_id": 8}]))
    with pytest.raises(DataError, match=r"entry 2 is of image_id 8, which is not in the list"):
        read_coco_results(path, IDS)


def test_a_box_without_extent_overlaps_nothing(tmp_path):
    path = tmp_path / "detections.json"
    entry = {"image_id": 7, "category_id": 3, "bbox": [1, 2, -3, 4], "score": 1}
    path.write_text(json.dumps([entry]))
    assert read_coco_results(path, IDS)[["x1", "x2"]].to_numpy().tolist() == [[1, 0]]


@pytest.mark.parametrize("bad", ["NaN", "-Infinity", "1e999"])
def test_a_box_that_is_not_finite_overlaps_nothing(tmp_path, bad):
    path = tmp_path / "detections.json"
    path.write_text(f'[{{"image_id": 7, "category_id": 3, "bbox": [1, 2, {bad}, 4], "score": 0.25}}]')
    assert read_coco_results(path, IDS).iloc[0, 2:].tolist() == [0.25, 0, 0, -1, -1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_results_with_a_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "detections.json"
    path.write_text(
        json.dumps([{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]), encoding
    )
    assert len(read_coco_results(path, IDS)) == 1


def test_results_are_read_from_regular_files_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path, problem in (
        (tmp_path / "pipe.json", "is a named pipe"),
        (tmp_path, "is a folder"),
        (tmp_path / "x", "no such"),
    ):
        with pytest.raises(DataError, match=problem):
            read_coco_results(path, IDS)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[",
        "[1]",
        "[[]]",
        "[{}]",
        '[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3], "score": 1}]',
        '[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4, 5], "score": 1}]',
        '[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": NaN}]',
        '[{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": -Infinity}]',
        '[{"image_id": [7], "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]',
        '[{"image_id": 7, "category_id": {}, "bbox": [1, 2, 3, 4], "score": 1}]',
        '[{"image_id": 7, "category_id": 3, "bbox": 4, "score": 1}]',
        "[" * 100_000,
    ],
)
def test_what_is_no_result_is_one_line(text, tmp_path):
    path = tmp_path / "detections.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"detections\.json: ") as caught:
        read_coco_results(path, IDS)
    assert "\n" not in str(caught.value)


@pytest.fixture
def scored(tmp_path):
    """A VOC set of thirty images, and detections of it: near and far ones, each score once.

    An image has one object of a class at most: where it has two, COCO matches to the best that is left, VOC to the
    best, and they differ.
    """
    rng = np.random.default_rng(5)
    images, rows = {}, []
    for number in range(30):
        objects = []
        for name in ("cat", "dog", "traffic light"):
            if rng.random() < 0.3:
                continue
            x1, y1 = rng.integers(0, 60, 2).tolist()
            x2, y2 = (int(low + side) for low, side in zip((x1, y1), rng.integers(15, 60, 2), strict=True))
            objects.append(PlacedObject(name, (x1, y1, x2, y2), False, False))
            for _ in range(rng.integers(0, 4)):
                x1d, y1d, x2d, y2d = np.array([x1, y1, x2, y2]) + rng.normal(0, 5, 4)
                rows.append((f"{number:03d}", name, rng.normal(), x1d, y1d, max(x2d, x1d), max(y2d, y1d)))
        rows.append((f"{number:03d}", "dog", rng.normal(), 1.0, 1.0, 9.0, 9.0))
        source = tmp_path / f"{number:03d}.jpg"
        source.touch()
        images[f"{number:03d}"] = ImportedImage(source, (120, 120), tuple(objects))
    write_voc_set(tmp_path / "mine", images, {"test": sorted(images)}, copy=False)
    return load_voc(tmp_path / "mine", "test"), pd.DataFrame(rows, columns=COLUMNS)


def ap_101(curve):
    """COCO's AP from a curve: the best precision at 101 recalls or beyond."""
    best = [curve.precision[curve.recall >= k / 100].max(initial=0) for k in range(101)]
    return np.mean(best)


def test_an_independent_tool_agrees(scored, tmp_path):
    dataset, frame = scored
    ids = coco_ids(dataset)
    write_coco_results(tmp_path / "detections.json", frame, ids)
    annotations = {image_id: dataset.annotation(image_id) for image_id in dataset.ids}
    names = {image_id: f"{image_id}.jpg" for image_id in dataset.ids}
    truth = coco_ground_truth(ids, names, annotations, dataset.class_names)
    judge = COCO(json.loads(json.dumps(truth)))
    found = judge.loadRes(json.loads((tmp_path / "detections.json").read_text()))
    evaluation = COCOeval_faster(judge, found, "bbox", print_function=lambda *_: None)
    evaluation.params.maxDets = [100, 100, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    curves = class_curves(read_coco_results(tmp_path / "detections.json", ids), dataset)
    theirs = evaluation.eval["precision"][0, :, :, 0, -1].mean(axis=0)
    recalls = evaluation.eval["recall"][0, :, 0, -1]
    for k, number in enumerate(evaluation.params.catIds):
        (name,) = (name for name, own in ids.categories.items() if own == number)
        assert recalls[k] == pytest.approx(curves[name].recall[-1], abs=1e-9)
        assert theirs[k] == pytest.approx(ap_101(curves[name]), abs=1e-9)
        assert 0.1 < theirs[k] < 0.9  # neither nothing nor all is matched


def test_numbers_of_the_export_are_kept(tiny_data, tmp_path):
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    assert coco_ids(dataset).images[dataset.ids[0]] == 1
    assert coco_ids(dataset).categories[dataset.class_names[-1]] == 20


def test_numbers_of_an_imported_export(tmp_path):
    (tmp_path / "mine/VOC2007/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "mine/VOC2007/Annotations").mkdir()
    (tmp_path / "mine/VOC2007/ImageSets/Main/test.txt").write_text("a\nb\n")
    (tmp_path / "mine/VOC2007/ImageSets/Main/cat_test.txt").write_text("a 1\nb 1\n")
    record = {"sources": {}, "image_ids": {"a": 70, "b": 90, "c": None}, "category_ids": {"cat": 5, "x": 6}}
    (tmp_path / "mine/import.json").write_text(json.dumps(record))
    assert coco_ids(load_voc(tmp_path / "mine", "test")) == CocoIds({"a": 70, "b": 90}, {"cat": 5})
    record["image_ids"]["b"] = None
    (tmp_path / "mine/import.json").write_text(json.dumps(record))
    assert coco_ids(load_voc(tmp_path / "mine", "test")) == CocoIds({"a": 1, "b": 2}, {"cat": 1})


def test_difficult_objects_are_crowds(tiny_data):
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    annotations = {image_id: dataset.annotation(image_id) for image_id in dataset.ids}
    truth = coco_ground_truth(
        coco_ids(dataset), {i: i for i in dataset.ids}, annotations, dataset.class_names
    )
    assert sum(entry["iscrowd"] for entry in truth["annotations"]) == sum(
        int(found.difficult.sum()) for found in annotations.values()
    )
    assert [entry["width"] for entry in truth["images"]] == [found.size[1] for found in annotations.values()]
