"""Scoring of a detections.csv against a VOC split."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.comp4 import write_comp4
from sppnet_cli.stages.detection_rows import COLUMNS
from sppnet_cli.stages.score_detections import evaluate_detections, read_detections


def perfect(dataset):
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        rows += [
            (image_id, dataset.class_names[label], 1.0, *box)
            for label, box in zip(truth.labels, truth.boxes.tolist(), strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_ground_truth_scores_one(tiny_data, tmp_path):
    data = tiny_data / "VOCdevkit"
    perfect(load_voc(data, "test")).to_csv(tmp_path / "detections.csv", index=False)
    score = evaluate_detections(tmp_path, data, "test")
    assert score.mean_ap == pytest.approx(1.0)
    assert score.as_dict()["n"] == 20


def test_the_outcome_has_the_same_value(tiny_data, tmp_path):
    data = tiny_data / "VOCdevkit"
    frame = perfect(load_voc(data, "test"))
    rng = np.random.default_rng(0)
    frame["score"] = rng.random(len(frame))
    frame.loc[rng.random(len(frame)) < 0.5, "class"] = "disk"
    frame.to_csv(tmp_path / "detections.csv", index=False)
    score = evaluate_detections(tmp_path, data, "test")
    assert 0 < score.mean_ap < 1
    assert score.outcome.value() == pytest.approx(score.mean_ap)
    aps = score.outcome.resampled_aps(np.ones((1, 20), np.int64))[:, 0]
    np.testing.assert_allclose(aps, list(score.ap.values()))


def test_no_detection_scores_nothing(tiny_data, tmp_path):
    data = tiny_data / "VOCdevkit"
    pd.DataFrame(columns=list(COLUMNS)).to_csv(tmp_path / "none.csv", index=False)
    assert evaluate_detections(tmp_path / "none.csv", data, "test").mean_ap == 0.0


def test_numeric_image_names_keep_their_zeros(tiny_data, tmp_path):
    data = tiny_data / "VOCdevkit"
    frame = perfect(load_voc(data, "test"))
    assert frame["image"].str.startswith("0").any()
    frame.to_csv(tmp_path / "detections.csv", index=False)
    assert evaluate_detections(tmp_path, data, "test").mean_ap > 0.99


def _sure(frame, confidence):
    frame.insert(3, "confidence", confidence)
    return frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f.rename(columns={"x1": "left"}),
            r"its columns are 'image,class,score,left,.*, not image,class,score,x1",
        ),
        (lambda f: f.assign(image="stranger"), "detections in stranger"),
        (lambda f: f.assign(**{"class": "unicorn"}), "class 'unicorn'"),
        (lambda f: f.assign(score=float("nan")), r"detections\.csv: line 2: score is '', not a number"),
        (lambda f: f.assign(x1=f["x2"] + 1), "holds an inverted box"),
        (lambda f: _sure(f, 1.5), "holds a confidence that is not between 0 and 1"),
        (lambda f: _sure(f, -0.1), "holds a confidence that is not between 0 and 1"),
        (lambda f: _sure(f, float("nan")), r"line 2: confidence is '', not a number"),
        (lambda f: f.assign(image="../000001"), r"'\.\./000001' is no id of an image"),
        (lambda f: f.assign(x1="left"), r"detections\.csv: line 2: x1 is 'left', not a number"),
    ],
)
def test_detections_that_do_not_fit_are_refused(tiny_data, tmp_path, change, message):
    data = tiny_data / "VOCdevkit"
    change(perfect(load_voc(data, "test"))).to_csv(tmp_path / "detections.csv", index=False)
    with pytest.raises(DataError, match=message):
        evaluate_detections(tmp_path, data, "test")


def test_a_missing_file_is_named(tiny_data, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such CSV file; .*`sppnet detect`"):
        evaluate_detections(tmp_path / "nowhere.csv", tiny_data / "VOCdevkit", "test")


@pytest.mark.parametrize("name", ["null", "NA", "nan", "None", ""])
def test_a_class_may_be_called_what_pandas_takes_for_nothing(tiny_data, tmp_path, name):
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    perfect(dataset).assign(**{"class": name}).to_csv(tmp_path / "detections.csv", index=False)
    with pytest.raises(DataError, match=f"class {name!r} is not one of"):
        read_detections(tmp_path, dataset)
    named = replace(dataset, class_names=(name,))
    assert set(read_detections(tmp_path, named)[0]["class"]) == {name}


def test_detections_in_fewer_images_than_the_list_are_warned_of(tiny_data, tmp_path, capsys):
    data = tiny_data / "VOCdevkit"
    dataset = load_voc(data, "test")
    frame = perfect(dataset)
    path = tmp_path / "detections.csv"

    def warning(ids, limit=None):
        frame[frame["image"].isin(ids)].to_csv(path, index=False)
        score = evaluate_detections(path, data, "test", limit)
        return score.mean_ap, capsys.readouterr().err

    assert warning(dataset.ids) == (pytest.approx(1.0), "")
    ap, said = warning(dataset.ids[:7])
    assert ap < 1
    assert "in 7 of the 20 images of test" in said
    assert "--limit 7 scores the first 7 alone" in said
    assert warning(dataset.ids[:7], 7) == (pytest.approx(1.0), "")  # the remedy works
    said = warning([*dataset.ids[:3], dataset.ids[8]])[1]
    assert "in 4 of the 20 images" in said
    assert "--limit 9 scores" in said
    said = warning(dataset.ids[1:])[1]
    assert "in 19 of the 20 images" in said
    assert "--limit" not in said
    assert "give --split NAME" in said
    assert warning([])[1] == ""


def test_result_files_of_a_part_of_the_list_are_warned_of_too(tiny_data, tmp_path, capsys):
    data = tiny_data / "VOCdevkit"
    dataset = load_voc(data, "test")
    frame = perfect(dataset)
    write_comp4(tmp_path / "comp4", frame[frame["image"].isin(dataset.ids[:6])], "test", dataset.class_names)
    evaluate_detections(tmp_path / "comp4", data, "test")
    assert "comp4: holds detections in 6 of the 20 images of test" in capsys.readouterr().err
