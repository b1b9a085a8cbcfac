"""The page as a whole: sound, complete, and the same numbers as the tables."""

import json
import re
import shutil

import pytest
from markup import Page, require_sound

from sppnet_cli.data.voc import load_voc
from sppnet_cli.errors import DataError
from sppnet_cli.evaluation.reliability import reliability_of
from sppnet_cli.report.page import write_results_page, write_run_page
from sppnet_cli.stages.outcomes_sheet import draw_outcomes
from sppnet_cli.stages.report import OUTCOMES_PICTURE, write_report
from sppnet_cli.stages.score_detections import read_detections
from sppnet_cli.stages.visualize import ResponsePictures
from sppnet_cli.tables.paper import claims, published

SECTIONS = [
    "claims", "tables", "times", "classes", "outcomes", "figure6", "training", "figure2", "run", "missing",
]  # fmt: skip


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    return write_results_page(results, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def page(path):
    return require_sound(path)


def test_every_part_is_there_in_order_and_named_in_the_contents(page):
    assert [values["id"] for tag, values in page.elements if tag == "section"] == SECTIONS
    assert [link[1:] for link in page.links if link[1:] in SECTIONS][: len(SECTIONS)] == SECTIONS


def test_every_claim_has_its_verdict_in_its_colour(page):
    lines = {
        values["id"]: values["class"] for tag, values in page.elements if tag == "li" and "class" in values
    }
    assert list(lines) == [f"claim-{name}" for name in claims().index]
    assert lines["claim-T1.1"] == "green"  # 30 against 40
    assert lines["claim-T6.9"] == "green"  # 60.2 against 56.5
    assert lines["claim-T6.12"] == "green"
    assert lines["claim-T1.2"] == "green"  # 34.98 against 40
    assert lines["claim-T3.1"] == "grey"
    assert lines["claim-T1.3"] == "green"
    counts = re.search(r"(\d+) hold (\d+) fail (\d+) not measured", page.text)
    colours = list(lines.values())
    assert list(map(int, counts.groups())) == [colours.count(name) for name in ("green", "red", "grey")]
    assert sum(map(int, counts.groups())) == 35


def test_numbers_of_a_claim_stand_beside_the_papers_and_its_interval(page):
    assert "T1.1 multi-level pooling beats the plain net with fewer fc6 inputs" in page.text
    assert "ours 30 / 40 paper 35.06 / 35.99" in page.text
    assert re.search(r"\+\d+\.\d\d to \+\d+\.\d\d points", page.text)


def test_cells_stand_beside_the_papers_in_its_order(page):
    assert "60.2 ± 0.2 paper 59.2 +1.0" in page.text
    assert "56.5 ± 0.2 paper 58.5 −2.0" in page.text
    assert "30.00 paper 35.06 −5.06" in page.text
    rows = re.findall(r"(?:^| )(e[1-5]) (?:our impl|SPP-net)", page.text)
    assert [row for row in rows if row in published(1).index] == ["e1", "e2", "e3", "e4", "e5"]


def test_what_was_not_measured_is_said_with_its_command(page):
    assert "sppnet reproduce table3 --profile tiny --workers 2" in page.text
    assert "sppnet reproduce table1 corners --profile tiny --workers 2 --seeds 0,1,2" in page.text
    assert "sppnet reproduce table6" not in page.text.partition("What was not measured Each line")[2]


def test_what_was_run_is_said(page):
    said = page.text.partition("What was run What")[2]
    for words in ("A processor, A system", "0123456, abc", "torch 9.8.7", "/data/VOCdevkit", "2026-05-04"):
        assert words in said
    assert "pre-training networks 1 1.5 s" in said


def test_words_of_a_table_are_no_markup(path):
    assert "A note with &lt;b&gt;signs&lt;/b&gt; &amp; more." in path.read_text()


def test_detectors_show_what_they_found_and_missed(page):
    texts = [values["alt"] for tag, values in page.elements if tag == "img"]
    for kind in ("best", "worst", "missed", "false"):
        assert any(text.startswith(f"{kind} of SPP-net, 2 scales, pool5: ") for text in texts)
    assert sum(text.startswith("Detections by SPP-net, 2 scales, pool5 in image") for text in texts) == 6
    assert sum(text.startswith("Strongest responses of conv5") for text in texts) == 2


def test_a_page_is_written_where_the_runs_are_gone(results, tmp_path):
    shutil.copytree(results, tmp_path / "a" / "results" / "tiny")
    path = write_results_page(tmp_path / "a" / "results" / "tiny")
    assert path == tmp_path / "a" / "results" / "tiny" / "report.html"
    page = require_sound(path)
    assert "outcomes" not in page.ids
    assert "Convergence of single- and multi-size training." in page.text
    assert "SPP-net, 1 scale" in page.text  # APs are in the record


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"profile": "tiny"}'])
def test_a_broken_table_is_named(results, tmp_path, text):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    (tmp_path / "table3.json").write_text(text)
    with pytest.raises(DataError, match=r"table3\.json"):
        write_results_page(tmp_path)


