"""Curves by class: their numbers against average_precisions, their picture by what is drawn."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.voc import Annotation, VocDetection, load_voc
from sppnet_cli.evaluation.curves import (
    class_curves,
    curve_table,
    draw_curves,
    ranked_detections,
)
from sppnet_cli.evaluation.voc_ap import PrecisionRecall, average_precision_11, average_precisions

COLUMNS = ["image", "class", "score", "x1", "y1", "x2", "y2"]
A, B = (0.0, 0.0, 9.0, 9.0), (50.0, 50.0, 59.0, 59.0)


@dataclass(frozen=True)
class InMemory(VocDetection):
    """A data set of `objects`: for each image id, (class, box) pairs."""

    objects: dict = field(default_factory=dict)

    def annotation(self, image_id):
        found = self.objects[image_id]
        return Annotation(
            np.array([box for _, box in found], np.float32).reshape(-1, 4),
            np.array([self.class_names.index(name) for name, _ in found], np.int64),
            np.zeros(len(found), bool),
            (100, 100),
        )


def dataset_of(objects):
    return InMemory(Path("VOC2007"), "test", tuple(objects), ("cat", "dog"), objects=objects)


def frame_of(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def random_detections(dataset, seed):
    """Jittered ground truth and noise, scores all different."""
    rng = np.random.default_rng(seed)
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        for label, box in zip(truth.labels, truth.boxes, strict=True):
            for _ in range(3):
                x1, y1, x2, y2 = box + rng.integers(-8, 9, 4)
                name = dataset.class_names[label if rng.random() < 0.7 else rng.integers(3)]
                rows.append((image_id, name, 0.0, x1, y1, max(x1, x2), max(y1, y2)))
    frame = frame_of(*rows).sample(frac=1, random_state=seed)
    return frame.assign(score=rng.permutation(len(frame)) / 100)


@pytest.mark.parametrize("seed", range(3))
def test_ap_of_a_curve_is_that_of_average_precisions(tiny_data, seed):
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    frame = random_detections(dataset, seed)
    by_class = {name: [np.empty((0, 5))] * len(dataset) for name in dataset.class_names}
    for (name, image_id), rows in frame.groupby(["class", "image"]):
        by_class[name][dataset.ids.index(image_id)] = rows[["x1", "y1", "x2", "y2", "score"]].to_numpy(float)
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    expected = average_precisions(by_class, annotations, dataset.class_names)
    assert 0.1 < np.nanmean(list(expected.values())) < 0.9
    curves = class_curves(frame, dataset)
    assert {name: average_precision_11(curve) for name, curve in curves.items()} == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )
    for name, curve in curves.items():
        assert curve.scores.tolist() == sorted(frame.loc[frame["class"] == name, "score"], reverse=True)


def test_a_curve_worked_by_hand():
    dataset = dataset_of({"1": [("cat", A), ("cat", B)], "2": [("cat", A)]})
    frame = frame_of(
        ("2", "cat", 0.1, *A),
        ("1", "cat", 0.9, *A),
        ("1", "cat", 0.8, *A),
        ("2", "dog", 7.0, *A),
    )
    table = curve_table(class_curves(frame, dataset))
    assert table.columns.tolist() == ["class", "score", "recall", "precision"]
    expected = [("cat", 0.9, 1 / 3, 1), ("cat", 0.8, 1 / 3, 1 / 2), ("cat", 0.1, 2 / 3, 2 / 3)]
    assert list(table[:3].itertuples(index=False, name=None)) == expected
    assert table[3:].to_numpy().tolist() == [["dog", 7.0, pytest.approx(math.nan, nan_ok=True), 0.0]]


def test_equal_scores_keep_the_order_of_the_rows_across_images():
    dataset = dataset_of({"1": [], "2": [("cat", A)]})
    right, wrong = ("2", "cat", 0.5, *A), ("1", "cat", 0.5, *B)
    ap = [
        average_precision_11(class_curves(frame_of(*rows), dataset)["cat"])
        for rows in ((right, wrong), (wrong, right))
    ]
    assert ap == pytest.approx([1.0, 0.5], abs=1e-12)


def test_detections_are_ranked_within_their_class():
    dataset = dataset_of({"1": [], "2": [], "3": []})
    frame = frame_of(("3", "cat", 0.5, *A), ("1", "cat", 0.7, *B), ("3", "cat", 0.9, *B))
    found = ranked_detections(frame, dataset)
    assert [rows.tolist() for rows in found["cat"]] == [[[*B, -1]], [], [[*B, 0], [*A, -2]]]
    assert [rows.shape for rows in found["dog"]] == [(0, 5)] * 3


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (7, 5), (20, 5), (31, 6)])
def test_a_panel_for_every_class(tmp_path, monkeypatch, n, columns):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", _keeping(Figure.savefig, drawn))
    recall = np.arange(7) / 10
    curves = {f"class_{k}$" * (1 + k % 2): PrecisionRecall(1 - recall, recall, -recall, 9) for k in range(n)}
    names = list(curves)
    if n > 2:  # what cannot be drawn leaves its panel empty
        curves[names[1]] = PrecisionRecall(np.zeros(3), np.full(3, np.nan), np.zeros(3), 0)
        curves[names[2]] = PrecisionRecall(np.empty(0), np.empty(0), np.empty(0), 4)
    draw_curves(curves, "mAP 12.3% of a $ and a $", tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400
    (figure,) = drawn
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title().rsplit("  ")[0] for axes in panels] == names
    assert len({axes.get_position().x0 for axes in panels}) == columns
    assert (
        panels[0].get_title().endswith("  43.6%")
    )  # (1 + .9 + .8 + .6 + .6 + .5 + .4) / 11: a recall of .3 does not reach the fourth
    if n > 2:
        assert panels[1].get_title().endswith("no positives")
        assert panels[2].get_title().endswith("  0.0%")


def _keeping(function, kept):
    def call(figure, *arguments, **options):
        kept.append(figure)
        return function(figure, *arguments, **options)

    return call
