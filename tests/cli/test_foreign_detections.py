"""Results of any detector, scored on a folder that has Annotations and ImageSets alone."""

import json

import pandas as pd
import pytest

# 1-based, as in the files of the devkit.  TRUTH has 100 inclusive pixels, HALF 50 of them: IoU exactly .5.
TRUTH, HALF, LESS, FAR = "1 1 10 10", "1 1 10 5", "1 1 10 4", "51 51 60 60"
OBJECTS = {  # of each image: (class, box, difficult)
    "000003": [("cat", TRUTH, 0), ("dog", FAR, 0)],
    "000001": [("cat", TRUTH, 0), ("cat", FAR, 0)],
    "000007": [("cat", FAR, 1), ("owl", TRUTH, 1)],
}
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def voc(tmp_path):
    """A VOC2007 folder without JPEGImages; class `owl` has no object that is not difficult."""
    root = tmp_path / "VOC2007"
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (root / "Annotations").mkdir()
    (lists / "test.txt").write_text("\n".join(OBJECTS) + "\n")
    for name in CLASSES:
        (lists / f"{name}_test.txt").write_text("".join(f"{image_id} -1\n" for image_id in OBJECTS))
    for image_id, objects in OBJECTS.items():
        items = []
        for name, box, difficult in objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            items.append(
                f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
            )
        size = "<size><width>100</width><height>80</height></size>"
        (root / "Annotations" / f"{image_id}.xml").write_text(
            f"<annotation>{size}{''.join(items)}</annotation>"
        )
    return root


def write(folder, **lines):
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLASSES:
        if name in lines:
            text = "".join(f"{line}\n" for line in lines[name])
            (folder / f"comp4_det_test_{name}.txt").write_text(text)
    return folder


def cat(*lines):
    return {"cat": lines, "dog": (), "owl": ()}


def scores(sppnet, *given):
    code, out, err = sppnet("evaluate", *given, "--json")
    assert code == 0, err
    return json.loads(out), err


@pytest.mark.parametrize(
    ("lines", "ap"),
    [
        # Three cats count.  At recall 1/3 four levels (0 to .3) are reached, at 2/3 seven (to .6).
        ((), 0),
        ((f"000003 .9 {TRUTH}",), 4 / 11),
        ((f"000003 .9 {TRUTH}", f"000001 .8 {TRUTH}", f"000001 .7 {FAR}"), 1),
        ((f"000003 .9 {HALF}",), 4 / 11),
        ((f"000003 .9 {LESS}",), 0),
        # The second of a box is wrong: right, wrong, right.
        ((f"000003 .9 {TRUTH}", f"000003 .8 {HALF}", f"000001 .7 {FAR}"), (4 + 3 * 2 / 3) / 11),
        # That of the difficult one counts for nothing.
        ((f"000007 .9 {FAR}", f"000007 .8 {FAR}", f"000003 .7 {TRUTH}"), 4 / 11),
        # A cat where a dog is.
        ((f"000003 .9 {FAR}", f"000003 .8 {TRUTH}"), 4 / 11 / 2),
        # Equal scores keep the order of the lines, whatever that of the images.
        ((f"000001 .5 {TRUTH}", f"000003 .5 {FAR}"), 4 / 11),
        ((f"000007 .5 {TRUTH}", f"000003 .5 {TRUTH}"), 4 / 11 / 2),
        ((f"000003 .5 {FAR}", f"000001 .5 {TRUTH}"), 4 / 11 / 2),
        # By score, not by line.
        ((f"000003 1e-3 {FAR}", f"000001 -2 {FAR}", f"000003 5 {TRUTH}"), (4 + 3 * 2 / 3) / 11),
    ],
)
def test_ap_worked_by_hand(sppnet, tmp_path, voc, lines, ap):
    found, err = scores(sppnet, "--detections", write(tmp_path / "in", **cat(*lines)), "--data", voc)
    assert found["AP"] == {"cat": pytest.approx(ap, abs=1e-6), "dog": 0, "owl": None}
    assert found["mAP"] == pytest.approx(ap / 2, abs=1e-6)
    assert found["n"] == 3
    warnings = [line for line in err.splitlines() if line.startswith("warning")]
    assert all("in the others counts as missed" in line for line in warnings)


def test_a_missing_file_leaves_the_class_and_the_mean_open(sppnet, tmp_path, voc):
    folder = write(tmp_path / "in", cat=[f"000003 .9 {TRUTH}"], owl=[])
    found, err = scores(sppnet, "--detections", folder, "--data", voc)
    assert found["AP"] == {"cat": pytest.approx(4 / 11), "dog": None, "owl": None}
    assert found["mAP"] is None
    assert "warning: " in err
    assert "no result file of dog: no AP of these and no mAP" in err
    # Even of a class that would not count.
    folder = write(tmp_path / "other", cat=[f"000003 .9 {TRUTH}"], dog=[])
    assert scores(sppnet, "--detections", folder, "--data", voc)[0]["mAP"] is None


