"""The parts of the page, on numbers worked out by hand."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from sppnet_cli.report.beside import Cell, cell
from sppnet_cli.report.classes import _thinned, mean
from sppnet_cli.report.made import duration
from sppnet_cli.report.own import calibration
from sppnet_cli.report.pictures import picture
from sppnet_cli.report.plots import INK, SERIES, as_svg, panel
from sppnet_cli.report.results import NAMES, remeasure
from sppnet_cli.report.training import network_name
from sppnet_cli.report.verdicts import _drawn

NAN = math.nan


@pytest.mark.parametrize(
    ("numbers", "key", "decimals", "expected"),
    [
        ((59.24, 0.31, 58.5), "pool5", 1, Cell("59.2", "0.3", "58.5", "+0.7", 59.24)),
        ((34.6, NAN, 34.98), "e3", 2, Cell("34.60", "", "34.98", "−0.38", 34.6)),
        ((NAN, NAN, 58.5), "pool5", 1, Cell("", "", "58.5", "", 58.5)),
        ((0.0529, NAN, 8.96), "conv time (s)", 1, Cell("0.05290", "", "8.960", "−8.907", 0.0529)),
        ((NAN, NAN, NAN), "pool5", 1, Cell("", "", "", "", None)),
    ],
)
def test_a_cell_beside_the_papers(numbers, key, decimals, expected):
    assert cell(*numbers, key, decimals) == expected


@pytest.mark.parametrize(
    ("command", "name", "options", "expected"),
    [
        (
            "sppnet reproduce table6 claims --profile mini -q",
            "table3",
            (),
            "sppnet reproduce table3 --profile mini",
        ),
        (
            "SPPNET_JOBS=1 sppnet reproduce table6 --data 'my VOC' --seeds 0,1",
            "table6",
            ("--seeds", "0,1,2"),
            "SPPNET_JOBS=1 sppnet reproduce table6 --data 'my VOC' --seeds 0,1,2",
        ),
        ("python script.py", "table1", (), "sppnet reproduce table1 --profile mini"),
    ],
)
def test_the_command_for_another_table(command, name, options, expected):
    assert remeasure(command, "mini", name, options) == expected


def test_every_experiment_has_its_place_on_the_page():
    from sppnet_cli.cli.reproduce import NAMES as EXPERIMENTS

    assert sorted((*NAMES, "claims")) == sorted(EXPERIMENTS)


def test_an_interval_is_drawn_where_it_lies():
    row = {
        "measure": "mAP", "low": -1.0, "high": 3.0, "ours_better": 12.0, "ours_worse": 11.0, "paper_better": 50.0,
        "paper_worse": 48.0,
    }  # fmt: skip
    assert _drawn(row, 4.0) == {"low": 37.5, "high": 87.5, "ours": 62.5, "paper": 75.0}
    errors = row | {"measure": "top1_error", "low": NAN, "high": NAN}
    assert _drawn(errors, 4.0) == {"low": None, "high": None, "ours": 37.5, "paper": 25.0}
    assert _drawn(row | {"measure": "seconds"}, 4.0) == {
        "low": 37.5,
        "high": 87.5,
        "ours": None,
        "paper": None,
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42.4, "42 s"), (600, "10 min"), (12600, "3.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_curve_keeps_the_best_precision_of_each_recall():
    recall, precision = _thinned(np.array([0.25, 0.25, 0.5, 0.5]), np.array([1, 0.5, 2 / 3, 0.5]))
    assert recall.tolist() == [0.25, 0.5]
    assert precision.tolist() == [1, 2 / 3]
    long = np.linspace(0, 1, 1000)
    assert len(_thinned(long, long)[0]) == 120
    assert len(_thinned(long[:0], long[:0])[0]) == 0


def test_the_mean_passes_over_classes_without_objects():
    assert mean({"a": 0.5, "b": None, "c": 1.0}) == 0.75
    assert mean({"a": None}) is None


@pytest.mark.parametrize(
    ("levels", "arch", "expected"),
    [
        (None, "zf5", "no SPP, 224 px"),
        ([1, 2, 3, 6], "zf5", "SPP {6,3,2,1}, 224 px"),
        ([1, 2], "resnet18", "resnet18, SPP {2,1}, 224 px"),
    ],
)
def test_names_of_networks(levels, arch, expected):
    assert network_name({"levels": levels, "arch": arch, "recipe": {"sizes": [224]}}) == expected


def test_a_figure_takes_the_pages_colours_and_has_ids_of_its_own():
    def draw(name):
        figure, axes = panel(2, 1)
        axes.plot([0, 1], [0, 1], color=SERIES[0], marker="o")
        axes.text(0, 0, "a <word>", color=INK)
        return as_svg(figure, name, 'a "line" & more')

    first, second = draw("one"), draw("two")
    assert first.startswith("<svg ")
    assert 'role="img" aria-label="a &quot;line&quot; &amp; more">' in first
    assert {"var(--accent)", "var(--ink)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", first))
    assert "#0101" not in first
    assert "http" not in first
    assert "a &lt;word&gt;" in first
    ids = [re.findall(r' id="([^"]+)"', text) for text in (first, second)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', first)) <= set(ids[0])


def test_no_confidences_are_no_number():
    none = pd.DataFrame({"confidence": [], "precision": [], "detections": []}, dtype=float)
    assert calibration(none).data["rows"] == []
    bins = pd.DataFrame({"confidence": [0.5, 0.75], "precision": [0.25, 0.75], "detections": [4, 4]})
    assert calibration(bins).data["gap"] == "0.125"


def test_a_picture_is_shrunk_to_its_place():
    image = np.zeros((300, 100, 3), np.uint8)
    small = picture(image, "text", most=(200, 150))
    assert (small.width, small.height) == (50, 150)
    assert small.source.startswith("data:image/webp;base64,")
    whole = picture(image, "text", most=(200, 400))
    assert (whole.width, whole.height) == (100, 300)
