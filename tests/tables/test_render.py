import math

import pytest

from sppnet_cli.tables.render import TextTable, format_mean, format_number, fraction


def test_markdown_and_latex_of_the_same_cells():
    table = TextTable(["name", "AP"], [["a|b", "1.0 ± 0.5"], ["50%", ""]], words=1)
    assert table.markdown() == (
        "| name | AP        |\n| ---- | --------: |\n| a\\|b | 1.0 ± 0.5 |\n| 50%  |           |\n"
    )
    latex = table.latex("label", "A_B", ["n & m"])
    assert r"\begin{tabular}{lr}" in latex
    assert "name & AP \\\\\n\\hline\na|b & 1.0 $\\pm$ 0.5 \\\\\n50\\% &  \\\\\n" in latex
    assert r"\caption{A\_B}" in latex
    assert r"n \& m" in latex


@pytest.mark.parametrize(
    ("row", "value", "text"),
    [
        ("pool5", 41.249, "41.25"),
        ("conv time (s)", 0.0123456, "0.01235"),
        ("conv time (s)", 9.9999, "10.00"),
        ("speedup vs R-CNN", 63.59, "63.6"),
        ("conv speedup vs R-CNN", 169.06, "169"),
        ("pool5", math.nan, ""),
    ],
)
def test_numbers_in_the_unit_of_their_row(row, value, text):
    assert format_number(value, row) == text


def test_a_deviation_has_the_decimals_of_its_mean():
    assert format_mean(41.249, 0.96, "pool5", 1) == "41.2 ± 1.0"
    assert format_mean(1234.56, 7.7, "conv time (s)") == "1235 ± 8"
    assert format_mean(41.249, math.nan, "pool5", 1) == "41.2"
    assert format_mean(math.nan, math.nan, "pool5") == ""


def test_numbers_of_json_are_fractions_seconds_or_ratios():
    assert fraction(34.6, "pool5") == 0.346
    assert fraction(34.6, (5, "ftfc7 bb")) == 0.346
    assert fraction(34.6, "fc time (s)") == 34.6
    assert fraction(34.6, "conv speedup vs R-CNN") == 34.6
    assert fraction(math.nan, "pool5") is None
