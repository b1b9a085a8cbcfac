"""What lies behind an mAP: its files."""

import pandas as pd
import pytest
from PIL import Image

from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import UsageError
from sppnet_cli.evaluation.comp4 import write_comp4
from sppnet_cli.stages.detect import DetectConfig, detect
from sppnet_cli.stages.detection_rows import COLUMNS
from sppnet_cli.stages.report import write_report
from sppnet_cli.stages.score_detections import evaluate_detections, score_frame


@pytest.fixture(scope="module")
def dataset(tiny_data):
    return load_voc(tiny_data / "VOCdevkit", "test")


@pytest.fixture(scope="module")
def frame(dataset):
    """Every second object found, and each of those a second time in a box beside it."""
    rows = []
    for image_id in dataset.ids:
        truth = dataset.annotation(image_id)
        for label, (x1, y1, x2, y2) in zip(truth.labels[::2], truth.boxes[::2].tolist(), strict=True):
            name, score = dataset.class_names[label], 1 / (3 + len(rows))
            rows += [(image_id, name, score, x1, y1, x2, y2), (image_id, name, score, x1 + 2, y1, x2 + 2, y2)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_tables_agree_with_the_score(dataset, frame, tmp_path):
    score = score_frame(frame, dataset)
    write_report(frame, dataset, tmp_path / "new" / "report")
    table = pd.read_csv(tmp_path / "new" / "report" / "ap.csv")
    assert table.columns.tolist() == ["class", "ap", "positives", "detections"]
    assert table["class"].tolist() == list(dataset.class_names)
    assert table["ap"].tolist() == pytest.approx(list(score.ap.values()), abs=1e-12, nan_ok=True)
    assert table["detections"].sum() == len(frame)
    annotations = [dataset.annotation(image_id) for image_id in dataset.ids]
    assert table["positives"].sum() == sum((~item.difficult).sum() for item in annotations)

    curves = pd.read_csv(tmp_path / "new" / "report" / "precision_recall.csv")
    assert curves.columns.tolist() == ["class", "score", "recall", "precision"]
    assert len(curves) == len(frame)
    for name, rows in curves.groupby("class"):
        assert rows["score"].is_monotonic_decreasing
        best = [rows.loc[rows["recall"] >= k / 10, "precision"].max() for k in range(11)]
        assert pd.Series(best).fillna(0).sum() / 11 == pytest.approx(score.ap[name], abs=1e-9)
    with Image.open(tmp_path / "new" / "report" / "precision_recall.png") as picture:
        assert picture.width > 1000


def test_a_missing_class_has_no_ap_and_no_curve(dataset, frame, tmp_path):
    gone = dataset.class_names[1]
    rest = frame[frame["class"] != gone]
    write_report(rest, dataset, tmp_path, frozenset({gone}))
    table = pd.read_csv(tmp_path / "ap.csv", index_col="class")
    assert table["ap"].isna()[gone]
    assert table["positives"][gone] > 0
    assert table["detections"][gone] == 0
    assert gone not in set(pd.read_csv(tmp_path / "precision_recall.csv")["class"])


def test_an_earlier_report_is_replaced_and_nothing_else_is_joined(dataset, frame, tmp_path):
    write_report(frame, dataset, tmp_path)
    (tmp_path / ".hidden").write_text("")
    write_report(frame[:0], dataset, tmp_path)
    assert (tmp_path / "precision_recall.csv").read_text() == "class,score,recall,precision\n"
    (tmp_path / "street.jpg").write_text("")
    with pytest.raises(UsageError, match=r"holds street\.jpg, which is no report's"):
        write_report(frame, dataset, tmp_path)


def test_nothing_detected(dataset, frame, tmp_path):
    write_report(frame[:0], dataset, tmp_path)
    assert pd.read_csv(tmp_path / "ap.csv")["ap"].fillna(0).eq(0).all()
    assert (tmp_path / "precision_recall.csv").read_text() == "class,score,recall,precision\n"


def test_result_files_score_as_the_rows_they_were_made_from(tiny_data, dataset, frame, tmp_path):
    data = tiny_data / "VOCdevkit"
    frame.to_csv(tmp_path / "detections.csv", index=False)
    expected = evaluate_detections(tmp_path, data, "test").as_dict()
    assert 0.1 < expected["mAP"] < 0.9
    write_comp4(tmp_path / "comp4", frame, "test", dataset.class_names)
    assert evaluate_detections(tmp_path / "comp4", data, "test").as_dict() == expected
    (tmp_path / "detections.csv").unlink()
    assert evaluate_detections(tmp_path, data, "test").as_dict() == expected


def test_a_run_of_detect_has_both_forms(make, tiny_data, random_detector, random_proposals):
    data = tiny_data / "VOCdevkit"
    inputs = {"data": data, "proposals": random_proposals, "detector": random_detector}
    run = make(detect, DetectConfig("test", 1000, 3), inputs)
    names = {path.name for path in (run / "comp4").iterdir()}
    assert names == {f"comp4_det_test_{name}.txt" for name in load_voc(data, "test").class_names}
    expected = evaluate_detections(run, data, "test", 3).as_dict()
    assert expected["mAP"] > 0
    assert evaluate_detections(run / "comp4", data, "test", 3).as_dict() == expected