def test_the_devkit_itself_may_be_named(sppnet, tmp_path, voc):
    write(tmp_path / "results" / "VOC2007" / "Main", **cat(f"000003 .9 {TRUTH}"))
    found, _ = scores(sppnet, "--detections", tmp_path, "--data", tmp_path)
    assert found["AP"]["cat"] == pytest.approx(4 / 11)


def test_a_file_of_rows_takes_the_same_annotations(sppnet, tmp_path, voc):
    lines = ["image,class,score,x1,y1,x2,y2", "000003,cat,0.9,0,0,9,4", "000003,dog,0.9,50,50,59,59"]
    (tmp_path / "detections.csv").write_text("\n".join(lines))
    found, _ = scores(sppnet, "--detections", "detections.csv", "--data", voc)
    assert found["AP"] == {"cat": pytest.approx(4 / 11), "dog": 1.0, "owl": None}


def test_a_report(sppnet, tmp_path, voc):
    folder = write(tmp_path / "in", **cat(f"000003 .9 {TRUTH}"))
    given = ("evaluate", "--detections", folder, "--data", voc, "--report", "new/report")
    code, out, err = sppnet(*given, "--dry-run")
    assert (code, out, "writes a report to new/report" in err) == (0, "", True)
    assert not (tmp_path / "new").exists()
    code, out, err = sppnet(*given)
    assert code == 0
    assert "written to new/report: ap.csv, errors.csv, precision_recall.csv, precision_recall.png" in err
    names = {path.name for path in (tmp_path / "new" / "report").iterdir()}
    assert names == {"ap.csv", "errors.csv", "precision_recall.csv", "precision_recall.png"}
    table = pd.read_csv(tmp_path / "new" / "report" / "ap.csv", index_col="class")
    assert table.loc["cat"].tolist() == pytest.approx([4 / 11, 3, 1])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["000003 .9 1 1 10"], "comp4_det_test_cat.txt, line 1: '000003 .9 1 1 10' is not <image>"),
        ([f"000003 .9 {TRUTH}", f"000003 nan {TRUTH}"], "comp4_det_test_cat.txt, line 2: "),
        ([f"000002 .9 {TRUTH}"], "detections in 000002 (cat), which is not in test of "),
    ],
)
def test_a_wrong_file_is_one_line(sppnet, tmp_path, voc, lines, message):
    write(tmp_path / "in", **cat(*lines))
    code, out, err = sppnet("evaluate", "--detections", "in", "--data", voc, "--report", "report")
    assert (code, out) == (3, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_a_folder_of_nothing_and_a_report_of_nothing(sppnet, tmp_path, voc):
    (tmp_path / "in").mkdir()
    code, _, err = sppnet("evaluate", "--detections", "in", "--data", voc)
    assert (code, "in: has no detections of test (comp4_det_test_<class>.txt)" in err) == (3, True)
    code, _, err = sppnet("evaluate", "--network", "net", "--report", "report")
    assert (code, "give --detections with it" in err) == (2, True)


def test_coco_results_of_any_detector(sppnet, voc, tmp_path):
    """Images and classes by their places: 000001 is the second, cat the first."""
    entry = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}
    second = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 5], "score": 0.8}
    (tmp_path / "results.json").write_text(json.dumps([entry, second]))
    found, _ = scores(sppnet, "--detections", "results.json", "--data", voc)
    assert found["AP"]["cat"] == pytest.approx(7 / 11)  # 2 of 3 objects, none wrong: recalls 0 to .6
    assert found["AP"]["dog"] == 0
    assert found["AP"]["owl"] is None


def test_the_report_of_confidences(sppnet, voc, tmp_path):
    """Two right detections of .9 and .8 and a wrong one of .4: three bins, gaps of .1, .2 and .4."""
    entries = [
        {"image_id": image, "category_id": 1, "bbox": [x, 0, 10, 10], "score": -1 + sure, "confidence": sure}
        for image, x, sure in ((1, 0, 0.9), (2, 0, 0.8), (2, 20, 0.4))
    ]
    (tmp_path / "results.json").write_text(json.dumps(entries))
    given = ("--detections", "results.json", "--data", voc, "--report", "report")
    _, err = scores(sppnet, *given)
    assert (
        "confidences of .1 or more differ from the precision by 0.233, the mean of ten bins of 3 detections"
        in err
    )
    assert "chance alone makes 0.316" in err  # .8 of the mean of .3, .4 and .49
    table = pd.read_csv(tmp_path / "report/reliability.csv")
    assert table["precision"].tolist() == [0, 1, 1]
    assert table["confidence"].tolist() == pytest.approx([0.4, 0.8, 0.9])
    (tmp_path / "results.json").write_text(json.dumps([entry | {"confidence": 2} for entry in entries]))
    scores(sppnet, *given)
    assert not (tmp_path / "report/reliability.png").exists()  # of the earlier report