def test_a_table_without_its_cells_is_named(results, tmp_path):
    record = json.loads((results / "corners.json").read_text())
    (tmp_path / "corners.json").write_text(json.dumps(record | {"values": [{"id": "e1", "x": "y"}, 3]}))
    with pytest.raises(DataError, match=r"corners\.json"):
        write_results_page(tmp_path)


@pytest.mark.parametrize(
    ("stage", "sections"),
    [
        ("detect", ["classes", "outcomes", "figure6", "calibration", "errors", "training", "figure2", "run"]),
        ("train-svm", ["training", "figure2", "run"]),
        ("pretrain", ["training", "figure2", "run"]),
    ],
)
def test_a_run_has_a_page_of_its_own(runs, tmp_path, monkeypatch, stage, sections):
    few = ResponsePictures(None, count=1, strongest=1, excited=1)
    monkeypatch.setattr("sppnet_cli.report.figures._RESPONSES", few)
    monkeypatch.setattr("sppnet_cli.report.figures._SEARCHED", 2)
    page = require_sound(write_run_page(runs[stage], tmp_path / "page.html"))
    assert [values["id"] for tag, values in page.elements if tag == "section"] == sections
    assert "epoch 3: 25.0% in training, 40.0% held out" in page.text
    assert "pre-training networks" in page.text


def test_an_own_detector_shows_its_contact_sheet_and_calibration(runs, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("sppnet_cli.report.page.figure_2", lambda *_: None)
    folder = shutil.copytree(runs["train-svm"], tmp_path / "mine")
    dataset = load_voc(tiny_data / "VOCdevkit", "test")
    frame, _ = read_detections(runs["detect"], dataset)
    write_report(frame, dataset, folder / "report")
    draw_outcomes(runs["detect"], dataset, folder / "report" / OUTCOMES_PICTURE)
    page = require_sound(write_run_page(folder))
    sections = ["sheet", "classes", "calibration", "errors", "training", "run"]
    assert [values["id"] for tag, values in page.elements if tag == "section"] == sections
    assert f"A detector of {len(dataset.class_names)} classes: arrow, " in page.text
    found = reliability_of(frame, dataset)
    assert f"Mean gap {found.error:.3f}, over 10 groups" in page.text


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a complete run"):
        write_run_page(tmp_path)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("<p><b>x</b><br></p>", 0),
        ("<p>x", 1),
        ("<p><b>x</p></b>", 2),
        ('<p id="a" id="b"></p>', 1),
        ("<svg><path/></svg></p>", 1),
    ],
)
def test_the_reader_of_pages_finds_faults(text, faults):
    assert len(Page(text).faults) >= faults
    assert bool(Page(text).faults) == bool(faults)
