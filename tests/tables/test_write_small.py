import json

import pandas as pd
import pytest

from sppnet_cli.tables.write import write_small_table

NAN = float("nan")
ROWS = pd.MultiIndex.from_tuples([("zf5", "no SPP"), ("zf5", "SPP")], names=["arch", "training"])


def table(values):
    return pd.DataFrame(values, index=ROWS, columns=["top1_error", "top5_error"])


def test_the_files(tmp_path):
    ours, theirs = table([[35.126, NAN], [34.0, 14.5]]), table([[35.99, 14.76], [NAN, NAN]])
    write_small_table(tmp_path / "results", "nets", ours, theirs, {"seeds": [0], "notes": ["Mini."]})
    folder = tmp_path / "results"
    assert (folder / "nets.csv").read_text() == (
        "arch,training,top1_error,top5_error\nzf5,no SPP,35.13,\nzf5,SPP,34.0,14.5\n"
    )
    assert (folder / "nets.md").read_text() == (
        "Percent. Sources: ours (measured here, a dash where it was not), paper (as published).\n"
        "\n"
        "| arch | training | source | top1_error | top5_error |\n"
        "| ---- | -------- | ------ | ---------: | ---------: |\n"
        "| zf5  | no SPP   | ours   | 35.13      | -          |\n"
        "| zf5  | no SPP   | paper  | 35.99      | 14.76      |\n"
        "| zf5  | SPP      | ours   | 34.00      | 14.50      |\n"
        "\n"
        "- Mini.\n"
    )
    assert (folder / "nets.published.csv").read_text() == (
        "arch,training,top1_error,top5_error\nzf5,no SPP,35.99,14.76\nzf5,SPP,,\n"
    )
    record = json.loads((folder / "nets.json").read_text())
    assert (record["table"], record["seeds"]) == ("nets", [0])
    first = {"arch": "zf5", "training": "no SPP", "top1_error": 0.35126, "top5_error": None}
    assert record["values"][0] == first
    assert record["published"][0] == {
        "arch": "zf5",
        "training": "no SPP",
        "top1_error": 0.3599,
        "top5_error": 0.1476,
    }
    assert "deviation" not in record


def test_the_spread_over_seeds(tmp_path):
    ours = table([[35.126, NAN], [34.0, 14.5]])
    write_small_table(tmp_path, "nets", ours, ours * NAN, {}, deviation=ours / 100, seeds=2)
    text = (tmp_path / "nets.md").read_text()
    assert "| zf5  | no SPP   | ours   | 35.13 ± 0.35 |" in text
    assert "mean ± sample standard deviation over 2 seeds" in text
    record = json.loads((tmp_path / "nets.json").read_text())
    assert record["deviation"][1] == {
        "arch": "zf5",
        "training": "SPP",
        "top1_error": 0.0034,
        "top5_error": 0.00145,
    }
    assert "published" not in record


def test_numbers_of_the_journal_are_called_so(tmp_path):
    ours = table([[35.126, NAN], [34.0, 14.5]])
    write_small_table(tmp_path, "nets", ours, ours, {}, source="journal")
    text = (tmp_path / "nets.md").read_text()
    assert "| zf5  | SPP      | journal | 34.00      | 14.50      |" in text
    assert text.startswith(
        "Percent. Sources: ours (measured here, a dash where it was not), journal (as published)."
    )


def test_a_single_key(tmp_path):
    ours = pd.DataFrame({"mAP": [50.0]}, index=pd.Index([224], name="short_side"))
    write_small_table(tmp_path, "scale", ours, ours * NAN, {})
    assert "| 224        | ours   | 50.00 |" in (tmp_path / "scale.md").read_text()


def test_rows_of_seconds_stay_seconds(tmp_path):
    rows = pd.Index(["ftfc7", "fc time (s)"], name="row")
    ours = pd.DataFrame({"full": [50.126, 0.0123456], "quarter": [NAN, 2.0]}, index=rows)
    theirs = pd.DataFrame({"full": [55.2, 0.089], "quarter": [NAN, NAN]}, index=rows)
    write_small_table(tmp_path, "fc", ours, theirs, {})
    assert (tmp_path / "fc.csv").read_text() == "row,full,quarter\nftfc7,50.13,\nfc time (s),0.01235,2.0\n"
    text = (tmp_path / "fc.md").read_text()
    assert (
        "| ftfc7       | ours   | 50.13   |         |\n| ftfc7       | paper  | 55.20   |         |\n" in text
    )
    assert (
        "| fc time (s) | ours   | 0.01235 | 2.000   |\n| fc time (s) | paper  | 0.08900 |         |\n" in text
    )
    assert text.startswith("Percent, but for the rows that name their unit. Sources: ")
    first, second = json.loads((tmp_path / "fc.json").read_text())["values"]
    assert first == {"row": "ftfc7", "full": 0.50126, "quarter": None}
    assert second == {"row": "fc time (s)", "full": 0.0123456, "quarter": 2.0}


def test_other_rows_are_refused(tmp_path):
    ours = table([[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="differ in rows or columns"):
        write_small_table(tmp_path, "nets", ours, ours.iloc[:1], {})
    assert list(tmp_path.iterdir()) == []
